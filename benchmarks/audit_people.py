"""An audit without any oracle: pairs that people compared, labelled by a model, a reward model on the labels, the audit.

    python benchmarks/audit_people.py --data PAIRS --model DIR --constitution FILE --out DIR [--pairs 500] [--principles 2]

PAIRS is any preference file that Charter reads (hh-rlhf, UltraFeedback, TRL ...). Sides are drawn by chance, because most
files put the chosen response first. Prints what ``charter audit`` says with the people's preferences beside; the last line
is one JSON object with the figures that can be known.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from charter.audit.run import write_audit
from charter.audit.table import table
from charter.config import LabelConfig, ModelConfig, RewardConfig
from charter.constitution.load import load_constitution
from charter.data.preferences import load_preferences
from charter.labelers.make import make_labeler
from charter.progress import QuietProgress
from charter.records import PreferencePair, ResponsePair
from charter.stages import label, train_reward
from charter.stages.labeler_models import LabelerModels
from charter.stages.saved import loaded
from charter.store.jsonl import read_jsonl, write_jsonl
from charter.store.ledger import Ledger
from charter.yaml_io import dump_yaml


def shuffled_sides(rows: list[PreferencePair], seed: int) -> list[PreferencePair]:
    rng = random.Random(seed)
    turned = []
    for row in rows:
        swap = rng.random() < 0.5
        a, b = (row.response_b, row.response_a) if swap else (row.response_a, row.response_b)
        turned.append(PreferencePair(row.id, row.prompt, a, b, 1 - row.p_a if swap else row.p_a, (), row.source))
    return turned


def make_run(args: argparse.Namespace) -> Path:
    """A run folder of people's pairs: everything that an audit reads but policies."""
    out: Path = args.out
    people = shuffled_sides(random.Random(args.seed).sample(load_preferences(args.data, []), args.pairs), args.seed)
    constitution = load_constitution(args.constitution)
    model = {"source": str(args.model.resolve())}
    labeler = {"model": model, "principles": args.principles, "batch_size": 64}
    config = LabelConfig.model_validate({"labeler": labeler, "min_coverage": 0.05})
    for name in ("3-sample", "4-label", "5-reward"):
        (out / name).mkdir(parents=True)
    (out / "constitution.yaml").write_text(args.constitution.read_text())
    (out / "run.yaml").write_text(dump_yaml({"name": "people", "seed": args.seed, "model": model}))
    write_jsonl(out / "people.jsonl", people)
    pairs = [ResponsePair(row.id, row.prompt, row.response_a, row.response_b) for row in people]
    write_jsonl(out / "3-sample" / "pairs.jsonl", pairs)
    with Ledger(out / "ledger.sqlite") as ledger, LabelerModels(ledger) as models:
        judge = make_labeler(config.labeler, models, constitution, args.seed)
        label.run(config, out / "4-label", pairs=pairs, labeler=judge, gold=None, progress=QuietProgress())
    train_reward.run(
        RewardConfig(epochs=1, holdout_fraction=0.3), out / "5-reward",
        preferences=list(read_jsonl(out / "4-label" / "preferences.jsonl", PreferencePair)), start=ModelConfig(**model),
        load=loaded, gold=None, seed=args.seed, progress=QuietProgress(),
    )  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "model", "constitution", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--principles", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    out = make_run(args)
    found: dict[str, Any] = write_audit(out, out / "people.jsonl")
    print(table(found))
    known = {name: found["goal"]["people"][name] for name in found["goal"]["people"]}
    agreement = found["waterfall"]["links"][2]["agreement_with_previous"]
    print(json.dumps({"pairs": args.pairs, "seed": args.seed, "people": known, "reward_model_with_labels": agreement,
                      "order_gap": found["labels"]["position"]["order_gap"], "verdict": found["verdict"]}))  # fmt: skip


if __name__ == "__main__":
    main()
