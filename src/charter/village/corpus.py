"""Pretraining examples. Each is a shared beginning and several branches that continue it independently.

A block mask keeps branches apart, so that one request teaches several replies, one reply several critiques, one pair of
replies many judgments, each in exactly the form in which it is asked later.

    respond    request -> several usual replies
    critique   request, reply, "check the reply by the rule ..." -> evidence, then verdict
    revise     ... critique, "rewrite the reply ..." -> revision
    judge      request, reply A, reply B, "by the rule ... which is better ?" -> A or B
    reason     the same with "think": the finding about each reply, then A or B
    drill      copy a list, say one of two replies, find which reply holds a word
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from charter.village.oracle import read_reply
from charter.village.principles import TOPICS, keeps, prefers
from charter.village.prompts import Request, make_request
from charter.village.replies import Reply, make_pair, make_reply, text_of
from charter.village.skills import (
    REVISION_REQUEST,
    any_rule,
    asked,
    compared,
    critique,
    critique_request,
    reasons,
    revise,
    taste,
    verdict,
)

Turn = tuple[str, str]  # role, text
CORPUS_WEIGHTS = {"respond": 0.13, "critique": 0.17, "revise": 0.17, "judge": 0.22, "reason": 0.23, "drill": 0.08}
"""Share of tokens; drills have a larger share at first (``drill_share``)."""
TOKENS_PER_EXAMPLE = {"respond": 75, "critique": 150, "revise": 175, "judge": 190, "reason": 270, "drill": 70}


@dataclass(frozen=True)
class Example:
    """``beginning`` and ``branches`` are lists of turns; only assistant turns of branches are learned at full weight.

    ``opens_turn`` means that a branch continues the user turn with which the beginning ends.
    """

    beginning: list[Turn]
    branches: list[list[Turn]]
    opens_turn: bool = False


def example(rng: random.Random, drill_share: float) -> Example:
    """Draw one training example; ``drill_share`` in [0, 1] is the share of tokens that goes to drills."""
    skills = list(CORPUS_WEIGHTS)
    others = 1 - CORPUS_WEIGHTS["drill"]
    shares = [drill_share if s == "drill" else CORPUS_WEIGHTS[s] / others * (1 - drill_share) for s in skills]
    weights = [share / TOKENS_PER_EXAMPLE[s] for s, share in zip(skills, shares, strict=True)]
    return _MAKERS[rng.choices(skills, weights)[0]](rng)


def _earlier(request: Request) -> list[Turn]:
    return [(m.role, m.content) for m in request.messages()]


def respond(rng: random.Random) -> Example:
    request = make_request(rng, "open")
    replies = [[("assistant", text_of(make_reply(rng, request)))] for _ in range(3)]
    return Example(_earlier(request), replies)


def _judged_reply(rng: random.Random) -> tuple[Request, Reply]:
    request = make_request(rng)
    return request, make_reply(rng, request, rng.choice(["usual", "broad", "broad"]))


def _topics(rng: random.Random, request: Request, reply: Reply, count: int) -> list[str]:
    """Topics to ask about, broken ones first among equals: a balanced diet of verdicts."""
    found = read_reply(request, text_of(reply))
    broken = [t for t in TOPICS if not keeps(request, found, t)]
    kept = [t for t in TOPICS if t not in broken]
    rng.shuffle(broken)
    rng.shuffle(kept)
    half = (count + 1) // 2
    return (broken[:half] + kept)[:count]


def critiques(rng: random.Random) -> Example:
    request, reply = _judged_reply(rng)
    text = text_of(reply)
    branches = [
        [("user", critique_request(any_rule(rng, topic))), ("assistant", critique(request, text, topic))]
        for topic in _topics(rng, request, reply, 5)
    ]
    return Example([*_earlier(request), ("context", text)], branches)


def revisions(rng: random.Random) -> Example:
    request, reply = _judged_reply(rng)
    text = text_of(reply)
    branches: list[list[Turn]] = []
    for topic in _topics(rng, request, reply, 3):
        asks = critique_request(any_rule(rng, topic))
        revision: Turn = ("assistant", text_of(revise(rng, request, reply, topic)))
        if rng.random() < 0.2:  # straight to the revision: the pipeline's ablation asks so
            branches.append([("user", f"{asks} {REVISION_REQUEST}"), revision])
        else:
            critic: Turn = ("assistant", critique(request, text, topic))
            branches.append([("user", asks), critic, ("user", REVISION_REQUEST), revision])
    return Example([*_earlier(request), ("context", text)], branches)


def _comparison(rng: random.Random, chain_of_thought: bool, count: int) -> Example:
    request = make_request(rng)
    replies = make_pair(rng, request)
    texts = [text_of(reply) for reply in replies]
    first, second = (read_reply(request, text) for text in texts)
    deciding = [t for t in TOPICS if prefers(request, first, second, t) is not None]
    rest = [t for t in TOPICS if t not in deciding]
    rng.shuffle(deciding)
    rng.shuffle(rest)
    branches: list[list[Turn]] = []
    for topic in (deciding[: count - 1] + rest)[:count]:
        answer = verdict(rng, request, first, second, topic)
        if chain_of_thought:
            answer = f"{reasons(request, first, second, topic)} {answer}"
        branches.append([("user", asked(any_rule(rng, topic), chain_of_thought)), ("assistant", answer)])
    if not chain_of_thought:
        branches[-1] = [("user", asked(None, False)), ("assistant", taste(rng, request, first, second))]
    return Example([("user", compared(request.messages(), *texts))], branches, opens_turn=True)


def judgments(rng: random.Random) -> Example:
    return _comparison(rng, chain_of_thought=False, count=8)


def reasoned_judgments(rng: random.Random) -> Example:
    return _comparison(rng, chain_of_thought=True, count=4)


def drills(rng: random.Random) -> Example:
    """Copying and binding: the two habits on which all other skills stand."""
    request = make_request(rng, "open")
    first, second = (text_of(reply).split() for reply in make_pair(rng, request))
    beginning = f"reply A : {' '.join(first)} reply B : {' '.join(second)}"
    only = {"A": [w for w in first if w not in second], "B": [w for w in second if w not in first]}
    branches: list[list[Turn]] = [[("user", f"say reply {side} ."), ("assistant", " ".join(words))]
                                  for side, words in (("A", first), ("B", second))]  # fmt: skip
    for side, words in only.items():
        branches += [[("user", f"which has {rng.choice(words)} ?"), ("assistant", side)] for _ in range(2) if words]
    return Example([("user", beginning)], branches, opens_turn=True)


_MAKERS = {
    "respond": respond,
    "critique": critiques,
    "revise": revisions,
    "judge": judgments,
    "reason": reasoned_judgments,
    "drill": drills,
}
