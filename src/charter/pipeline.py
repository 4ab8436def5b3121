"""The whole run: both phases of Constitutional AI, stage by stage, into one run folder.

    1-revise    2-sft (2-sft-round-N)    3-sample    4-label    5-reward    6-policy    7-evaluate    summary.json

Everything that can be wrong is checked before any work (stages/inputs.py). A stage has a key: the hash of its section of
the run file, the seed, and the keys of what it reads. A stage that is done under its key is skipped, one that was begun
under its key goes on where it stopped, and one of another key is done anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from charter.config import ModelConfig, RunConfig
from charter.labelers.make import make_labeler
from charter.memory import memory_plan
from charter.models.local import LocalModel
from charter.progress import Progress
from charter.records import PreferencePair, Prompt, ResponsePair, RevisionChain
from charter.stages import evaluate, fan_out, label, revise, sample, train_dpo, train_policy, train_reward, train_sft
from charter.stages.afterwards import of_all, warnings
from charter.stages.chunks import Execute
from charter.stages.curves import checkpoint_curve, revision_curve, rl_curve
from charter.stages.inputs import Inputs, gather, labeler_hash
from charter.stages.keyed import do_stage
from charter.stages.labeler_models import LabelerModels
from charter.stages.readers import holdout, open_reader
from charter.stages.rewards import open_parts
from charter.stages.saved import loaded
from charter.stages.seeds import shuffled
from charter.stages.servers import spent_on_servers
from charter.stages.wins import judge_wins
from charter.store.folder import RunFolder
from charter.store.jsonl import read_jsonl, write_json
from charter.store.ledger import Ledger
from charter.summary import summarize_run
from charter.tracking import check_tracker, track
from charter.training.launch import launch
from charter.training.lora import check_lora
from charter.training.trl_trainer import check_engine


def run(config: RunConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """Do what is not done yet, and return the summary that stands in ``summary.json``.

    Raises:
        CharterError: something the user can mend; what is done stays, and the same command goes on from there.
    """
    from charter.beginning import begin  # which goes through this module's stages

    check_tracker(config.tracker)
    check_engine(config)
    check_lora(config)
    inputs = gather(config)
    torch.set_num_threads(config.num_threads or os.cpu_count() or 1)
    with RunFolder.open(folder) as run_folder, Ledger(folder / "ledger.sqlite") as ledger:
        for line in begin(config, inputs, run_folder, ledger):
            progress.say(line)
        return Pipeline(config, inputs, run_folder, ledger, progress).run()


def threads_of(config: RunConfig) -> int:
    """CPU threads of each process that trains."""
    return config.num_threads or max(1, (os.cpu_count() or 1) // config.scale.processes)


class Pipeline:
    """One run: what it reads, where it writes, and the keys of the stages that are done."""

    def __init__(
        self, config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger, progress: Progress
    ) -> None:
        self._config, self._inputs, self._progress = config, inputs, progress
        self._folder, self._ledger = folder, ledger
        self._keys: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """All stages of the phases asked for, then the summary."""
        self._all_stages()
        return self._summarize()

    def _all_stages(self) -> None:
        if "sl" in self._config.phases:
            self._revise()
            self._train_sft("2-sft", self._config.revise.rounds)
            for rounds in self._extra_rounds():
                self._train_sft(f"2-sft-round-{rounds}", rounds)
        if "rl" in self._config.phases:
            if self._config.policy.needs_reward_model:
                self._sample()
                self._label()
                self._train_reward()
            self._train_policy()
        self._evaluate()

    def _extra_rounds(self) -> list[int]:
        """Numbers of rounds whose SL-CAI is evaluated too; that of all rounds is the main one."""
        return sorted({r for r in self._config.evaluate.sl_rounds if r < self._config.revise.rounds})

    def _stage(
        self, name: str, reads: dict[str, Any], work: Callable[[Path], dict[str, Any]], *, trains: bool = False
    ) -> None:
        """Do a stage unless it is done; ``reads`` is all that its result depends on, as JSON."""
        if trains and self._config.scale.processes > 1:
            work = self._in_processes
        reads = {"seed": self._config.seed, **reads}
        self._keys[name] = do_stage(self._folder, name, reads, work, self._progress)
        for line in warnings(self._config, name, self._folder.stage(name).summary()):
            self._progress.say(f"{name}: warning: {line}")
        if self._config.tracker is not None:
            failure = track(self._folder.path, name, self._config.tracker, self._config.name)[1]
            if failure is not None:
                self._progress.say(f"{name}: {self._config.tracker} failed, the run goes on: {failure}")

    def _in_processes(self, path: Path) -> dict[str, Any]:
        """A training stage, done by several processes (worker.py)."""
        config = self._config
        self._progress.start(f"{path.name}: in {config.scale.processes} processes", None, "steps")
        arguments = ["-m", "charter.worker", str(self._folder.path.absolute()), path.name]
        found = launch(config.scale, arguments, path, self._progress.say, threads_of(config))
        for warning in found.get("warnings", ()):  # the processes show nothing themselves
            self._progress.say(f"{path.name}: step {warning['step']}: warning: {warning['text']}")
        return found

    def _path(self, stage: str, name: str) -> Path:
        return self._folder.path / stage / name

    def _trained(self, stage: str) -> ModelConfig:
        """The model that a stage trained, on the device and in the precision of the one that it came from."""
        return self._config.model.model_copy(update={"source": str(self._path(stage, "model"))})

    def _start(self, initialise_from: str) -> tuple[ModelConfig, str | None]:
        """The model from which phase 2 starts, and its key; without phase 1 there is only the helpful one."""
        if initialise_from == "helpful" or "sl" not in self._config.phases:
            return self._config.model, self._inputs.hashes["model"]
        return self._trained("2-sft"), self._keys["2-sft"]

    def _prompts_for(self, stage: str, limit: int | None) -> list[Prompt]:
        """The training prompts in an order of the stage's own."""
        return shuffled(self._inputs.prompts, self._config.seed, stage, "prompts")[:limit]

    def _spread(self, task: dict[str, Any] | None) -> AbstractContextManager[Execute | None]:
        return fan_out.spread(self._config.scale, task, self._config.num_threads or 1)

    @contextmanager
    def _generating(
        self, config: ModelConfig, task: dict[str, Any]
    ) -> Iterator[tuple[LocalModel | None, Execute | None]]:
        """The model, or where generation fans out, those who have it."""
        with self._spread(task) as execute, nullcontext() if execute else loaded(config) as model:
            yield model, execute

    def _revise(self) -> None:
        config, inputs = self._config, self._inputs

        def work(path: Path) -> dict[str, Any]:
            task = fan_out.revise_task(
                config.revise, config.model, config.seed, self._folder.path / "constitution.yaml"
            )
            with self._generating(config.model, task) as (model, execute):
                return revise.run(
                    config.revise,
                    path,
                    prompts=self._prompts_for("revise", config.revise.num_prompts),
                    constitution=inputs.constitution,
                    model=model,
                    seed=config.seed,
                    progress=self._progress,
                    few_shot=model is not None and not model.has_chat_template,
                    execute=execute,
                )

        hashes = {key: inputs.hashes[key] for key in ("constitution", "prompts", "model")}
        self._stage("1-revise", {"config": config.revise.model_dump(), **hashes}, work)

    def _trl(self, kind: str) -> dict[str, Any] | None:
        """What TRL's trainer is given; None: our own loops train."""
        return self._config.trl.model_dump(mode="json")[kind] if self._config.engine == "trl" else None

    def _engine(self, kind: str) -> dict[str, Any]:
        """What the engine adds to a stage's key: nothing where it is our own."""
        settings = self._trl(kind)
        return {} if settings is None else {"trl": settings}

    def _train_sft(self, name: str, rounds: int) -> None:
        config = self._config

        def work(path: Path) -> dict[str, Any]:
            return train_sft.run(
                config.sft,
                path,
                chains=list(read_jsonl(self._path("1-revise", "revisions.jsonl"), RevisionChain)),
                rounds=rounds,
                prompts=self._inputs.prompts,
                sampling=config.revise.sampling,
                base=config.model,
                load=loaded,
                seed=config.seed,
                progress=self._progress,
                trl=self._trl("sft"),
            )

        reads = {"config": config.sft.settings(), "rounds": rounds, "revise": self._keys["1-revise"]}
        self._stage(name, {**reads, **self._engine("sft")}, work, trains=True)

    def _sample(self) -> None:
        config = self._config
        start, start_key = self._start("sl-cai")

        def work(path: Path) -> dict[str, Any]:
            prompts = self._prompts_for("sample", config.sample.num_prompts)
            task = fan_out.sample_task(config.sample, start, config.seed)
            with self._generating(start, task) as (model, execute):
                return sample.run(
                    config.sample,
                    path,
                    prompts=prompts,
                    model=model,
                    seed=config.seed,
                    progress=self._progress,
                    execute=execute,
                )

        reads = {"config": config.sample.model_dump(), "policy": start_key, "prompts": self._inputs.hashes["prompts"]}
        self._stage("3-sample", reads, work)

    def _label(self) -> None:
        config, inputs = self._config.label, self._inputs

        def work(path: Path) -> dict[str, Any]:
            task = fan_out.label_task(config, self._config.seed, self._folder.path / "constitution.yaml")
            with LabelerModels(self._ledger, self._progress.hint) as models, self._spread(task) as execute:
                labeler = make_labeler(config.labeler, models, inputs.constitution, self._config.seed)
                return label.run(
                    config,
                    path,
                    pairs=list(read_jsonl(self._path("3-sample", "pairs.jsonl"), ResponsePair)),
                    labeler=labeler,
                    gold=inputs.gold,
                    progress=self._progress,
                    execute=execute,
                )

        hashes = {key: inputs.hashes[key] for key in ("constitution", "labeler")}
        reads = {"config": config.model_dump(), "pairs": self._keys["3-sample"], "gold": self._config.evaluate.gold}
        self._stage("4-label", {**reads, **hashes}, work)

    def _train_reward(self) -> None:
        config = self._config
        start, start_key = self._start(config.reward.initialise_from)

        def work(path: Path) -> dict[str, Any]:
            return train_reward.run(
                config.reward,
                path,
                preferences=list(read_jsonl(self._path("4-label", "preferences.jsonl"), PreferencePair)),
                start=start,
                load=loaded,
                gold=self._inputs.gold,
                seed=config.seed,
                progress=self._progress,
                trl=self._trl("reward"),
            )

        reads = {"config": config.reward.settings(), "labels": self._keys["4-label"], "start": start_key}
        self._stage("5-reward", {**reads, **self._engine("reward"), "gold": config.evaluate.gold}, work, trains=True)

    def _train_policy(self) -> None:
        config = self._config
        if config.policy.algorithm == "dpo":
            self._train_dpo()
            return
        start, start_key = self._start(config.policy.initialise_from)

        def work(path: Path) -> dict[str, Any]:
            # no labeler is loaded unless its scores are the reward, and no judge unless it watches
            with LabelerModels(self._ledger) as models, holdout(config, self._inputs.gold, self._ledger) as reader:
                return train_policy.run(
                    config.policy,
                    path,
                    prompts=self._prompts_for("policy", None),
                    start=start,
                    reward=open_parts(config, self._path("5-reward", ""), models, self._inputs.constitution),
                    load=loaded,
                    seed=config.seed,
                    progress=self._progress,
                    reader=reader,
                    trl=self._trl("grpo"),
                )

        reads = {"config": config.policy.settings(), "reward": self._reward_key(), "start": start_key}
        reads |= self._engine("grpo")
        self._stage("6-policy", {**reads, "prompts": self._inputs.hashes["prompts"]}, work, trains=True)

    def _reward_key(self) -> Any:
        """What the rewards depend on beside the settings."""
        config = self._config.policy
        if config.reward is None:
            return self._keys.get("5-reward")
        by = [None if source.by == "reward-model" else labeler_hash(source.by) for source in config.reward_sources]
        if not isinstance(config.reward, tuple):
            return {"constitution": self._inputs.hashes["constitution"], "labeler": by[0]}
        trained = self._keys["5-reward"] if config.needs_reward_model else None
        return {"constitution": self._inputs.hashes["constitution"], "sources": by, "reward_model": trained}

    def _train_dpo(self) -> None:
        config = self._config
        start, start_key = self._start(config.policy.initialise_from)

        def work(path: Path) -> dict[str, Any]:
            return train_dpo.run(
                config.dpo,
                path,
                preferences=list(read_jsonl(self._path("4-label", "preferences.jsonl"), PreferencePair)),
                holdout_fraction=config.reward.holdout_fraction,
                start=start,
                load=loaded,
                seed=config.seed,
                progress=self._progress,
            )

        reads = {
            "algorithm": "dpo",
            "config": config.dpo.settings(),
            "labels": self._keys["4-label"],
            "start": start_key,
        }
        held_out = {"holdout_fraction": config.reward.holdout_fraction}  # of the reward model only this
        self._stage("6-policy", {**reads, **held_out}, work, trains=True)

    def _policies(self) -> list[evaluate.Policy]:
        policies = [evaluate.Policy("initial", self._config.model)]
        if "sl" in self._config.phases:
            policies += [
                evaluate.Policy(f"sl-cai-round-{r}", self._trained(f"2-sft-round-{r}")) for r in self._extra_rounds()
            ]
            policies.append(evaluate.Policy("sl-cai", self._trained("2-sft")))
        if "rl" in self._config.phases:
            policies += [
                evaluate.Policy(f"rl-step-{step}", self._config.model.model_copy(update={"source": str(path)}), step)
                for step, path in train_policy.spread_checkpoints(
                    self._path("6-policy", "checkpoints"), self._config.evaluate.num_checkpoints
                )
            ]
            policies.append(evaluate.Policy("rl-cai", self._trained("6-policy")))
        return policies

    def _evaluate(self) -> None:
        config, policies = self._config.evaluate, self._policies()

        def work(path: Path) -> dict[str, Any]:
            evaluate.sample_policies(
                config,
                path,
                policies=policies,
                prompts=self._inputs.held_out,
                load=loaded,
                seed=self._config.seed,
                progress=self._progress,
            )
            with open_reader(config, self._inputs.gold, self._ledger) as reader:
                summary = evaluate.read_policies(
                    config, path, policies=policies, reader=reader, progress=self._progress
                )
                curves = {"revision": [], "rl": [], "checkpoints": checkpoint_curve(summary)}
                if "sl" in self._config.phases:
                    chains = list(read_jsonl(self._path("1-revise", "revisions.jsonl"), RevisionChain))
                    curves["revision"] = revision_curve(chains, reader)
            if "rl" in self._config.phases:
                curves["rl"] = rl_curve(self._folder.path / "6-policy", self._inputs.gold)
            wins = judge_wins(config, path, self._inputs.constitution, self._ledger, self._progress)
            return {**summary, **wins, "curves": curves}

        hashes = {
            key: value for key, value in self._inputs.hashes.items() if key in ("model", "judge", "held_out_prompts")
        }
        reads = {"config": config.settings(), "policies": dict(self._keys), **hashes}
        self._stage("7-evaluate", reads, work)

    def _summarize(self) -> dict[str, Any]:
        summaries = {name: self._folder.stage(name).summary() for name in self._keys}
        summary = summarize_run(self._config, self._inputs.hashes, summaries, self._inputs.gold)
        plan = memory_plan(self._config, on_gpu=torch.cuda.is_available())
        summary["memory"] = [stage.to_json() for stage in plan]
        summary["held_out"] = evaluate.held_out_figures(
            self._path("7-evaluate", ""), self._inputs.held_out, self._inputs.seen(), summaries["7-evaluate"]
        )
        summary["servers"] = spent_on_servers(self._config, self._ledger)
        summary["warnings"] = of_all(self._config, summaries)
        write_json(self._folder.path / "summary.json", summary)
        return summary
