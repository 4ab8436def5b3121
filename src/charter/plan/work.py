"""What each stage will do, counted by running its own functions on a few rows and scaling up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from charter.config import CheckerConfig, DirectConfig, HumanConfig, ModelConfig, RunConfig
from charter.labelers.check.cases import load_cases
from charter.labelers.check.verdict import controls, num_controls
from charter.labelers.make import make_direct, make_labeler
from charter.models.few_shot import worked_examples
from charter.plan.meter import Meter, Tally, total
from charter.records import Conversation, Prompt, ResponsePair, RevisionChain
from charter.stages.curves import MAX_CHAINS
from charter.stages.filters import fit_revisions
from charter.stages.inputs import Inputs
from charter.stages.readings import JudgeReader
from charter.stages.revise import Reviser
from charter.stages.rewards import prompts_of
from charter.stages.seeds import shuffled
from charter.stages.wins import judge_settings


class Ruler(Protocol):
    """Measures texts in tokens."""

    def prompt(self, conversation: Conversation) -> float: ...

    def response(self, text: str) -> float: ...


@dataclass(frozen=True)
class StageWork:
    """What one stage will do.

    Attributes:
        asked: by model name, what is generated and weighed.
        counted_tokens: tokens as the run's own summary will count them (prompts and answers, or what is trained on).
        trained_tokens: read forward and backward; forward_tokens: forward alone, as for rewards and KL.
        check_calls: of the calls, those of the check of the labeler.
        waves: batches of generation that follow each other, and the rows of one.
    """

    name: str
    rows: int
    unit: str
    asked: dict[str, Tally] = field(default_factory=dict)
    counted_tokens: float = 0.0
    trained_tokens: float = 0.0
    forward_tokens: float = 0.0
    batch_rows: int = 0
    check_calls: float = 0.0


@dataclass
class Probe:
    """A few rows, the models that answer for the run, and what is known of the rest."""

    config: RunConfig
    inputs: Inputs
    policy: Meter
    open_model: Callable[[ModelConfig], Meter]
    ruler: Ruler
    rows: int
    few_shot: bool
    labels_mean_something: bool  # real weights label the sample: its share of usable labels is the run's

    def work(self) -> list[StageWork]:
        """All stages of the run, in order."""
        config, found = self.config, []
        sampled = self._sample()
        chains: list[RevisionChain] = []
        if "sl" in config.phases:
            chains, revise = self._revise()
            found.append(revise)
            found.append(self._sft("2-sft", chains, config.revise.rounds))
            found += [self._sft(f"2-sft-round-{r}", chains, r) for r in self._extra_rounds()]
        if "rl" in config.phases:
            num_labels = 0.0
            if config.policy.needs_reward_model:
                pairs, sample = sampled
                label, num_labels = self._label(pairs, sample.rows)
                found += [sample, label, self._reward(pairs, num_labels)]
            of_dpo = config.policy.algorithm == "dpo"
            found.append(self._dpo(sampled[0], num_labels) if of_dpo else self._policy(sampled[0]))
        found.append(self._evaluate(sampled[0], found[-1].rows if "rl" in config.phases else 0))
        return found

    def _extra_rounds(self) -> list[int]:
        return sorted({r for r in self.config.evaluate.sl_rounds if r < self.config.revise.rounds})

    def _prompts(self, stage: str, limit: int | None) -> list[Prompt]:
        return shuffled(self.inputs.prompts, self.config.seed, stage, "prompts")[:limit]

    def _revise(self) -> tuple[list[RevisionChain], StageWork]:
        config = self.config.revise
        prompts = self._prompts("revise", config.num_prompts)
        examples = worked_examples() if self.few_shot else ()
        reviser = Reviser(config, self.inputs.constitution, self.policy, self.config.seed, examples)
        chains = reviser.revise_together(prompts[: self.rows])
        done = total(self.policy.take()) * (len(prompts) / len(chains))
        asked = {self.policy.name: done}
        counted = done.prompt_tokens + done.completion_tokens
        size = config.sampling.batch_size
        return chains, StageWork("1-revise", len(prompts), "prompts", asked, counted, batch_rows=size)

    def _sft(self, name: str, chains: list[RevisionChain], rounds: int) -> StageWork:
        config = self.config.sft
        prompts = self._prompts("revise", self.config.revise.num_prompts)
        rows = fit_revisions(chains, config.rounds, rounds).rows
        num_revisions = len(rows) / len(chains) * len(prompts)
        length = _mean([self.ruler.prompt(turns) + self.ruler.response(text) for turns, text in rows])
        known = {prompt.id for prompt in prompts}
        harmless = [prompt for prompt in self.inputs.prompts if prompt.harmful is False]
        num_helpful = 0 if config.helpful_data else min(config.num_helpful, len(harmless))
        num_asked = max(0, num_helpful - sum(prompt.id in known for prompt in harmless))
        whole = [c for c in chains if c.initial_response.strip() and not c.initial_truncated]  # others are left out
        first = [self.ruler.prompt(c.prompt.messages) + self.ruler.response(c.initial_response) for c in whole]
        num_used = num_helpful * len(whole) / len(chains)
        trained = config.epochs * (num_revisions * length + num_used * _mean(first))
        asked = {self.policy.name: self._answers(chains) * num_asked} if num_asked else {}
        counted = trained + sum(tally.prompt_tokens + tally.completion_tokens for tally in asked.values())
        size = self.config.revise.sampling.batch_size
        return StageWork(name, round(num_revisions + num_used), "examples", asked, counted, trained, 0.0, size)

    def _answers(self, chains: list[RevisionChain]) -> Tally:
        """What one initial response takes."""
        read = _mean([self.ruler.prompt(chain.prompt.messages) for chain in chains])
        return Tally(1, read, _mean([self.ruler.response(chain.initial_response) for chain in chains]))

    def _sample(self) -> tuple[list[ResponsePair], StageWork]:
        config = self.config.sample
        prompts = self._prompts("sample", config.num_prompts)
        few = prompts[: self.rows]
        said = [
            self.policy.generate(
                [prompt.messages for prompt in few],
                seeds=[2 * i + side for i in range(len(few))],
                max_new_tokens=config.sampling.max_new_tokens,
                temperature=config.sampling.temperature,
            )
            for side in (0, 1)
        ]
        done = total(self.policy.take()) * (len(prompts) / len(few))
        pairs = [ResponsePair(f"pair-{p.id}", p, a.text, b.text) for p, a, b in zip(few, *said, strict=True)]
        counted = done.prompt_tokens + done.completion_tokens
        work = StageWork("3-sample", len(prompts), "prompts", {self.policy.name: done}, counted)
        return pairs, StageWork(**{**vars(work), "batch_rows": 2 * config.sampling.batch_size})

    def _label(self, sampled: list[ResponsePair], num_sampled: int) -> tuple[StageWork, float]:
        """The work, and how many pairs get a label."""
        config = self.config.label
        differ = [pair for pair in sampled if pair.response_a.strip() != pair.response_b.strip()] or sampled[:1]
        num_pairs = num_sampled * len(differ) / len(sampled)
        used: list[Meter] = []
        labeler = make_labeler(config.labeler, self._noting(used), self.inputs.constitution, self.config.seed)
        if isinstance(config.labeler, (HumanConfig, CheckerConfig)):
            return StageWork("4-label", round(num_pairs), "pairs"), num_pairs
        judged = labeler.label(differ)
        asked = _taken(used, num_pairs / len(differ))
        counted = sum(tally.prompt_tokens + (tally.completion_tokens - tally.weighed) for tally in asked.values())
        share = 1.0
        if self.labels_mean_something:
            share = _mean([isinstance(labeler.combine(own), float) for own in judged])
        checked: dict[str, Tally] = {}
        if count := num_controls(config.check, round(num_pairs)):
            controls(labeler, differ[:2])
            checked = _sum(checked, _taken(used, count / len(differ[:2])))
        if config.check.pairs is not None:
            cases = load_cases(config.check.pairs, config.check.num_pairs)
            few = [case.pair for case in cases[: self.rows]]
            labeler.label(few)
            checked = _sum(checked, _taken(used, len(cases) / len(few)))
        asked, calls = _sum(asked, checked), sum(tally.calls for tally in checked.values())
        return StageWork("4-label", round(num_pairs), "pairs", asked, counted, check_calls=calls), num_pairs * share

    def _noting(self, used: list[Meter]) -> Callable[[ModelConfig], Meter]:
        def open_model(model: ModelConfig) -> Meter:
            meter = self.open_model(model)
            if not any(meter is known for known in used):
                used.append(meter)
            return meter

        return open_model

    def _reward(self, sampled: list[ResponsePair], num_labels: float) -> StageWork:
        config = self.config.reward
        length = self._pair_length(sampled)
        held_out = num_labels * config.holdout_fraction
        trained = config.ensemble * config.epochs * (num_labels - held_out) * length
        return StageWork(
            "5-reward",
            round(num_labels),
            "pairs",
            {},
            trained,
            trained_tokens=trained,
            forward_tokens=config.ensemble * held_out * length,
        )

    def _pair_length(self, sampled: list[ResponsePair]) -> float:
        said = [self.ruler.response(pair.response_a) + self.ruler.response(pair.response_b) for pair in sampled]
        return _mean([self.ruler.prompt(pair.prompt.messages) for pair in sampled]) + _mean(said)

    def _dpo(self, sampled: list[ResponsePair], num_labels: float) -> StageWork:
        config = self.config.dpo
        num_train = num_labels * (1 - self.config.reward.holdout_fraction)
        steps = config.epochs * max(1, math.ceil(num_train / config.batch_size))
        once = num_train * self._pair_length(sampled)  # the reference reads every pair once
        trained = config.epochs * once
        return StageWork("6-policy", steps, "steps", {}, trained, trained, once)

    def _policy(self, sampled: list[ResponsePair]) -> StageWork:
        config = self.config.policy
        groups = config.steps * config.prompts_per_step
        prompt = _mean([self.ruler.prompt(p.messages) for p in self.inputs.prompts[:200]])
        response = min(config.max_new_tokens, self._response_length(sampled))
        rollouts = groups * config.group_size
        asked = {self.policy.name: Tally(rollouts, rollouts * prompt, rollouts * response)}
        packed = groups * (prompt + config.group_size * response)  # a prompt is computed once for its group
        forward = packed  # the reference; a reward model reads the same, of the prompts that it scores
        domains = [source.domains for source in config.reward_sources]
        for place, source in enumerate(config.reward_sources):
            share = len(prompts_of(place, domains, self.inputs.prompts)) / max(1, len(self.inputs.prompts))
            if source.by == "reward-model":
                forward += self.config.reward.ensemble * share * packed
            elif isinstance(source.by, DirectConfig):
                used: list[Meter] = []
                scorer = make_direct(source.by, self._noting(used), self.inputs.constitution)
                scorer.score([(pair.prompt, pair.response_a) for pair in sampled])
                asked = _sum(asked, _taken(used, share * rollouts / len(sampled)))
        trained = packed * config.updates_per_rollout * (2 if config.algorithm == "ppo" else 1)
        size = config.prompts_per_step * config.group_size
        return StageWork("6-policy", config.steps, "steps", asked, packed, trained, forward, size)

    def _response_length(self, sampled: list[ResponsePair]) -> float:
        return _mean([self.ruler.response(text) for pair in sampled for text in (pair.response_a, pair.response_b)])

    def _evaluate(self, sampled: list[ResponsePair], steps: int) -> StageWork:
        config, run = self.config.evaluate, self.config
        num_policies, anchored = 1, 0
        if "sl" in run.phases:
            num_policies += 1 + len(self._extra_rounds())
        if "rl" in run.phases:
            trains = run.dpo if run.policy.algorithm == "dpo" else run.policy
            saved = -(-steps // trains.checkpoint_every) - 1
            num_policies += 1 + min(config.num_checkpoints, max(0, saved))
        if "sl" in run.phases and config.sampling.temperature == 1.0:
            anchored = num_policies - 1
        rows = num_policies * len(self.inputs.held_out)
        prompt = _mean([self.ruler.prompt(p.messages) for p in self.inputs.held_out[:200]])
        response = min(config.sampling.max_new_tokens, self._response_length(sampled))
        asked = {self.policy.name: Tally(rows, rows * prompt, rows * response)}
        if config.judge is not None:
            judge = self.open_model(config.judge)
            JudgeReader(judge).read_all([p.prompt for p in sampled], [p.response_a for p in sampled])
            chains = min(MAX_CHAINS, len(self._prompts("revise", run.revise.num_prompts))) if "sl" in run.phases else 0
            read = rows + chains * (run.revise.rounds + 1)
            asked = _sum(asked, _taken([judge], read / len(sampled)))
            asking = judge_settings(config)
            assert asking is not None
            make_labeler(asking, self.open_model, self.inputs.constitution, 0).label(sampled)
            asked = _sum(asked, _taken([judge], len(run.phases) * len(self.inputs.held_out) / len(sampled)))
        forward = 2 * anchored * len(self.inputs.held_out) * (prompt + response)
        size = config.sampling.batch_size
        return StageWork("7-evaluate", rows, "responses", asked, rows * response, 0.0, forward, size)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _taken(meters: Sequence[Meter], factor: float) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for meter in meters:
        found = _sum(found, {meter.name: total(meter.take()) * factor})
    return found


def _sum(one: dict[str, Tally], other: dict[str, Tally]) -> dict[str, Tally]:
    return {name: one.get(name, Tally()) + other.get(name, Tally()) for name in {**one, **other}}
