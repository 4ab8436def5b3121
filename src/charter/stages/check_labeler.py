"""``charter labeler check``: a labeler on pairs with a known answer, and under attack, apart from any run.

reads   a run file, or a model and files of human preferences
writes  ledger.sqlite in the folder that it is given: nothing is asked twice
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.config import AnyLabeler, AskingConfig, CheckConfig, ConstitutionalConfig
from charter.constitution.load import Constitution, find_constitution, load_constitution
from charter.labelers.check.cases import Case, load_cases
from charter.labelers.check.verdict import attacked, check, controls, paraphrased
from charter.labelers.make import make_labeler
from charter.labelers.protocol import Batched
from charter.models.endpoint import is_endpoint
from charter.models.load import check_folder, model_folder
from charter.records import ResponsePair
from charter.run_file import load_run, model_named
from charter.sources import resolve_python
from charter.stages.labeler_models import LabelerModels
from charter.store.ledger import Ledger

NAIVE = "charter.labelers.check.naive:undefended"
GENERAL = "charter.labelers.check.general:known_pairs"
NUM_CONTROLS = 40


@dataclass(frozen=True)
class Checked:
    """What is checked: a labeler, its constitution, and thresholds."""

    labeler: AnyLabeler
    constitution: Constitution
    thresholds: CheckConfig
    seed: int = 0


def from_run(path: Path, overrides: list[str]) -> Checked:
    """The labeler of a run file. Raises CharterError: the file, or the constitution that it names, is wrong."""
    from charter.stages.inputs import constitution_of

    config = load_run(path, overrides)
    return Checked(config.label.labeler, constitution_of(config), config.label.check, config.seed)


def from_model(source: str, constitution: str | None) -> Checked:
    """A model asked by a constitution's principles, or (None) which response is better in general."""
    model = model_named(source)
    if not is_endpoint(model.source) and (model.source.count("/") != 1 or Path(model.source).is_dir()):
        check_folder(model_folder(model.source))  # before a ledger is made; a hub id is looked up when it is asked
    if constitution is None:
        return Checked(ConstitutionalConfig(kind="plain", model=model), Constitution("none", "", ()), CheckConfig())
    loaded = load_constitution(find_constitution(constitution))
    return Checked(ConstitutionalConfig(model=model), loaded, CheckConfig())


def check_labeler(asked: Checked, data: list[str], limit: int, num_attacks: int, folder: Path) -> dict[str, Any]:
    """The whole check; see ``verdict.check``, and ``attacks`` (before and after hardening), ``controls``, ``paraphrases``.

    Args:
        data: files of human preferences; none: the pairs that the run file names, or else Charter's own easy ones.
        limit: known pairs to use, drawn by a hash; ``num_attacks``: how many of them are attacked (0: none).

    Raises:
        CharterError: something can't be read or asked.
    """
    sources = data or [asked.thresholds.pairs or GENERAL]
    cases = [case for source in sources for case in load_cases(source, max(1, limit // len(sources)))]
    with Ledger(folder / "ledger.sqlite") as ledger, LabelerModels(ledger) as models:

        def make(constitution: Constitution) -> Any:
            return Batched(make_labeler(asked.labeler, models, constitution, asked.seed), asked.labeler.batch_size)

        labeler = make(asked.constitution)
        found = check(labeler, cases, asked.thresholds)
        found["data"] = sources
        found["paraphrases"] = paraphrased(make, asked.constitution, cases)
        if num_attacks:
            known = [case for case in cases if case.a_better is not None][:num_attacks]
            more = resolve_python(asked.thresholds.attacks) if asked.thresholds.attacks else {}
            found["attacks"] = {"after": attacked(labeler, known, more)}
            if isinstance(asked.labeler, AskingConfig):
                naive = asked.labeler.model_copy(update={"question": asked.thresholds.undefended or NAIVE})
                undefended = make_labeler(naive, models, asked.constitution, asked.seed)  # type: ignore[arg-type]
                found["attacks"]["before"] = attacked(Batched(undefended, naive.batch_size), known, more)
            found["controls"] = controls(labeler, _honest(cases)[:NUM_CONTROLS])
        found["num_asked"] = models.num_asked
    return found


def _honest(cases: list[Case]) -> list[ResponsePair]:
    """The better response of each known pair, as A."""
    return [
        ResponsePair(c.pair.id, c.pair.prompt, *_better_first(c.pair, c.a_better))
        for c in cases
        if c.a_better is not None
    ]


def _better_first(pair: ResponsePair, a_better: bool) -> tuple[str, str]:
    return (pair.response_a, pair.response_b) if a_better else (pair.response_b, pair.response_a)
