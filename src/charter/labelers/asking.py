"""Put comparison questions to a language model, directly or after a chain of thought, and read judgments.

This is the only place where an answer about "first" and "second" turns into one about A and B of the pair.

Bai et al. 2022 (arXiv:2212.08073), section 4.1: soft labels from option probabilities; with chain of thought they are
clamped (the paper: 0.4-0.6), since a reasoned answer is nearly always over-confident. Departures: the reasoning is cut
before its verdict and the option is weighed there; reasoning is greedy; without a stated verdict the labeler abstains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from charter.labelers.combine import option_probabilities
from charter.labelers.question import Wording, few_shot, reasoning_before_verdict
from charter.models.protocol import Choice, Generation, LanguageModel, Question
from charter.records import Abstention, Conversation, Judgment, Message, Order, Principle, ResponsePair

DIRECT_OPTIONS = ("A", "B")
OPTIONS_AFTER_REASONS = (" A", " B")
ABSTENTION_OF_FINISH = {
    "length": Abstention.TRUNCATED,
    "refused": Abstention.REFUSED,
    "failed": Abstention.ENDPOINT_FAILED,
}


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How questions are asked; ``clamp`` limits probabilities that follow a chain of thought."""

    wording: Wording
    chain_of_thought: bool = False
    clamp: tuple[float, float] | None = None
    both_orders: bool = True
    few_shot: bool = False
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: pair x principle x order."""

    pair: ResponsePair
    principle: Principle | None
    order: Order


def asks_for(pair: ResponsePair, principles: Sequence[Principle | None], both_orders: bool) -> list[Ask]:
    """The questions about one pair; those that begin alike are neighbours."""
    orders: tuple[Order, ...] = ("ab", "ba") if both_orders else ("ab",)
    return [Ask(pair, principle, order) for order in orders for principle in principles]


def judge_all(model: LanguageModel, asks: Sequence[Ask], settings: AskSettings) -> list[Judgment]:
    """Ask all questions in one batch; one judgment or abstention for each, in order."""
    shots: dict[bool, Conversation] = {}
    if settings.few_shot:
        shots = {known: few_shot(settings.wording, known, settings.chain_of_thought) for known in (True, False)}
    conversations = [(*shots.get(ask.principle is not None, ()), _turn(ask, settings)) for ask in asks]
    if settings.chain_of_thought:
        return _judge_after_reasons(model, asks, conversations, settings)
    choices = model.choose([Question(conversation, DIRECT_OPTIONS) for conversation in conversations])
    return [_judgment(model, ask, choice) for ask, choice in zip(asks, choices, strict=True)]


def _turn(ask: Ask, settings: AskSettings) -> Message:
    first, second = ask.pair.response_a, ask.pair.response_b
    if ask.order == "ba":
        first, second = second, first
    text = settings.wording(ask.pair.prompt.messages, first, second, ask.principle, settings.chain_of_thought)
    return Message("user", text)


def _judge_after_reasons(
    model: LanguageModel, asks: Sequence[Ask], conversations: Sequence[Conversation], settings: AskSettings
) -> list[Judgment]:
    thoughts = model.generate(
        conversations, seeds=[0] * len(asks), max_new_tokens=settings.max_new_tokens, temperature=0.0
    )
    prefills = [reasoning_before_verdict(t.text) if t.finish_reason == "stop" else None for t in thoughts]
    readable = [i for i, prefill in enumerate(prefills) if prefill is not None]
    choices = model.choose([Question(conversations[i], OPTIONS_AFTER_REASONS, prefills[i] or "") for i in readable])
    chosen = dict(zip(readable, choices, strict=True))
    return [
        _judgment(model, ask, chosen[i], thought, settings.clamp) if i in chosen else _abstention(model, ask, thought)
        for i, (ask, thought) in enumerate(zip(asks, thoughts, strict=True))
    ]


def _judgment(
    model: LanguageModel,
    ask: Ask,
    choice: Choice,
    thought: Generation | None = None,
    clamp: tuple[float, float] | None = None,
) -> Judgment:
    p_a, abstained = None, None
    if choice.logprobs is None:
        abstained = _reason(choice)
    else:
        p_first, p_second = option_probabilities(*choice.logprobs)
        p_a = p_first if ask.order == "ab" else p_second
    if p_a is not None and clamp is not None:
        p_a = min(max(p_a, clamp[0]), clamp[1])
    return Judgment(
        ask.pair.id,
        ask.principle.id if ask.principle else None,
        ask.order,
        p_a,
        abstained,
        raw=thought.text if thought else "",
        labeler=model.name,
        num_prompt_tokens=choice.num_prompt_tokens + (thought.num_prompt_tokens if thought else 0),
        num_completion_tokens=thought.num_completion_tokens if thought else 0,
    )


def _reason(choice: Choice) -> Abstention:
    known = {reason.value for reason in Abstention}
    return Abstention(choice.reason) if choice.reason in known else Abstention.NO_LOGPROBS


def _abstention(model: LanguageModel, ask: Ask, thought: Generation) -> Judgment:
    return Judgment(
        ask.pair.id,
        ask.principle.id if ask.principle else None,
        ask.order,
        None,
        ABSTENTION_OF_FINISH.get(thought.finish_reason, Abstention.UNREADABLE),
        raw=thought.text,
        labeler=model.name,
        num_prompt_tokens=thought.num_prompt_tokens,
        num_completion_tokens=thought.num_completion_tokens,
    )
