"""Put comparison questions to a language model, directly or after a chain of thought, and read judgments.

This is the only place where an answer about "first" and "second" turns into one about A and B of the pair.

Bai et al. 2022 (arXiv:2212.08073), section 4.1: soft labels from option probabilities; with chain of thought they are
clamped (the paper: 0.4-0.6), since a reasoned answer is nearly always over-confident. Departures: the reasoning is cut
before its verdict and the option is weighed there; reasoning is greedy; without a stated verdict the labeler abstains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from charter.labelers.combine import option_probabilities
from charter.labelers.question import Material, Wording, few_shot, reasoning_before_verdict
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
class Ask:
    """One question: pair x principle x order."""

    pair: ResponsePair
    principle: Principle | None
    order: Order

    @property
    def shown(self) -> tuple[str, str]:
        """The two responses in the order in which they are shown."""
        a, b = self.pair.response_a, self.pair.response_b
        return (a, b) if self.order == "ab" else (b, a)


Prepare = Callable[[Sequence[Ask]], "list[tuple[Material, ...] | Abstention]"]
"""Writes what is shown beside the responses, or says why it couldn't be written."""


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How questions are asked.

    Attributes:
        clamp: limits of probabilities that follow a chain of thought.
        votes: sample so many verdicts instead of reading log-probabilities.
        prepare: makes the debate or the critiques that are shown with each question.
    """

    wording: Wording
    chain_of_thought: bool = False
    clamp: tuple[float, float] | None = None
    both_orders: bool = True
    few_shot: bool = False
    max_new_tokens: int = 256
    votes: int | None = None
    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class Worded:
    """A question in words; ``prefill`` is the beginning of its answer."""

    ask: Ask
    conversation: Conversation
    prefill: str = ""


def asks_for(pair: ResponsePair, principles: Sequence[Principle | None], both_orders: bool) -> list[Ask]:
    """The questions about one pair; those that begin alike are neighbours."""
    orders: tuple[Order, ...] = ("ab", "ba") if both_orders else ("ab",)
    return [Ask(pair, principle, order) for order in orders for principle in principles]


def judge_all(model: LanguageModel, asks: Sequence[Ask], settings: AskSettings) -> list[Judgment]:
    """Ask all questions in one batch; one judgment or abstention for each, in order."""
    prepared = settings.prepare(asks) if settings.prepare else [()] * len(asks)
    worded = {
        i: _word(ask, material, settings)
        for i, (ask, material) in enumerate(zip(asks, prepared, strict=True))
        if not isinstance(material, Abstention)
    }
    judged = dict(zip(worded, _judge(model, list(worded.values()), settings), strict=True))
    return [
        judged[i] if i in judged else abstention(model.name, ask, Abstention(str(material)))
        for i, (ask, material) in enumerate(zip(asks, prepared, strict=True))
    ]


def _word(ask: Ask, material: Sequence[Material], settings: AskSettings) -> Worded:
    said, (first, second), principle = ask.pair.prompt.messages, ask.shown, ask.principle
    if material:
        worded = settings.wording(said, first, second, principle, settings.chain_of_thought, material)
    else:
        worded = settings.wording(said, first, second, principle, settings.chain_of_thought)
    text, prefill = (worded, "") if isinstance(worded, str) else worded
    shots: Conversation = ()
    if settings.few_shot:
        shots = few_shot(settings.wording, ask.principle is not None, settings.chain_of_thought)
    return Worded(ask, (*shots, Message("user", text)), prefill)


def _judge(model: LanguageModel, worded: Sequence[Worded], settings: AskSettings) -> list[Judgment]:
    if settings.votes:
        from charter.labelers.votes import judge_by_votes

        return judge_by_votes(model, worded, settings)
    if settings.chain_of_thought:
        return _judge_after_reasons(model, worded, settings)
    questions = [
        Question(w.conversation, OPTIONS_AFTER_REASONS if w.prefill else DIRECT_OPTIONS, w.prefill) for w in worded
    ]
    choices = model.choose(questions)
    return [_judgment(model, w.ask, choice) for w, choice in zip(worded, choices, strict=True)]


def _judge_after_reasons(model: LanguageModel, worded: Sequence[Worded], settings: AskSettings) -> list[Judgment]:
    thoughts = model.generate(
        [w.conversation for w in worded],
        seeds=[0] * len(worded),
        max_new_tokens=settings.max_new_tokens,
        temperature=0.0,
    )
    prefills = [reasoning_before_verdict(t.text) if t.finish_reason == "stop" else None for t in thoughts]
    readable = [i for i, prefill in enumerate(prefills) if prefill is not None]
    choices = model.choose(
        [Question(worded[i].conversation, OPTIONS_AFTER_REASONS, prefills[i] or "") for i in readable]
    )
    chosen = dict(zip(readable, choices, strict=True))
    return [
        _judgment(model, w.ask, chosen[i], thought, settings.clamp)
        if i in chosen
        else abstention(model.name, w.ask, _why_unread(thought), thought)
        for i, (w, thought) in enumerate(zip(worded, thoughts, strict=True))
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
        abstained = reason_of(choice)
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


def reason_of(choice: Choice) -> Abstention:
    """Why a choice gives no log-probabilities."""
    known = {reason.value for reason in Abstention}
    return Abstention(choice.reason) if choice.reason in known else Abstention.NO_LOGPROBS


def _why_unread(thought: Generation) -> Abstention:
    return ABSTENTION_OF_FINISH.get(thought.finish_reason, Abstention.UNREADABLE)


def abstention(labeler: str, ask: Ask, reason: Abstention, thought: Generation | None = None) -> Judgment:
    """A judgment that gives a reason instead of a probability."""
    return Judgment(
        ask.pair.id,
        ask.principle.id if ask.principle else None,
        ask.order,
        None,
        reason,
        raw=thought.text if thought else "",
        labeler=labeler,
        num_prompt_tokens=thought.num_prompt_tokens if thought else 0,
        num_completion_tokens=thought.num_completion_tokens if thought else 0,
    )
