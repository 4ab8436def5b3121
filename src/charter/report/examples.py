"""Examples for the page, chosen by rule: chains of revision, and replies of the policies to the same prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from charter.records import EvaluatedResponse, Message, Reading, RevisionChain
from charter.report.artifacts import Artifacts
from charter.report.diff import Span, diff
from charter.report.figures import number
from charter.report.visible import clipped

NUM_CHAINS = 4
MAX_CHAINS_READ = 2000
MAX_TURNS = 8
MAX_STEPS = 8
POLICIES = ("initial", "sl-cai", "rl-cai")


@dataclass(frozen=True)
class Step:
    """One round: the principle, the critique, and what the revision changed."""

    round: int
    principle_id: str
    critique: str | None
    spans: list[Span]
    unchanged: bool


@dataclass(frozen=True)
class Chain:
    """A chain of revision, ready to show, and why it is shown."""

    why: str
    messages: tuple[Message, ...]
    harmful: bool | None
    initial: str
    steps: list[Step]


@dataclass(frozen=True)
class Reply:
    """What one policy replied, and what is known of it."""

    policy: str
    text: str
    badges: list[tuple[str, str]]


@dataclass(frozen=True)
class Comparison:
    """The policies' replies to one held-out prompt, and why this prompt is shown."""

    why: str
    messages: tuple[Message, ...]
    harmful: bool | None
    replies: list[Reply] = field(default_factory=list)


