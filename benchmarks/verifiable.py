"""GRPO with a verifiable reward in its own domain: right answers before and after, several seeds.

    python benchmarks/verifiable.py [--seeds 0 1 2] [--steps 60] [--threads 1]

From the village's helpful model, on requests that a checker can decide (lookup in notes, sums, recipes): phase 2 alone, the
checker's verdict as reward, no labeler and no reward model. Accuracy is over 400 held-out requests of the same kinds (held-out
combinations and words, one response each at temperature 1); the difference is paired by request, with a bootstrap interval.
Runs lie in build/verifiable; what is done there is not done again. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from charter.records import EvaluatedResponse, Prompt
from charter.statistics import mean
from charter.store.jsonl import read_jsonl
from charter.village.oracle import CHECKABLE, answered_rightly, read_request
from charter.village.prompts import held_out_prompts, training_prompts


def _decidable(prompts: list[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if read_request(prompt.messages).kind in CHECKABLE]


def training() -> list[Prompt]:
    """Training requests that have a right answer."""
    return _decidable(training_prompts())


def held_out() -> list[Prompt]:
    """Held-out requests that have a right answer."""
    return _decidable(held_out_prompts())


def trained(folder: Path, seed: int, steps: int, threads: int) -> Path:
    """The run, made unless it is there."""
    from compare import charter  # not at the top: `charter` itself imports this module, for the prompts

    settings = (
        "phases=[rl]",
        'prompts={source: "benchmarks.verifiable:training"}',
        'policy.reward={kind: checker, check: "charter.village.oracle:answered_rightly"}',
        "policy.initialise_from=helpful",
        f"policy.steps={steps}",
        'evaluate.prompts={source: "benchmarks.verifiable:held_out", limit: 400}',
        f"num_threads={threads}",
    )
    sets = [part for setting in settings for part in ("--set", setting)]
    charter("run", "--out", str(folder), "--seed", str(seed), "--quiet", *sets)
    return folder


def answers(folder: Path, policy: str) -> dict[str, float]:
    """1 where a held-out request was answered rightly, by prompt id."""
    rows = read_jsonl(folder / "7-evaluate" / f"{policy}.jsonl", EvaluatedResponse)
    found = {row.prompt.id: answered_rightly(row.prompt, row.response) for row in rows}
    return {key: value for key, value in found.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    told = {}
    for seed in args.seeds:
        folder = trained(Path("build") / "verifiable" / f"seed-{seed}", seed, args.steps, args.threads)
        before, after = answers(folder, "initial"), answers(folder, "rl-cai")
        told[seed] = {
            "n": len(before),
            "before": mean(list(before.values())).to_json(),
            "after": mean(list(after.values())).to_json(),
            "difference": mean([after[key] - before[key] for key in before]).to_json(),
        }
        print(seed, json.dumps(told[seed]), flush=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
