"""Charter from Python, for notebooks and scripts: the stages of a run as functions that return records.

    run, load_run                      a whole run, and what lies in its folder
    critique_revise, label             one stage on your own prompts or pairs
    train_reward, audit                a reward model from preferences; what each link of a run lost

Records are the frozen dataclasses of ``charter.records``; figures are dicts, as in the JSON files. A fault of the user's is
a ``charter.errors.CharterError`` with one line. All functions block, also inside a running event loop, as in a notebook.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from charter.records import Judgment, Message, PreferencePair, Prompt, Record, ResponsePair, RevisionChain

if TYPE_CHECKING:
    from charter.config import AnyLabeler, ModelConfig, RunConfig
    from charter.constitution.load import Constitution
    from charter.stages.label import Labelled

__all__ = ["Run", "audit", "critique_revise", "frame", "label", "load_run", "run", "train_reward"]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Run:
    """A run folder. What a stage that isn't done would hold is an empty list."""

    folder: Path

    def prompts(self) -> list[Prompt]:
        """The prompts that were revised or sampled from, each once."""
        found = [chain.prompt for chain in self.revisions()] + [pair.prompt for pair in self.pairs()]
        return list({prompt.id: prompt for prompt in found}.values())

    def revisions(self) -> list[RevisionChain]:
        """Phase 1: initial responses with their critiques and revisions."""
        return self._rows("1-revise/revisions.jsonl", RevisionChain)

    def pairs(self) -> list[ResponsePair]:
        """Pairs of responses, before they are labelled."""
        return self._rows("3-sample/pairs.jsonl", ResponsePair)

    def judgments(self) -> list[Judgment]:
        """Every answer of the labeler, abstentions among them."""
        return self._rows("4-label/judgments.jsonl", Judgment)

    def preferences(self) -> list[PreferencePair]:
        """The pairs that got a soft label."""
        return self._rows("4-label/preferences.jsonl", PreferencePair)

    def figures(self) -> dict[str, Any]:
        """What stands in summary.json. Raises StoreError: the run isn't finished."""
        from charter.errors import StoreError
        from charter.store.jsonl import read_json

        path = self.folder / "summary.json"
        if not path.is_file():
            raise StoreError(f"{path}: not there: the run isn't finished, run the same command again")
        found: dict[str, Any] = read_json(path)
        return found

    def audit(self) -> dict[str, Any]:
        """The audit that lies in the folder where it is of these files; else a new one, which is written there."""
        from charter.audit.run import audited

        return audited(self.folder)

    def to_frames(self) -> dict[str, Any]:
        """All records as pandas data frames, by name. Raises ConfigError: pandas isn't installed."""
        names = ("prompts", "revisions", "pairs", "judgments", "preferences")
        return {name: frame(getattr(self, name)()) for name in names}

    def _rows(self, name: str, record: type[R]) -> list[R]:
        from charter.store.jsonl import read_jsonl

        path = self.folder / name
        return list(read_jsonl(path, record)) if path.is_file() else []


def run(
    run_file: str | Path | RunConfig, out: str | Path | None = None, overrides: Sequence[str] = (), quiet: bool = True
) -> Run:
    """Do both phases of Constitutional AI and evaluate; the same call resumes.

    Args:
        run_file: path of a run file, or a ``RunConfig``.
        out: run folder; None: runs/NAME.
        overrides: ``key.path=value`` each, as ``policy.steps=3``.
    """
    from charter import run_file as files
    from charter.pipeline import run as run_pipeline
    from charter.progress import open_progress

    config = files.load_run(Path(run_file), overrides) if isinstance(run_file, (str, Path)) else run_file
    folder = Path(out) if out is not None else Path("runs") / config.name
    with open_progress(quiet) as progress:
        run_pipeline(config, folder, progress)
    return Run(folder)


def load_run(folder: str | Path) -> Run:
    """A run that is there, finished or not. Raises StoreError: no run folder."""
    from charter.errors import StoreError

    if not (Path(folder) / "run.yaml").is_file():
        raise StoreError(f"{folder}: no run folder there (no run.yaml): check the path")
    return Run(Path(folder))


def critique_revise(
    prompts: Iterable[Prompt | str],
    model: str | Path | ModelConfig,
    constitution: str | Path | Constitution,
    *,
    rounds: int = 4,
    critique: bool = True,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    seed: int = 0,
) -> list[RevisionChain]:
    """Answer, then criticise and rewrite by a principle drawn for each round; one chain per prompt.

    Args:
        model: folder, hub id, or ``http://host:port/v1#name``.
        constitution: file, name of a shipped one, or a loaded one.
        critique: False asks for the revision at once.
    """
    from charter.config import ReviseConfig, SamplingConfig
    from charter.models.few_shot import worked_examples
    from charter.stages.revise import Reviser
    from charter.stages.saved import opened

    sampling = SamplingConfig(max_new_tokens=max_new_tokens, batch_size=batch_size)
    config = ReviseConfig(rounds=rounds, critique=critique, sampling=sampling)
    asked, principles = _prompts(prompts), _constitution(constitution)
    with opened(_model(model)) as opened_model:
        examples = () if getattr(opened_model, "has_chat_template", True) else worked_examples()
        reviser = Reviser(config, principles, opened_model, seed, examples)
        chunks = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
        return [chain for chunk in chunks for chain in reviser.revise_together(chunk)]