def chains(artifacts: Artifacts) -> list[Chain]:
    """Up to four chains: of harmful prompts two that end far from where they began and a middling one, and one other."""
    found: list[RevisionChain] = []
    for row in artifacts.rows("1-revise/revisions.jsonl"):
        found.append(RevisionChain.from_json(row))
        if len(found) == MAX_CHAINS_READ:
            break
    ranked = sorted((chain for chain in found if chain.rounds), key=_overlap)
    harmful = [chain for chain in ranked if chain.prompt.harmful]
    others = [chain for chain in ranked if not chain.prompt.harmful]
    far = "it ends with the fewest words of its initial response, of {} chains of {} prompts"
    middling = "of middling change, of {} chains of {} prompts"
    chosen = [(chain, far.format(len(harmful), "harmful")) for chain in harmful[:2]]
    if len(harmful) > 2:
        chosen.append((harmful[max(2, len(harmful) // 2)], middling.format(len(harmful), "harmful")))
    chosen += [(chain, far.format(len(others), "other")) for chain in others[: max(1, NUM_CHAINS - len(chosen))]]
    return [_chain(chain, why) for chain, why in chosen[:NUM_CHAINS]]


def _overlap(chain: RevisionChain) -> float:
    """Share of words, in [0, 1], that the last text and the initial response have in common."""
    *_, last = _texts(chain)
    first, final = Counter(chain.initial_response.split()), Counter(last.after.split())
    return (first & final).total() / max(1, first.total(), final.total())


@dataclass(frozen=True)
class _Change:
    kind: str
    before: str
    after: str


def _texts(chain: RevisionChain) -> Iterator[_Change]:
    """What each round made of the text; an empty revision leaves it as it was."""
    before = chain.initial_response
    for entry in chain.rounds:
        after = entry.revision if entry.revision.strip() else before
        yield _Change("same" if after.split() == before.split() else "changed", before, after)
        before = after


def _chain(chain: RevisionChain, why: str) -> Chain:
    steps = []
    for entry, change in list(zip(chain.rounds, _texts(chain), strict=True))[:MAX_STEPS]:
        critique = None if entry.critique is None else clipped(entry.critique)
        spans = diff(clipped(change.before), clipped(change.after))
        steps.append(Step(entry.round, entry.principle_id, critique, spans, change.kind == "same"))
    if len(chain.rounds) > MAX_STEPS:
        why = f"{why}; the first {MAX_STEPS} of {len(chain.rounds)} rounds"
    return Chain(why, shown_turns(chain.prompt.messages), chain.prompt.harmful, clipped(chain.initial_response), steps)


def shown_turns(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The last turns of a conversation, each cut where it is too long."""
    turns = [Message(message.role, clipped(message.content)) for message in messages]
    num_left_out = len(turns) - MAX_TURNS
    if num_left_out <= 0:
        return tuple(turns)
    return (Message("system", f"[{num_left_out} earlier turns in the run folder]"), *turns[-MAX_TURNS:])


def comparisons(artifacts: Artifacts) -> list[Comparison]:
    """Held-out prompts with the replies of all policies: mended ones, kept ones and, where there are any, worse ones."""
    replies = {name: _replies(artifacts, name) for name in POLICIES}
    names = [name for name in POLICIES if replies[name]]
    if len(names) < 2:
        return []
    first, last = replies[names[0]], replies[names[-1]]
    shared = [id for id in first if all(id in replies[name] for name in names)]
    result = []
    for id, why in _choose(shared, first, last):
        prompt = first[id].prompt
        shown = [Reply(name, clipped(replies[name][id].response), badges(replies[name][id].reading)) for name in names]
        result.append(Comparison(why, shown_turns(prompt.messages), prompt.harmful, shown))
    return result


def _replies(artifacts: Artifacts, name: str) -> dict[str, EvaluatedResponse]:
    rows = (EvaluatedResponse.from_json(row) for row in artifacts.rows(f"7-evaluate/{name}.jsonl"))
    return {row.prompt.id: row for row in rows}


Rows = dict[str, EvaluatedResponse]


def _choose(ids: Sequence[str], first: Rows, last: Rows) -> list[tuple[str, str]]:
    """(prompt id, why): the rule is in the words."""
    mended = [id for id in ids if first[id].reading.harmful and last[id].reading.harmful is False]
    kept = [id for id in ids if first[id].prompt.harmful is False and last[id].reading.correct]
    losses = {id: _loss(first[id].reading, last[id].reading) for id in ids}
    worse = sorted((id for id in ids if losses[id] > 0), key=lambda id: -losses[id])
    half = len(mended) // 2
    middling = sorted(mended, key=lambda id: losses[id])[half : half + 2]
    chosen = [
        (id, f"harmful at first, no longer at the end: one of {len(mended)} such, of middling gain") for id in middling
    ]
    chosen += [(id, f"harmless, and answered correctly at the end: the first of {len(kept)} such") for id in kept[:1]]
    chosen += [(id, f"worse at the end than at the start: the worst of {len(worse)} such") for id in worse[:1]]
    if not chosen:
        differing = [id for id in ids if first[id].response != last[id].response]
        chosen = [(id, "the first prompts with differing replies; nobody read them") for id in differing[:3]]
    seen: dict[str, str] = {}
    for id, why in chosen:
        seen.setdefault(id, why)
    return list(seen.items())


def _loss(before: Reading, after: Reading) -> float:
    """How much worse the later reading is: in gold where it is known, else in flags."""
    if before.gold is not None and after.gold is not None:
        return before.gold - after.gold
    faults = [(getattr(before, name), getattr(after, name)) for name in ("harmful", "rude", "false")]
    faults.append((after.correct, before.correct))
    return sum(float(late) - float(early) for early, late in faults if early is not None and late is not None)


def badges(reading: Reading) -> list[tuple[str, str]]:
    """(word, good | bad | plain) for what is known of a reply."""
    told: dict[str, tuple[Any, str]] = {
        "harmful": (reading.harmful, "bad"),
        "correct": (reading.correct and not reading.harmful, "good"),  # to do harm rightly is no merit
        "false": (reading.false, "bad"),
        "rude": (reading.rude, "bad"),
        "evasive": (reading.evasive, "bad"),
        "refuses": (reading.refused, "plain"),
    }
    found = [(name, style) for name, (flag, style) in told.items() if flag]
    if reading.gold is not None:
        found.append((f"gold {number(reading.gold)}", "plain"))
    return found
