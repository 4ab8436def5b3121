"""The village runs that `charter compare` sets beside each other: same prompts, pairs, steps and KL weight, other labels.

    python benchmarks/compare.py [--seeds 0 1 2] [--threads 1]

For each seed the default run is made first; the other methods start from its phase 1 and its sampled pairs, and differ only
in who labels: people (simulated: the oracle's preference, one in ten turned), or the same labeler without a constitution;
with a verifiable reward nobody labels: the village's checker rewards right answers where there is one; d-RLAIF asks the
labeler for scores during reinforcement learning, critiques first, and needs minutes more a run. Wins against SL-CAI are by
the village's early starter, which labels in none of them: a weaker model of the same family, asked by every principle; it is
so unsure that with the labeler's min_log_odds of 0.7 it decides nothing.
Runs lie in build/compare; what is done there is not done again. Ends with `charter compare` of all of them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from charter.records import ResponsePair
from charter.store.jsonl import read_jsonl
from labelers import people

STARTER = Path(__file__).parents[1] / "src" / "charter" / "village" / "starter"
# scores lie in [0, 1], where a reward model's differ by some nats: a twentieth of the KL weight weighs about as much
DIRECT = (
    f'policy.reward={{kind: direct, model: {{source: "{STARTER}"}}, question: "charter.village.skills:graded", '
    'chain_of_thought: true, options: {" breaks": 0, " escapes": 1, " keeps": 1}, max_new_tokens: 80}',
    "policy.kl_coef=0.0075",
)
JUDGE = (
    f'evaluate.judge={{source: "{STARTER}-early"}}',
    'evaluate.wins={principles: all, question: "charter.village.skills:question"}',
)
COPIED = ("1-revise", "2-sft", "3-sample")


def charter(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "charter", *arguments], check=True)


def made(folder: Path, seed: int, threads: int, settings: tuple[str, ...] = ()) -> Path:
    if not (folder / "summary.json").is_file():
        sets = [part for setting in (*settings, *JUDGE, f"num_threads={threads}") for part in ("--set", setting)]
        charter("run", "--out", str(folder), "--seed", str(seed), "--quiet", *sets)
    return folder


def beside(start: Path, folder: Path) -> Path:
    """A new run folder with the phase 1 and the pairs of another."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for name in COPIED:
            shutil.copytree(start / name, folder / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    work = Path("build") / "compare"
    check = 'policy.reward={kind: checker, check: "charter.village.oracle:answered_rightly"}'
    named = []
    for seed in args.seeds:
        cai = made(work / f"cai-{seed}", seed, args.threads)
        labels = work / f"people-{seed}.jsonl"
        people(list(read_jsonl(cai / "3-sample" / "pairs.jsonl", ResponsePair)), labels)
        others = {
            "RLHF, simulated people": (f'label.labeler={{kind: human, labels: "{labels.resolve()}"}}',),
            "RLAIF, no constitution": (
                "label.labeler.kind=plain",
                "label.labeler.min_log_odds=0",
                "label.check.on_unfit=warn",
            ),
        }
        named += [f"CAI={cai}", f"SL only={cai}:sl-cai"]
        others["GRPO, verifiable reward"] = (check,)
        others["d-RLAIF, no reward model"] = DIRECT
        for name, settings in others.items():
            slug = name.split(",")[0].lower()
            folder = made(beside(cai, work / f"{slug}-{seed}"), seed, args.threads, settings)
            named.append(f"{name}={folder}")
    charter("compare", *named, "--out", str(work / "compare.html"))


if __name__ == "__main__":
    main()
