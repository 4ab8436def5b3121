"""Repeat what the documentation says of the default run: seeds, ablations, the over-reaching constitution, kill -9.

    python benchmarks/village.py seeds         three seeds of the default run
    python benchmarks/village.py ablations     rounds 0-4, phases left out, no critique, other labelers; one table
    python benchmarks/village.py overreaching  warmth without a cap
    python benchmarks/village.py kill          kill -9 at ten random moments, resumed each time; compare with undisturbed

Each run is an ordinary ``charter run`` in build/village; a run that is done there is not done again.
The last line is one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "src" / "charter"
FIGURES = ("harmful_rate", "over_refusal_rate", "correct_rate", "rude_rate", "false_rate", "gold", "gold_harmful", "gold_benign",
           "num_words", "kl_to_sl_cai")  # fmt: skip
ABLATIONS: dict[str, list[str]] = {
    "both phases": ["evaluate.sl_rounds=[0,1,2,3]"],
    "RL only": ["phases=[rl]"],
    "no critique": ["revise.critique=false"],
    # the earlier checkpoint is sure of next to nothing: with the default run's min_log_odds the run stops for want of coverage
    "weaker labeler": [
        f"label.labeler.model.source={PACKAGE}/village/starter-early",
        "label.labeler.min_log_odds=0",
        "label.check.on_unfit=warn",
    ],
    # labeler strength against policy strength: the other two corners are "both phases" and "weaker labeler"
    "weaker policy": [f"model.source={PACKAGE}/village/starter-early"],
    "weaker policy and labeler": [
        f"model.source={PACKAGE}/village/starter-early",
        "label.labeler.min_log_odds=0",
        f"label.labeler.model.source={PACKAGE}/village/starter-early",
        "label.check.on_unfit=warn",
    ],
    "plain labeler": ["label.labeler.kind=plain", "label.labeler.min_log_odds=0"],
    # after four rounds by harm alone next to no pair differs in harm: there is nothing left to label, so phase 1 only
    "harm alone, SL only": ["constitution={harm_alone}", "phases=[sl]"],
}


THREADS: list[str] = []  # set from --threads: two runs side by side want one each


def command(out: Path, settings: list[str], seed: int) -> list[str]:
    sets = [part for setting in [*settings, *THREADS] for part in ("--set", setting)]
    return [sys.executable, "-m", "charter", "run", "--out", str(out), "--seed", str(seed), "--quiet", *sets]


def charter_run(out: Path, settings: list[str], seed: int) -> dict[str, Any]:
    """Run to the end (or go on) and return the summary."""
    subprocess.run(command(out, settings, seed), check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "summary.json").read_text())


def row(name: str, policy: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, **{key: policy.get(key, {}) for key in FIGURES}}


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':34}" + "".join(f"{key:>22}" for key in FIGURES))
    for each in rows:
        print(f"{each['name']:34}" + "".join(f"{_cell(each[key]):>22}" for key in FIGURES))


def _cell(figure: dict[str, Any]) -> str:
    if figure.get("value") is None:
        return "not known"
    interval = "" if figure.get("low") is None else f" ({figure['low']:.2f}-{figure['high']:.2f})"
    return f"{figure['value']:.3f}{interval}"


def seeds(work: Path, count: int) -> list[dict[str, Any]]:
    found = []
    for seed in range(count):
        summary = charter_run(work / f"seed-{seed}", [], seed)
        found += [row(f"seed {seed}: {name}", summary["policies"][name]) for name in ("initial", "sl-cai", "rl-cai")]
    return found


def ablations(work: Path, seed: int, only: str | None) -> list[dict[str, Any]]:
    harm_alone = work / "harm-alone.yaml"
    text = (PACKAGE / "constitutions" / "village.yaml").read_text()
    head, first = text.split("principles:\n")[0], text.split("principles:\n")[1].split("  - id: ")[1]
    work.mkdir(parents=True, exist_ok=True)
    harm_alone.write_text(f"{head}principles:\n  - id: {first}".replace("name: village", "name: village-harm-alone"))
    found = []
    for name, settings in ABLATIONS.items():
        if only not in (None, name):
            continue
        settings = [setting.replace("{harm_alone}", str(harm_alone)) for setting in settings]
        summary = charter_run(work / name.replace(" ", "-"), settings, seed)
        for policy in summary["policies"]:
            if policy.startswith("sl-cai") or policy == "rl-cai" or (policy == "initial" and name == "both phases"):
                found.append(row(f"{name}: {policy}", summary["policies"][policy]))
    return found


def overreaching(work: Path, seed: int) -> list[dict[str, Any]]:
    settings = [f"constitution={PACKAGE}/constitutions/village-overreaching.yaml"]
    summary = charter_run(work / "overreaching", settings, seed)
    return [row(name, policy) for name, policy in summary["policies"].items()]


def kill(work: Path, seed: int, times: int) -> list[dict[str, Any]]:
    """Kill a run at random moments; its figures must be those of the undisturbed run."""
    undisturbed = charter_run(work / f"seed-{seed}", [], seed)
    seconds = {stage["name"]: stage["wall_seconds"] for stage in undisturbed["stages"]}
    rng, out = random.Random(seed), work / "killed"
    # the stage is drawn, then the moment in it: by the clock alone a busy machine would put all kills into the first stages
    for number, stage in enumerate(sorted(rng.choices(list(seconds), k=times)), 1):
        process = subprocess.Popen(command(out, [], seed), stdout=subprocess.DEVNULL)
        while not (out / stage).exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.random() * seconds[stage])
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = sorted(path.parent.name for path in out.glob("*/done.json"))
        print(f"kill {number}, meant for {stage}: stages done by then: {', '.join(done) or 'none'}", flush=True)
    resumed = charter_run(out, [], seed)
    same = all(resumed[part] == undisturbed[part] for part in ("policies", "labeler", "reward_model"))
    print(f"figures of the killed and of the undisturbed run are {'the same' if same else 'NOT the same'}")
    return [{"name": "killed", "same": same, "times": times}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("seeds", "ablations", "overreaching", "kill"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3, help="seeds to run")
    parser.add_argument("--times", type=int, default=10, help="kills")
    parser.add_argument("--work", type=Path, default=Path("build/village"))
    parser.add_argument("--threads", type=int, help="threads of each run (default: all)")
    parser.add_argument("--only", help="of the ablations, only this one")
    chosen = parser.parse_args()
    if chosen.threads:
        THREADS.append(f"num_threads={chosen.threads}")
    if chosen.what == "kill":
        print(json.dumps(kill(chosen.work, chosen.seed, chosen.times)[0]))
        return
    rows = {
        "seeds": lambda: seeds(chosen.work, chosen.count),
        "ablations": lambda: ablations(chosen.work, chosen.seed, chosen.only),
        "overreaching": lambda: overreaching(chosen.work, chosen.seed),
    }[chosen.what]()
    show(rows)
    print(json.dumps({each["name"]: {key: each[key].get("value") for key in FIGURES} for each in rows}))


if __name__ == "__main__":
    main()
