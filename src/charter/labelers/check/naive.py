"""A question without any defence, as a judge loop writes it first: what hardening is measured against."""

from __future__ import annotations

from charter.labelers.question import NO_PRINCIPLE, transcript
from charter.records import Conversation, Principle


def undefended(
    conversation: Conversation,
    response_first: str,
    response_second: str,
    principle: Principle | None,
    chain_of_thought: bool,
) -> str:
    """As ``question.comparison``, with neither fences nor a reminder after the material."""
    asked = principle.comparison if principle else NO_PRINCIPLE
    end = "Think step by step, then end with: The better response is A, or: The better response is B."
    return (
        f"{asked}\n\n{transcript(conversation)}\n\nResponse A: {response_first}\n\nResponse B: {response_second}\n\n"
        f"{end if chain_of_thought else 'Answer with one letter: A or B.'}"
    )