def label(
    pairs: Iterable[ResponsePair | tuple[str, str, str]],
    labeler: str | Path | Mapping[str, Any] | AnyLabeler,
    constitution: str | Path | Constitution,
    *,
    seed: int = 0,
    ledger: str | Path | None = None,
) -> list[Labelled]:
    """Say which response of each pair the constitution prefers.

    Args:
        pairs: records, or (prompt, response A, response B).
        labeler: a model that is asked principle by principle, or what the run file has under ``label.labeler``.
        ledger: SQLite file of answers, so that nothing is asked twice; None: nothing is kept.

    Returns:
        for each pair its judgments, and in ``outcome`` the probability that A is better, or the reason why there is none.
    """
    from charter.labelers.make import check_wordings, make_labeler
    from charter.stages.label import Labelled
    from charter.stages.labeler_models import LabelerModels
    from charter.store.ledger import Ledger

    config, asked, made = _labeler(labeler), _pairs(pairs), []
    check_wordings(config)
    with ExitStack() as stack:
        path = Path(ledger) if ledger is not None else Path(stack.enter_context(TemporaryDirectory())) / "ledger.sqlite"
        models = stack.enter_context(LabelerModels(stack.enter_context(Ledger(path))))
        asking = make_labeler(config, models, _constitution(constitution), seed)
        for start in range(0, len(asked), config.batch_size):
            chunk = asked[start : start + config.batch_size]
            for pair, own in zip(chunk, asking.label(chunk), strict=True):
                made.append(Labelled(pair, own, asking.combine(own)))
    return made


def train_reward(
    data: str | Path | Iterable[PreferencePair],
    model: str | Path | ModelConfig,
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train a reward model into ``out/5-reward/model``; the same call resumes. Returns its figures beside baselines.

    Args:
        data: preferences, or a file of them (hh-rlhf, TRL, sharegpt, Charter's own).
        settings: as under ``reward`` in the run file, as ``epochs=2``.
    """
    from charter.config import RewardConfig
    from charter.progress import open_progress
    from charter.stages.train_reward import train_reward_from_file
    from charter.store.jsonl import write_jsonl

    config, folder = _checked(RewardConfig, settings, "train_reward"), Path(out)
    if isinstance(data, (str, Path)):
        file = Path(data)
    else:
        file = folder / "preferences.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(file, data)
    with open_progress(quiet) as progress:
        return train_reward_from_file(
            file, _model(model), folder, config=config, limit=limit, seed=seed, progress=progress
        )


def audit(folder: str | Path, people: str | Path | None = None) -> dict[str, Any]:
    """What each link of a run lost, and which one is at fault; nothing is written.

    Args:
        people: a file of people's preferences on the run's pairs.
    """
    from charter.audit.run import audit_run

    return audit_run(Path(folder), None if people is None else Path(people))


def frame(rows: Iterable[Record | Mapping[str, Any]]) -> Any:
    """Records or dicts as a pandas data frame, one row each. Raises ConfigError: pandas isn't installed."""
    from charter.errors import ConfigError

    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise ConfigError("frames need pandas: pip install pandas, or use the records as they are") from error
    return pandas.DataFrame([row.to_json() if isinstance(row, Record) else dict(row) for row in rows])


def _prompts(prompts: Iterable[Prompt | str]) -> list[Prompt]:
    return [_prompt(prompt) for prompt in prompts]


def _prompt(prompt: Prompt | str) -> Prompt:
    from charter.store.hashing import hash_json

    if isinstance(prompt, Prompt):
        return prompt
    messages = (Message("user", prompt),)
    return Prompt(hash_json([message.to_json() for message in messages])[:16], messages)


def _pairs(pairs: Iterable[ResponsePair | tuple[str, str, str]]) -> list[ResponsePair]:
    from charter.store.hashing import hash_json

    return [
        pair if isinstance(pair, ResponsePair) else ResponsePair(hash_json(pair)[:16], _prompt(pair[0]), *pair[1:])
        for pair in pairs
    ]


def _constitution(constitution: str | Path | Constitution) -> Constitution:
    from charter.constitution.load import find_constitution, load_constitution

    if isinstance(constitution, (str, Path)):
        return load_constitution(find_constitution(str(constitution)))
    return constitution


def _model(model: str | Path | ModelConfig) -> ModelConfig:
    from charter.config import ModelConfig
    from charter.run_file import model_named

    if isinstance(model, ModelConfig):
        return model
    return model_named(str(model))


def _labeler(labeler: str | Path | Mapping[str, Any] | AnyLabeler) -> AnyLabeler:
    from charter.config import ConstitutionalConfig, LabelConfig

    if isinstance(labeler, (str, Path)):
        return ConstitutionalConfig(model=_model(labeler))
    if isinstance(labeler, Mapping):
        return _checked(LabelConfig, {"labeler": dict(labeler)}, "label").labeler
    return labeler


def _checked(section: Any, settings: dict[str, Any], where: str) -> Any:
    """A section of the run file out of keyword arguments, with the run file's own messages."""
    from charter.errors import ConfigError
    from charter.yaml_io import YamlDocument, validate

    return validate(section, YamlDocument(Path(where), settings, {}), ConfigError)
