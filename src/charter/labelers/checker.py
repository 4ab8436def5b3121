"""Verifiable rewards: a response is right or wrong, and no model is asked.

    exact   the response is the prompt's answer, letter case and spaces aside
    math    an expression in it equals the prompt's answer (math-verify)
    code    the program in it passes the tests that the prompt's answer holds (labelers/sandbox.py)
    package.module:function    function(prompt, response) -> score in [0, 1], or None where it can't tell

As a labeler it prefers the response with the higher score, and abstains where both have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from charter.config import CheckerConfig
from charter.errors import ConfigError, LabelerError
from charter.labelers.combine import combine, log_odds, sigmoid
from charter.records import Abstention, Judgment, Prompt, ResponsePair
from charter.sources import is_python, resolve_python

Check = Callable[[Prompt, str], float | None]


@dataclass(frozen=True)
class CheckerLabeler:
    """Scores responses with a check."""

    name: str
    check: Check

    def score(self, items: Sequence[tuple[Prompt, str]]) -> list[float | Abstention]:
        """Score in [0, 1] of each (prompt, response); an abstention where the check can't tell.

        Raises:
            LabelerError: the check gives something else.
        """
        return [self._score(prompt, response) for prompt, response in items]

    def label(self, pairs: Sequence[ResponsePair]) -> list[list[Judgment]]:
        """One judgment of each pair."""
        return [[self._judge(pair)] for pair in pairs]

    def combine(self, judgments: Sequence[Judgment]) -> float | Abstention:
        """As ``Labeler.combine``."""
        return combine(judgments, {None: 1.0}, sharpness=1.0)

    def _score(self, prompt: Prompt, response: str) -> float | Abstention:
        score = self.check(prompt, response)
        if score is None:
            return Abstention.UNCHECKABLE
        if not 0 <= score <= 1:  # NaN too
            raise LabelerError(
                f"{self.name}: gave {score} for prompt {prompt.id}: a check gives a score in [0, 1] or None"
            )
        return float(score)

    def _judge(self, pair: ResponsePair) -> Judgment:
        a, b = self.score([(pair.prompt, pair.response_a), (pair.prompt, pair.response_b)])
        for score in (a, b):
            if isinstance(score, Abstention):
                return Judgment(pair.id, None, "ab", None, score, labeler=self.name)
        assert isinstance(a, float) and isinstance(b, float)
        if a == b:
            return Judgment(pair.id, None, "ab", None, Abstention.UNDECIDED, f"A: {a:g}\nB: {b:g}", self.name)
        return Judgment(pair.id, None, "ab", sigmoid(log_odds(a) - log_odds(b)), None, f"A: {a:g}\nB: {b:g}", self.name)


def make_checker(config: CheckerConfig) -> CheckerLabeler:
    """The checker that the run file describes.

    Raises:
        ConfigError: unknown check, its library isn't there, or code without ``allow_code``.
    """
    name = f"checker {config.check}"
    match config.check:
        case "exact":
            return CheckerLabeler(name, exact)
        case "math":
            return CheckerLabeler(name, _math(config.seconds))
        case "code":
            return CheckerLabeler(name, _code(config))
    if not is_python(config.check):
        raise ConfigError(
            f"label.labeler.check: {config.check!r} is no check: write exact, math, code or package.module:function"
        )
    check = resolve_python(config.check)
    if not callable(check):
        raise ConfigError(f"label.labeler.check: {config.check} can't be called: name a function")
    return CheckerLabeler(name, check)


def exact(prompt: Prompt, response: str) -> float | None:
    """Is the response the prompt's answer, letter case and spaces aside? None where the prompt has none."""
    if prompt.answer is None:
        return None
    return float(_plain(prompt.answer) == _plain(response))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _math(seconds: float) -> Check:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ConfigError("label.labeler.check: math needs math-verify: pip install 'charter[math]'") from error
    limit = max(1, round(seconds))

    def check(prompt: Prompt, response: str) -> float | None:
        gold = parse(prompt.answer, parsing_timeout=limit) if prompt.answer else []
        if not gold:
            return None
        found = parse(response, parsing_timeout=limit)
        return float(bool(found) and verify(gold, found, timeout_seconds=limit))

    return check


def _code(config: CheckerConfig) -> Check:
    from charter.labelers.sandbox import Limits, passes

    if not config.allow_code:
        raise ConfigError(
            "label.labeler.check: code runs what a model wrote: set label.labeler.allow_code to true if you want that"
        )
    limits = Limits(config.seconds, config.memory_mb)

    def check(prompt: Prompt, response: str) -> float | None:
        return None if prompt.answer is None else float(passes(response, prompt.answer, limits))

    return check
