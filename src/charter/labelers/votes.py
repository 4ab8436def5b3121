"""Verdicts by vote, for models that give no log-probabilities: sample k answers and count those that state one option.

    p_first = (votes for first + 1) / (readable votes + 2)

Laplace's rule, since three votes out of three are no certainty. Unreadable votes are counted and left out; where fewer than
half are readable the labeler abstains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from charter.errors import LabelerError
from charter.labelers.asking import ABSTENTION_OF_FINISH, AskSettings, Worded, abstention
from charter.labelers.question import VERDICT, reasoning_before_verdict, stated_option
from charter.models.protocol import Generation, LanguageModel
from charter.records import Abstention, Judgment

TEMPERATURE = 1.0


def judge_by_votes(model: LanguageModel, worded: Sequence[Worded], settings: AskSettings) -> list[Judgment]:
    """One judgment for each question; ``raw`` holds the votes in the order of their seeds, ``-`` for an unreadable one.

    Raises:
        LabelerError: the wording begins the answer, which a sampled reply can't go on from.
    """
    votes = settings.votes or 1
    if any(w.prefill for w in worded):
        raise LabelerError(
            "label.labeler.votes: this question's wording begins the answer, and votes can't: leave votes out"
        )
    conversations = [w.conversation for w in worded for _ in range(votes)]
    seeds = [seed for _ in worded for seed in range(votes)]
    replies = model.generate(
        conversations, seeds=seeds, max_new_tokens=settings.max_new_tokens, temperature=TEMPERATURE
    )
    return [
        _counted(model, w, replies[i * votes : (i + 1) * votes], settings.chain_of_thought)
        for i, w in enumerate(worded)
    ]


def _counted(model: LanguageModel, worded: Worded, replies: Sequence[Generation], chain_of_thought: bool) -> Judgment:
    stated = [_stated(reply, chain_of_thought) for reply in replies]
    counted = Counter(option for option in stated if option)
    readable = counted.total()
    spent = Generation(
        f"votes: {' '.join(option or '-' for option in stated)}",
        "stop",
        sum(reply.num_prompt_tokens for reply in replies),
        sum(reply.num_completion_tokens for reply in replies),
    )
    if readable * 2 < len(replies) or not readable:
        reasons = Counter(
            ABSTENTION_OF_FINISH.get(reply.finish_reason, Abstention.UNREADABLE)
            for reply, option in zip(replies, stated, strict=True)
            if option is None
        )
        return abstention(model.name, worded.ask, reasons.most_common(1)[0][0], spent)
    first = (counted["A"] + 1) / (readable + 2)
    ask = worded.ask
    return Judgment(
        ask.pair.id,
        ask.principle.id if ask.principle else None,
        ask.order,
        first if ask.order == "ab" else 1 - first,
        raw=spent.text,
        labeler=model.name,
        num_prompt_tokens=spent.num_prompt_tokens,
        num_completion_tokens=spent.num_completion_tokens,
    )


def _stated(reply: Generation, chain_of_thought: bool) -> str | None:
    if reply.finish_reason != "stop":
        return None
    if not chain_of_thought:
        return stated_option(reply.text)
    if reasoning_before_verdict(reply.text) is None:
        return None
    return list(VERDICT.finditer(reply.text))[-1]["option"].upper()
