"""What rewards rollouts: a reward model, a check, a labeler's scores, or several of them, mixed or routed by domain.

One source alone gives its own scale. Of several, each is first normalised over the rollouts of the step that it scored,
(score - mean) / deviation, or 0 where all are alike; the reward is the mean by weight over the sources that scored the
rollout. A source that abstains is left out of that mean, never counted as zero; where all abstain there is no reward.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from charter.config import PolicyConfig, RewardSource, RunConfig
from charter.constitution.load import Constitution
from charter.errors import ConfigError
from charter.labelers.make import OpenModel, make_labeler
from charter.models.local import LocalModel
from charter.records import Abstention, Prompt
from charter.stages.saved import load_reward_model
from charter.training.reward import score
from charter.training.rollout import Rollout, StepRewards

Score = float | str | list[float]
"""A number, the reason why there is none, or the number that each member of an ensemble gives."""


class Scorer(Protocol):
    """A check, or a labeler that scores each response on its own."""

    name: str

    def score(self, items: Sequence[tuple[Prompt, str]]) -> list[float | Abstention]: ...


@dataclass(frozen=True)
class RewardPart:
    """A source of reward as the pipeline opened it: ``by`` is the folder of a reward model, or a scorer."""

    by: Path | Scorer
    weight: float = 1.0
    domains: str | tuple[str, ...] = "all"
    """As in the run file: all, rest, or their names."""
    members: tuple[Path, ...] = ()
    """More reward models, which together with the first make an ensemble."""


@dataclass(frozen=True)
class Part:
    """A source that scores: ``name`` in the metrics, ``scores`` of rollouts of prompts in ``prompt_ids`` (None: all)."""

    name: str
    weight: float
    prompt_ids: frozenset[str] | None
    scores: Callable[[list[Rollout]], Sequence[Score]]


@dataclass(frozen=True)
class PartRewards:
    """Rewards of a step from one source or several."""

    parts: Sequence[Part]
    normalised: bool
    tells: bool = True
    """Figures of the sources; a reward model alone needs none beside those of the rewards."""
    caution: float | Literal["min"] = 1.0
    """How an ensemble's members make one reward, as in the run file."""

    def score(self, rollouts: list[Rollout]) -> list[Any]:
        """For each rollout: score, or reason for none, by the place of the source; a source that isn't asked is left out."""
        found: list[dict[str, Score]] = [{} for _ in rollouts]
        for place, part in enumerate(self.parts):
            asked = [i for i, r in enumerate(rollouts) if part.prompt_ids is None or r.prompt_id in part.prompt_ids]
            if asked:
                for i, value in zip(asked, part.scores([rollouts[i] for i in asked]), strict=True):
                    found[i][str(place)] = value
        return found

    def combine(self, scores: list[Any]) -> tuple[list[float | None], dict[str, Any]]:
        """Rewards, and ``sources``: ``{name: {mean, std, num, abstained: {reason: num}}}``, by the sources' own scales.

        With an ensemble also ``reward_spread``: the deviation between its members, mean over the step.
        """
        sums, weights = [0.0] * len(scores), [0.0] * len(scores)
        told: dict[str, Any] = {}
        spread: dict[str, float] = {}
        for place, part in enumerate(self.parts):
            given = {i: row[str(place)] for i, row in enumerate(scores) if str(place) in row}
            known = {i: value for i, value in given.items() if isinstance(value, (int, float))}
            by_members = {i: value for i, value in given.items() if isinstance(value, list)}
            if by_members:
                values, spread["reward_spread"] = cautious(list(by_members.values()), self.caution)
                known = dict(zip(by_members, values, strict=True))
            mean, std = moments(list(known.values()))
            reasons = Counter(value for value in given.values() if isinstance(value, str))
            told[part.name] = {"mean": mean, "std": std, "num": len(known), "abstained": dict(sorted(reasons.items()))}
            for i, value in known.items():
                sums[i] += part.weight * (normalised(value, mean, std) if self.normalised else value)
                weights[i] += part.weight
        rewards = [total / weight if weight else None for total, weight in zip(sums, weights, strict=True)]
        return rewards, {**spread, **({"sources": told} if self.tells else {})}


def cautious(scores: Sequence[Sequence[float]], caution: float | Literal["min"]) -> tuple[list[float], float]:
    """One reward for each rollout from the scores of an ensemble's members, and the members' mean deviation.

    A reward model is known up to a constant only, so the members are first moved to the same mean over the step. Then the
    reward is their mean less ``caution`` deviations, or the least of them (Coste et al. 2023, arXiv:2310.02743).
    """
    means = [sum(own) / len(scores) for own in zip(*scores, strict=True)]
    centre = sum(means) / len(means)
    rewards, spreads = [], []
    for row in scores:
        moved = [value - mean + centre for value, mean in zip(row, means, strict=True)]
        mean, std = moments(moved)
        assert mean is not None and std is not None
        spreads.append(std)
        rewards.append(min(moved) if caution == "min" else mean - caution * std)
    return rewards, sum(spreads) / len(spreads)


