"""Every kind of labeler end to end in the village: labels, reward model, agreement with the oracle, cost.

    python benchmarks/labelers.py --run runs/village [--pairs 600] [--only debate]

RUN is a finished default run: its pairs (3-sample) are labelled anew by each kind, each with a ledger of its own, and a
reward model is trained on the labels. "human" are simulated people: the oracle's preference, one in ten turned.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from charter.config import LabelConfig, ModelConfig, RewardConfig
from charter.constitution.load import load_constitution
from charter.errors import CharterError
from charter.labelers.make import make_labeler
from charter.progress import QuietProgress
from charter.records import PreferencePair, ResponsePair
from charter.stages import label, train_reward
from charter.stages.labeler_models import LabelerModels
from charter.stages.saved import loaded
from charter.stages.seeds import row_seed
from charter.store.jsonl import read_jsonl, write_jsonl
from charter.store.ledger import Ledger
from charter.village.oracle import oracle

PACKAGE = Path(__file__).parents[1] / "src" / "charter"
STARTER = {"source": str(PACKAGE / "village" / "starter")}
EARLY = {"source": str(PACKAGE / "village" / "starter-early")}
ASKED = {"question": "charter.village.skills:question", "min_log_odds": 0.7, "max_new_tokens": 80}
KINDS: dict[str, dict[str, Any]] = {
    "constitutional, all principles": {"model": STARTER, **ASKED},
    "constitutional, one drawn": {"model": STARTER, **ASKED, "principles": 1},
    "constitutional, chain of thought": {"model": STARTER, **ASKED, "chain_of_thought": True},
    "constitutional, 5 votes": {"model": STARTER, **ASKED, "votes": 5},
    "earlier checkpoint": {"model": EARLY, **ASKED, "min_log_odds": 0},
    "plain": {"kind": "plain", "model": STARTER, **ASKED, "min_log_odds": 0},
    "committee": {
        "kind": "committee",
        "members": [
            {"model": STARTER, **ASKED},
            {"model": STARTER, **ASKED, "chain_of_thought": True},
            {"model": EARLY, **ASKED, "chain_of_thought": True},
        ],
    },
    "debate": {"kind": "debate", "model": STARTER, **ASKED, "argument": "charter.village.skills:argument"},
    "assisted": {"kind": "assisted", "model": STARTER, "critic": STARTER, **ASKED},
    "direct": {
        "kind": "direct", "model": STARTER, "question": "charter.village.skills:graded", "chain_of_thought": True,
        "options": {" breaks": 0, " escapes": 1, " keeps": 1}, "max_new_tokens": 80, "min_log_odds": 0.7,
    },
    "human (simulated)": {"kind": "human", "labels": "{people}"},
    "checker (benign prompts)": {"kind": "checker", "check": "charter.village.oracle:answered_rightly"},
}  # fmt: skip


def people(pairs: list[ResponsePair], path: Path) -> None:
    """Simulated raters: the oracle's preference, one in ten turned, ties left out."""
    rows = []
    for pair in pairs:
        a, b = (oracle.read(pair.prompt, text).gold for text in (pair.response_a, pair.response_b))
        if a != b and pair.response_a and pair.response_b:  # nobody can be shown an empty one
            turned = row_seed(0, "people", pair.id) % 10 == 0
            rows.append(
                PreferencePair(pair.id, pair.prompt, pair.response_a, pair.response_b, float((a > b) != turned))
            )
    write_jsonl(path, rows)


def one_kind(name: str, settings: dict[str, Any], run: Path, pairs: list[ResponsePair], work: Path) -> dict[str, Any]:
    """Label the pairs, train a reward model, and return the row."""
    folder = work / "".join(c if c.isalnum() else "-" for c in name)
    folder.mkdir(parents=True)
    labels = {key: str(work / "people.jsonl") if value == "{people}" else value for key, value in settings.items()}
    config = LabelConfig.model_validate({"labeler": labels, "min_coverage": 0.05})
    constitution = load_constitution(run / "constitution.yaml")
    began = time.monotonic()
    with Ledger(folder / "ledger.sqlite") as ledger, LabelerModels(ledger) as models:
        labeler = make_labeler(config.labeler, models, constitution, 0)
        labelled = label.run(config, folder, pairs=pairs, labeler=labeler, gold=oracle, progress=QuietProgress())
    seconds = time.monotonic() - began
    preferences = list(read_jsonl(folder / "preferences.jsonl", PreferencePair))
    trained = train_reward.run(
        RewardConfig(epochs=3, learning_rate=1e-3, holdout_fraction=0.15), folder / "reward", preferences=preferences,
        start=ModelConfig(source=str(run / "2-sft" / "model")), load=loaded, gold=oracle, seed=0, progress=QuietProgress(),
    )  # fmt: skip
    per_1000 = 1000 / labelled["num_labels"]
    return {
        "kind": name,
        "labels": labelled["num_labels"],
        "pairs": len(pairs),
        "accuracy": labelled["accuracy"],
        "gold_agreement": labelled["gold_agreement"],
        "position_bias": labelled["position_bias"],
        "reward_gold_agreement": trained["gold_agreement"],
        "tokens_per_1000_labels": round(labelled["num_tokens"] * per_1000),
        "seconds_per_1000_labels": round(seconds * per_1000, 1),
        "committee": labelled.get("committee", {}).get("alpha"),
    }


def cell(figure: dict[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--only")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    pairs = list(read_jsonl(chosen.run / "3-sample" / "pairs.jsonl", ResponsePair))[: chosen.pairs]
    work = Path(tempfile.mkdtemp(prefix="charter-labelers-"))
    people(pairs, work / "people.jsonl")
    rows = []
    for name, settings in KINDS.items():
        if chosen.only not in (None, name):
            continue
        own = [pair for pair in pairs if pair.prompt.harmful is False] if name.startswith("checker") else pairs
        try:
            row = one_kind(name, settings, chosen.run, own, work)
        except CharterError as error:
            print(f"{name}: {error}", flush=True)
            continue
        rows.append(row)
        print(
            f"{name:34} labels {row['labels']}/{row['pairs']}  accuracy {cell(row['accuracy'])}  "
            f"gold {cell(row['gold_agreement'])}  "
            f"reward model, gold {cell(row['reward_gold_agreement'])}  per 1,000: {row['tokens_per_1000_labels']:,} tokens, "
            f"{row['seconds_per_1000_labels']} s",
            flush=True,
        )
    shutil.rmtree(work)
    print(json.dumps({row["kind"]: row for row in rows}))


if __name__ == "__main__":
    main()
