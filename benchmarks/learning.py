"""Do the algorithms learn, and how well? GRPO, RLOO, PPO and DPO from one SL-CAI model and one reward model, beside best-of-n.

    python benchmarks/learning.py [--seeds 0 1 2] [--threads 1] [--only best-of-n]

For each seed the default run is made first; the others start from its stages 1 to 5. Best-of-n samples SL-CAI up to 16 times
for each held-out prompt and keeps what the reward model likes best: the yardstick, at KL(best-of-n||SL-CAI) of at most
log n - (n - 1) / n (Beirami et al. 2024, arXiv:2401.01879). Runs lie in build/learning; what is done there is not done again.
Ends with `charter compare` of all, and one JSON object with the best-of-n figures, {seed: [{n, kl_bound, reward, gold}]}.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

from compare import charter, made

from charter.config import ModelConfig
from charter.records import EvaluatedResponse, Prompt
from charter.stages.rewards import scores_of_model
from charter.stages.saved import load_reward_model, loaded
from charter.stages.seeds import row_seed
from charter.statistics import mean
from charter.store.jsonl import read_jsonl
from charter.training.rollout import Rollout
from charter.village.oracle import oracle

SIZES = (1, 2, 4, 8, 16)
ALGORITHMS = {
    "RLOO": ("policy.algorithm=rloo",),
    "PPO": ("policy.algorithm=ppo",),
    "DPO": ("policy.algorithm=dpo", "dpo={beta: 0.1, learning_rate: 1.0e-4, epochs: 3, checkpoint_every: 39}"),
}
COPIED = ("1-revise", "2-sft", "3-sample", "4-label", "5-reward")


def best_of_n(run: Path, seed: int) -> list[dict[str, Any]]:
    """Reward and gold of the best of the first n samples of SL-CAI, by the reward model, over held-out prompts."""
    prompts = [row.prompt for row in read_jsonl(run / "7-evaluate" / "sl-cai.jsonl", EvaluatedResponse)]
    with loaded(ModelConfig(source=str(run / "2-sft" / "model"))) as model:
        scores = scores_of_model(load_reward_model(run / "5-reward" / "model", model.model), model)
        scored = list(zip(*(_samples(model, scores, prompts, seed, i) for i in range(max(SIZES))), strict=True))
    told = []
    for n in SIZES:
        best = [max(own[:n], key=lambda pair: pair[0]) for own in scored]
        reward, gold = ([pair[i] for pair in best] for i in (0, 1))
        told.append(
            {
                "n": n,
                "kl_bound": math.log(n) - (n - 1) / n,
                "reward": mean(reward).to_json(),
                "gold": mean(gold).to_json(),
            }
        )
    return told


def _samples(model: Any, scores: Any, prompts: list[Prompt], seed: int, place: int) -> list[tuple[float, float]]:
    """(reward, gold) of one sample for each prompt."""
    seeds = [row_seed(seed, "best-of-n", prompt.id, str(place)) for prompt in prompts]
    asked = [prompt.messages for prompt in prompts]
    said = [own.text for own in model.generate(asked, seeds=seeds, max_new_tokens=80, temperature=1.0)]
    rollouts = [
        Rollout(prompt.id, model.encode_prompt(prompt.messages), model.encode_response(text), True)
        for prompt, text in zip(prompts, said, strict=True)
    ]
    golds = [oracle.read(prompt, text).gold for prompt, text in zip(prompts, said, strict=True)]
    return list(zip(scores(rollouts), golds, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["best-of-n"])
    args = parser.parse_args()
    work, named, best = Path("build") / "learning", [], {}
    for seed in args.seeds:
        base = made(work / f"grpo-{seed}", seed, args.threads)
        best[seed] = best_of_n(base, seed)
        named += [f"GRPO={base}", f"SL-CAI={base}:sl-cai"]
        for name, settings in {} if args.only else ALGORITHMS.items():
            folder = work / f"{name.lower()}-{seed}"
            if not folder.exists():
                for stage in COPIED:
                    shutil.copytree(base / stage, folder / stage)
            named.append(f"{name}={made(folder, seed, args.threads, settings)}")
    charter("compare", *named, "--out", str(work / "learning.html"))
    print(json.dumps(best))


if __name__ == "__main__":
    main()
