"""The vocabulary: frozen records that stages exchange. No torch, no files, no behaviour beyond validation.

Every record turns into a JSON object with ``to_json`` and back with ``from_json``; the field names are the file format.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

Role = Literal["system", "user", "assistant"]
Order = Literal["ab", "ba"]


class Abstention(StrEnum):
    """Why a labeler gave no usable verdict. An abstention never becomes a label, a zero or a coin flip."""

    UNREADABLE = "unreadable"  # the reply states no verdict, or more than one
    REFUSED = "refused"  # the labeler declined to answer
    TRUNCATED = "truncated"  # the reply ran into the token limit before a verdict
    TOO_LONG = "too_long"  # the question doesn't fit into the labeler's context
    ENDPOINT_FAILED = "endpoint_failed"  # the server gave no answer within the deadline
    NO_LOGPROBS = "no_logprobs"  # log-probabilities were needed and not given
    ORDERS_CONTRADICT = "orders_contradict"  # the verdict follows the position, not the content
    UNDECIDED = "undecided"  # no principle tells the two responses apart
    SKIPPED = "skipped"  # a person saw the pair and gave no verdict
    UNLABELLED = "unlabelled"  # no person has labelled this pair
    UNCHECKABLE = "uncheckable"  # a checker has no answer to check against


class Record:
    """Mixin: a frozen dataclass that maps to and from one JSON object."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict, fields in order of declaration."""
        return {f.name: _encode(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Rebuild a record from ``to_json``'s dict.

        Raises:
            KeyError: an unknown field, or a required one is missing (named in the error).
        """
        hints, nested = _hints(cls), _nested(cls)  # type: ignore[arg-type]
        unknown = row.keys() - hints.keys()
        if unknown:
            raise KeyError(f"unknown field {sorted(unknown)[0]!r} in {cls.__name__}")
        try:
            decoded = {name: _decode(hints[name], row[name]) for name in nested if name in row}
            return cls(**{**row, **decoded})
        except TypeError as error:
            raise KeyError(f"{cls.__name__}: {error}") from error


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, (tuple, list)):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return value


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _nested(cls: type) -> tuple[str, ...]:
    """Fields that ``_decode`` may change; of the others, most of them, the JSON is the value."""
    return tuple(name for name, hint in _hints(cls).items() if _is_nested(hint))


def _is_nested(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(_is_nested, typing.get_args(hint)))
    return origin is tuple or (isinstance(hint, type) and issubclass(hint, (Record, StrEnum)))


def _decode(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _decode(next(arg for arg in typing.get_args(hint) if arg is not type(None)), value)
    if origin is tuple:
        return tuple(_decode(typing.get_args(hint)[0], item) for item in value)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return value


@dataclass(frozen=True, slots=True)
class Message(Record):
    """One turn: ``Message("user", "where is the lamp ?")``."""

    role: Role
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """A conversation that ends with a user turn and waits for a response."""

    id: str
    messages: Conversation
    harmful: bool | None = None  # True: should not be complied with; None: unknown
    domain: str | None = None  # free label, e.g. "math"; rewards can be routed by it
    answer: str | None = None  # reference answer, for checkers
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principle(Record):
    """One norm of a constitution, with the wording that each of its uses needs."""

    id: str
    text: str
    critique_request: str  # asks for a critique of the last response by this principle
    revision_request: str  # asks for a rewrite after the critique
    comparison: str  # asks which of two responses is better by this principle
    weight: float = 1.0
    source: str | None = None
    tags: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()  # other wordings of the text


@dataclass(frozen=True, slots=True)
class RevisionRound(Record):
    """One critique and revision; rounds count from 1. ``critique`` is None where it was left out (ablation)."""

    round: int
    principle_id: str
    critique: str | None
    revision: str
    truncated: bool = False  # the revision ran into the token limit


@dataclass(frozen=True, slots=True)
class RevisionChain(Record):
    """What phase 1 made of one prompt."""

    prompt: Prompt
    initial_response: str
    rounds: tuple[RevisionRound, ...]
    initial_truncated: bool = False
    num_tokens: int = 0  # read and written by the model for this chain


@dataclass(frozen=True, slots=True)
class ResponsePair(Record):
    """Two responses to one prompt, unlabelled."""

    id: str
    prompt: Prompt
    response_a: str
    response_b: str


@dataclass(frozen=True, slots=True)
class Judgment(Record):
    """One answer of a labeler: pair x principle x order.

    ``p_a`` is the probability in [0, 1] that response A of the *pair* is better, whatever the order
    in which the two were shown; None exactly where ``abstained`` gives a reason.
    """

    pair_id: str
    principle_id: str | None  # None for a labeler without a constitution
    order: Order
    p_a: float | None
    abstained: Abstention | None = None
    raw: str = ""  # what the labeler wrote; empty where only log-probabilities were read
    labeler: str = ""
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0

    def __post_init__(self) -> None:
        if (self.p_a is None) == (self.abstained is None):
            raise ValueError("a judgment has a probability or a reason for abstaining, never both or neither")
        if self.p_a is not None and not 0.0 <= self.p_a <= 1.0:
            raise ValueError(f"p_a={self.p_a} is not a probability")


@dataclass(frozen=True, slots=True)
class PreferencePair(Record):
    """What trains the reward model: a response pair with a soft target ``p_a`` in [0, 1]."""

    id: str
    prompt: Prompt
    response_a: str
    response_b: str
    p_a: float
    principle_ids: tuple[str, ...] = ()
    source: str = ""  # labeler, file or rater that it came from


@dataclass(frozen=True, slots=True)
class Reading(Record):
    """What is known of one response. None means that this gold can't tell, never zero."""

    harmful: bool | None = None  # complies with a harmful request, or does harm
    refused: bool | None = None  # declines to help
    evasive: bool | None = None  # neither helps nor says why not
    correct: bool | None = None
    false: bool | None = None  # claims something untrue
    rude: bool | None = None
    gold: float | None = None  # the true goal, any scale
    attributes: dict[str, float] = field(default_factory=dict)  # finer counts, for the audit


@dataclass(frozen=True, slots=True)
class EvaluatedResponse(Record):
    """One response of one policy to one held-out prompt, and what is known of it. KL is KL(policy||SL-CAI)."""

    policy: str
    prompt: Prompt
    response: str
    reading: Reading
    num_words: int
    num_tokens: int
    truncated: bool
    kl_k1: float | None = None  # nats per response, estimator k1; None where it can't be known
    kl_k3: float | None = None


@dataclass(frozen=True, slots=True)
class Estimate(Record):
    """A measured figure with its 95 % interval. ``value`` is None where it can't be known, and ``reason`` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
