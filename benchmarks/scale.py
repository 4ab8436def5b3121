"""Two processes that train together against one, one thread each: SFT tokens/s and GRPO completions/s.

    python benchmarks/scale.py [--size 3M|30M] [--steps 8] [--rounds 3] [--sharding ddp|fsdp]

One process and two take turns, ``--rounds`` times; each trains the same steps on the same data, the first step of each is left
out, and a ratio is the median step of one over the median step of two. Time is the clock's, since processes wait for each
other: neighbours on the machine count, so the figures mean something only where two cores are free. Beside it stands the CPU time
of one process over that of the busier one of two, median of the rounds: how well the work is divided, whoever else is there, but
not how long they wait for each other. The last line is one JSON object, with the load of the machine before the start, and the
most memory that a process had (MB).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from training import BATCH, GROUP, KL_COEF, MAX_NEW_TOKENS, PROMPTS, SIZES, World, build

LOOPS = ("sft", "grpo")
UPDATES: dict[str, Any] = {}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="3M")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sharding", choices=("ddp", "fsdp"), default="ddp")
    parser.add_argument("--process", nargs=3, metavar=("WORLD", "OUT", "PROCESSES"), help=argparse.SUPPRESS)
    return parser.parse_args()


def train(world: World, loop: str, steps: int, folder: Path) -> list[float]:
    """Seconds of every step but the first."""
    from charter.config import PolicyConfig, SftConfig
    from charter.training.grpo import Callbacks, EncodedPrompt, train_grpo
    from charter.training.sft import train_sft

    seconds: list[float] = []
    on_step = lambda row: seconds.append(row["seconds"])  # noqa: E731
    model = world.policy()
    if loop == "sft":
        examples = [(world.ids(world.prompt()), [*world.ids(world.response(24, 96)), 1]) for _ in range(steps * BATCH)]
        config = SftConfig(batch_size=BATCH, learning_rate=1e-5, checkpoint_every=10**6)
        train_sft(model, examples, config, seed=0, folder=folder, on_step=on_step)
    else:
        prompts = [EncodedPrompt(str(i), world.ids(world.prompt())) for i in range(steps * PROMPTS)]
        policy = PolicyConfig(
            steps=steps, prompts_per_step=PROMPTS, group_size=GROUP, learning_rate=1e-6, kl_coef=KL_COEF,
            max_new_tokens=MAX_NEW_TOKENS, checkpoint_every=10**6,
        )  # fmt: skip
        train_grpo(
            model, world.policy(), lambda rollouts: [float(len(r.response_ids)) for r in rollouts], prompts, policy,
            seed=0, folder=folder, stop_ids=[1], callbacks=Callbacks(on_step),
        )  # fmt: skip
    return seconds[1:]


def stamped() -> list[float]:
    """This process's CPU time after each update from now on."""
    from charter.training.optimise import Trainer

    stamps: list[float] = []
    update = UPDATES.setdefault("plain", Trainer.update)

    def timed(self: Any, loss: float) -> float:
        norm = update(self, loss)
        stamps.append(time.process_time())
        return norm

    Trainer.update = timed  # type: ignore[method-assign]
    return stamps


def one_process(options: argparse.Namespace) -> None:
    """What each process does; the first one tells the times."""
    import torch

    from charter.store.jsonl import write_json
    from charter.training import distributed
    from charter.training.launch import RESULT, watch_parent

    watch_parent()
    torch.set_num_threads(1)
    place, out, processes = options.process
    if int(processes) > 1:
        distributed.join(int(processes), options.sharding, 600)
    found: dict[str, Any] = {}
    for loop in LOOPS:
        stamps = stamped()
        seconds = train(World(Path(place), options.size), loop, options.steps, Path(out) / loop)
        own = [after - before for before, after in itertools.pairwise(stamps)]
        found[loop] = {"seconds": seconds, "cpu": distributed.largest(statistics.median(own))}
    found["peak"] = distributed.largest(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if distributed.is_main():
        write_json(Path(out) / RESULT, found)
    if int(processes) > 1:
        distributed.end()


def main(options: argparse.Namespace) -> None:
    from charter.config import ScaleConfig
    from charter.training.launch import launch

    load = os.getloadavg()[0]
    seconds: dict[int, dict[str, list[float]]] = {n: {loop: [] for loop in LOOPS} for n in (1, 2)}
    cpu: dict[int, dict[str, list[float]]] = {n: {loop: [] for loop in LOOPS} for n in (1, 2)}
    peaks = {1: 0.0, 2: 0.0}
    with tempfile.TemporaryDirectory() as name:
        world = Path(name)
        build(options.size, world)
        for turn in range(options.rounds):
            for processes in (1, 2):
                out = world / f"{turn}-{processes}"
                out.mkdir()
                scale = ScaleConfig(
                    processes=processes, sharding=options.sharding if processes > 1 else "none", restarts=0
                )
                arguments = [
                    str(Path(__file__).absolute()), "--size", options.size, "--steps", str(options.steps),
                    "--sharding", options.sharding, "--process", str(world), str(out), str(processes),
                ]  # fmt: skip
                found = launch(scale, arguments, out, print, 1)
                peaks[processes] = max(peaks[processes], found["peak"])
                for loop in LOOPS:
                    seconds[processes][loop] += found[loop]["seconds"]
                    cpu[processes][loop].append(found[loop]["cpu"])
                told = {loop: round(statistics.median(found[loop]["seconds"]), 3) for loop in LOOPS}
                print(f"round {turn + 1}, {processes} processes: {told} s a step", flush=True)
    medians = {n: {loop: statistics.median(values) for loop, values in own.items()} for n, own in seconds.items()}
    result: dict[str, Any] = {loop: round(medians[1][loop] / medians[2][loop], 3) for loop in LOOPS}
    of_cpu = {loop: statistics.median(cpu[1][loop]) / statistics.median(cpu[2][loop]) for loop in LOOPS}
    print(json.dumps({
        "size": options.size, "sharding": options.sharding, "ratio_of_two_processes": result,
        "ratio_of_cpu_time": {loop: round(value, 3) for loop, value in of_cpu.items()},
        "peak_mb": {str(n): round(value) for n, value in peaks.items()},
        "seconds_per_step": {str(n): own for n, own in medians.items()}, "load_before": round(load, 1),
        "steps": options.steps, "rounds": options.rounds,
    }))  # fmt: skip


if __name__ == "__main__":
    parsed = parse()
    one_process(parsed) if parsed.process else main(parsed)
