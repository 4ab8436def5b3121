"""Which revisions are fit to train on, with a count for every reason.

Dropped: empty; truncated; talks about the revision ("Sure, here is ..."), which would teach the policy to answer a request
that nobody made; and unchanged where that means untouched: the text still is the initial response and the
prompt is known to be harmful.

Unchanged revisions are otherwise kept. A critique that finds nothing to mend rightly leaves a response as it is, and the
repeated text is a vote for it; but as long as no round has changed anything on a harmful prompt, the text carries nothing
of the constitution, and to train on it is to train on the helpful-only model.

Evasive ones are counted and kept: only their wording can be seen here, and a short refusal may be right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from charter.records import Conversation, RevisionChain

ABOUT_REVISION = re.compile(
    r"^\W*(?:(?:sure|certainly|of course|okay|ok|absolutely)\b[^.\n]{0,40})?"
    r"(?:here(?:'s| is| are)|below is|i(?:'ve| have)|this is|the following is)\b[^.\n:]{0,60}"
    r"\b(?:revised|revision|rewrite|rewritten|rewrote|rephrased|updated|improved|edited|reworked|new version)\b|"
    r"^\W*(?:revised|rewritten|updated|new) (?:response|version|answer|reply)\b|^\W*revision\s*:",
    re.IGNORECASE,
)
EVASIVE = re.compile(
    r"^\W*(?:(?:i'm|i am) sorry\b[^.]{0,30})?\W*(?:but )?"
    r"i (?:can(?:'t|not)|won't|will not|am unable to|am not able to|do not want to)\b[^.\n]{0,80}\.?\W*$",
    re.IGNORECASE,
)


@dataclass
class FilteredRevisions:
    """Rows fit for training, and what became of the rest."""

    rows: list[tuple[Conversation, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def reason_to_drop(chain: RevisionChain, round: int) -> str | None:
    """Why the revision of a round (1, 2, ...) is unfit to train on; None where it is fit."""
    entry = chain.rounds[round - 1]
    if not entry.revision.strip():
        return "empty"
    if entry.truncated:
        return "truncated"
    if ABOUT_REVISION.search(entry.revision):
        return "about_the_revision"
    if entry.revision.strip() == chain.initial_response.strip() and chain.prompt.harmful:
        return "unchanged_on_harmful"
    return None


def why_unfit(counts: Mapping[str, int], max_new_tokens: int, context: int) -> list[tuple[int, str]]:
    """(number, reason in words and what to do) of the revisions that were dropped, the commonest first.

    Args:
        context: tokens that the model can hold.
    """
    words = {
        "truncated": "were cut off: raise revise.sampling.max_new_tokens",
        "empty": (
            f"are empty: where a prompt and revise.sampling.max_new_tokens ({max_new_tokens:,}) leave no room in the model's "
            f"context of {context:,} tokens nothing is written: shorten one of them, or take another model"
        ),
        "about_the_revision": "talk about the revision itself: look at 1-revise/revisions.jsonl, and try another model",
        "unchanged_on_harmful": "leave the answer to a harmful prompt as it was: look at the constitution's requests",
    }
    found = [(counts[reason], text) for reason, text in words.items() if counts.get(reason)]
    return sorted(found, key=lambda pair: -pair[0])


def is_evasive(text: str) -> bool:
    """Is the whole text a stock refusal of one sentence that gives no reason?"""
    return bool(EVASIVE.search(text.strip()))


def fit_revisions(chains: list[RevisionChain], rounds: str, up_to: int) -> FilteredRevisions:
    """Training rows from revision chains.

    Args:
        rounds: "all", or "last" for the last fit revision of each chain.
        up_to: use rounds 1 to this one; 0 gives the initial responses (the control: no revision at all).
    """
    found = FilteredRevisions()
    for chain in chains:
        kept = list(_initial(chain, found.counts) if up_to == 0 else _fit(chain, up_to, found.counts))
        rows = kept if rounds == "all" else kept[-1:]
        found.rows += [(chain.prompt.messages, text) for text in rows]
    found.counts["kept"] = len(found.rows)
    return found


def _initial(chain: RevisionChain, counts: Counter[str]) -> Iterator[str]:
    if not chain.initial_response.strip() or chain.initial_truncated:
        counts["truncated" if chain.initial_truncated else "empty"] += 1
        return
    yield chain.initial_response


def _fit(chain: RevisionChain, up_to: int, counts: Counter[str]) -> Iterator[str]:
    before = chain.initial_response
    for entry in chain.rounds[:up_to]:
        counts["unchanged"] += entry.revision.strip() == before.strip()
        counts["evasive"] += is_evasive(entry.revision)
        reason = reason_to_drop(chain, entry.round)
        if reason is None:
            yield entry.revision.strip()
        else:
            counts[reason] += 1
        before = entry.revision or before