def moments(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and (population) standard deviation; None where there are no values. An infinite value gives NaN."""
    if not values:
        return None, None
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def normalised(value: float, mean: float | None, std: float | None) -> float:
    """How many deviations above the mean; 0 where all values are alike, up to rounding."""
    assert mean is not None and std is not None
    return 0.0 if std <= 1e-9 * max(1.0, abs(mean)) else (value - mean) / std


def rewards_of(
    parts: Sequence[RewardPart], policy: LocalModel, prompts: Sequence[Prompt], config: PolicyConfig
) -> tuple[StepRewards, Any]:
    """What rewards the policy's rollouts, and the reward model where one is among the parts."""
    reward_model: Any = None
    made: list[Part] = []
    domains = [part.domains for part in parts]
    names = [name_of(part.by) for part in parts]
    for place, part in enumerate(parts):
        if isinstance(part.by, Path):
            reward_model, *others = [
                load_reward_model(path, policy.model, base=policy if config.lora else None)
                for path in (part.by, *part.members)
            ]
            scores = scores_of_ensemble([reward_model, *others], policy)
        else:
            scores = scores_of(part.by, policy, prompts)
        name = names[place] if names.count(names[place]) == 1 else f"{names[place]} {place + 1}"
        ids = None if part.domains == "all" else frozenset(p.id for p in prompts_of(place, domains, prompts))
        made.append(Part(name, part.weight, ids, scores))
    several = isinstance(config.reward, tuple)
    return PartRewards(made, several, several or reward_model is None, config.caution), reward_model


def open_parts(config: RunConfig, folder: Path, open_model: OpenModel, constitution: Constitution) -> list[RewardPart]:
    """The reward model in ``folder``, the check or the labeler that the run file names, or several of them."""
    members = tuple(folder / f"members/{number}/model" for number in range(2, config.reward.ensemble + 1))
    parts = []
    for source in config.policy.reward_sources:
        if isinstance(source.by, str):
            parts.append(RewardPart(folder / "model", source.weight, source.domains, members))
        else:
            scorer: Any = make_labeler(source.by, open_model, constitution, config.seed)
            parts.append(RewardPart(scorer, source.weight, source.domains))
    return parts


def prompts_of(place: int, domains: Sequence[str | tuple[str, ...]], prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts whose rollouts a source scores; ``domains`` are those of all sources, in order."""
    own = domains[place]
    if own == "all":
        return list(prompts)
    if own == "rest":
        named = {domain for other in domains if isinstance(other, tuple) for domain in other}
        return [prompt for prompt in prompts if prompt.domain not in named]
    return [prompt for prompt in prompts if prompt.domain is not None and prompt.domain in own]


def check_routes(sources: Sequence[RewardSource], prompts: Sequence[Prompt]) -> None:
    """Every source has prompts to score, and every prompt a source.

    Raises:
        ConfigError: one hasn't.
    """
    domains = [source.domains for source in sources]
    routed = [{prompt.id for prompt in prompts_of(place, domains, prompts)} for place in range(len(domains))]
    known = {str(prompt.domain) for prompt in prompts if prompt.domain is not None}
    there = ", ".join(sorted(known)[:10]) or "none"
    for place, named in enumerate(domains):
        strange = [name for name in named if name not in known] if isinstance(named, tuple) else []
        if strange:
            raise ConfigError(
                f"policy.reward[{place}].domains: no prompt is of {strange[0]!r} (the prompts' domains: {there}): mend the name, "
                "or leave it out"
            )
    for place, ids in enumerate(routed):
        if not ids:
            raise ConfigError(
                f"policy.reward[{place}].domains: no prompt is of {domains[place]} (the prompts' domains: {there}): mend the "
                "names, or leave the source out"
            )
    lost = [prompt for prompt in prompts if not any(prompt.id in ids for ids in routed)]
    if lost:
        raise ConfigError(
            f"policy.reward: {len(lost)} prompts, of domain {lost[0].domain}, have no source: give one domains: rest"
        )


def name_of(by: Path | Scorer) -> str:
    """What a source is called."""
    return "reward model" if isinstance(by, Path) else by.name


def scores_of(scorer: Scorer, policy: LocalModel, prompts: Sequence[Prompt]) -> Callable[[list[Rollout]], list[Score]]:
    """Scores in [0, 1] by a scorer, or why it abstains."""
    by_id = {prompt.id: prompt for prompt in prompts}

    def scores(rollouts: list[Rollout]) -> list[Score]:
        items = [(by_id[rollout.prompt_id], policy.decode(rollout.response_ids)) for rollout in rollouts]
        return [str(value) if isinstance(value, Abstention) else value for value in scorer.score(items)]

    return scores


def scores_of_model(reward_model: Any, policy: LocalModel) -> Callable[[list[Rollout]], list[float]]:
    """Scores rollouts, which come group by group; a prompt is computed once for its group."""
    closing = policy.closing_ids

    def scores(rollouts: list[Rollout]) -> list[float]:
        groups: list[list[Rollout]] = []
        for rollout in rollouts:
            if groups and groups[-1][0].prompt_id == rollout.prompt_id:
                groups[-1].append(rollout)
            else:
                groups.append([rollout])
        ended = [[_ended(rollout, closing) for rollout in group] for group in groups]
        scored = score(reward_model, [group[0].prompt_ids for group in groups], ended)
        return [reward for group in scored for reward in group]

    return scores


def scores_of_ensemble(models: Sequence[Any], policy: LocalModel) -> Callable[[list[Rollout]], Sequence[Score]]:
    """The score by a reward model, or a list of the scores by several."""
    members = [scores_of_model(model, policy) for model in models]
    if len(members) == 1:
        return members[0]

    def scores(rollouts: list[Rollout]) -> list[Score]:
        return [list(row) for row in zip(*(member(rollouts) for member in members), strict=True)]

    return scores


def _ended(rollout: Rollout, closing: Sequence[int]) -> list[int]:
    said = rollout.response_ids[:-1] if rollout.stopped else rollout.response_ids
    return [*said, *closing]
