"""What a run will do and cost, said before it begins: stages that are left, questions, tokens, money, caps, memory.

Counted by the plan without loading a model, so that all of it is an upper bound (money and tokens only where the run's
tokenizer is at hand) and time isn't known. Of a stage that was begun, the rows that stand in its file are taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from charter.config import RunConfig
from charter.models.endpoint import endpoint_fingerprint
from charter.pipeline import Pipeline
from charter.plan.make import TOTALS, counted_plan
from charter.progress import QuietProgress
from charter.stages.inputs import Inputs
from charter.stages.keyed import State, stage_key, state_of
from charter.store.disk import store_errors
from charter.store.folder import RunFolder
from charter.store.ledger import Ledger
from charter.watch import steps_done

ROWS = {
    "1-revise": "revisions.jsonl",
    "3-sample": "pairs.jsonl",
    "4-label": "judgments.jsonl",
    "7-evaluate": "responses/*.jsonl",
}
KNOWN_AFTER = "time isn't known before it is measured: charter plan does"


def states_of_stages(config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger) -> dict[str, State]:
    """How far each stage of the run is, in order."""
    return _Looking(config, inputs, folder, ledger).states()


class _Looking(Pipeline):
    """Goes through the stages and does none."""

    def __init__(self, config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger) -> None:
        super().__init__(config, inputs, folder, ledger, QuietProgress())
        self._states: dict[str, State] = {}

    def _stage(
        self, name: str, reads: dict[str, Any], work: Callable[[Path], dict[str, Any]], *, trains: bool = False
    ) -> None:
        self._keys[name] = stage_key(name, {"seed": self._config.seed, **reads})
        self._states[name] = state_of(self._folder.path / name, self._keys[name])

    def states(self) -> dict[str, State]:
        self._all_stages()
        return self._states


def outlook(
    config: RunConfig, inputs: Inputs, folder: RunFolder, ledger: Ledger, states: dict[str, State] | None = None
) -> list[str]:
    """A few lines for people."""
    states = states or states_of_stages(config, inputs, folder, ledger)
    done = [name for name, state in states.items() if state == "done"]
    if len(done) == len(states):
        return [f"all {len(done)} stages are done before"]
    plan = counted_plan(config, inputs)
    left = {stage["name"]: stage for stage in plan["stages"] if stage["name"] not in done}
    begun = {name: _begun(folder.path, stage) for name, stage in left.items() if states[name] == "begun"}
    shares = {name: 1 - begun[name][0] if name in begun else 1.0 for name in left}
    to_do = [
        f"{name} ({stage['rows']:,} {stage['unit']}{f', {begun[name][1]}' if name in begun else ''})"
        for name, stage in left.items()
    ]
    answers, read, written, trained = (sum(stage[key] * shares[name] for name, stage in left.items()) for key in TOTALS)
    bound = "at most" if plan["upper_bound"] else "about"
    memory = [stage["memory_gb"] for stage in left.values()]
    return [
        *([f"done before: {', '.join(done)}"] if done else []),
        f"to do: {', '.join(to_do)}",
        f"at most {round(answers):,} answers of models; {bound} {_tokens(read)} tokens read, {_tokens(written)} written, "
        f"{_tokens(trained)} trained on; {KNOWN_AFTER}",
        *(
            f"the check of the labeler: {stage['check_calls']:,} calls (label.check)"
            for name, stage in left.items()
            if stage["check_calls"] and name not in begun
        ),
        *(_server(entry, left, shares, ledger, bound) for entry in plan["endpoints"]),
        *([] if plan["endpoints"] else ["money: none, no server is asked"]),
        "memory: not known before the models are there" if None in memory else f"memory: about {max(memory):.2g} GB",
    ]


def _begun(run: Path, stage: dict[str, Any]) -> tuple[float, str]:
    """How much of a stage is done, as a share and in words: rows that stand in its file, or steps up to its checkpoint."""
    name = stage["name"]
    if name not in ROWS:
        step, total = steps_done(run, name)
        of = f" of {total:,}" if total else ""
        return (step / total if total else 0.0), f"begun: step {step:,}{of}" if step else "begun"
    lines = 0
    for path in (run / name).glob(ROWS[name]):
        with store_errors(path), path.open("rb") as file:
            lines += sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    expected = stage["calls"] if name == "4-label" else stage["rows"]
    share = min(1.0, lines / max(1, expected))
    return share, f"begun: {share:.0%} of its rows"


def _server(entry: dict[str, Any], left: dict[str, Any], shares: dict[str, float], ledger: Ledger, bound: str) -> str:
    """What one server may cost from now on, and its caps; what it has cost so far counts towards them."""
    source = entry["source"]
    price = entry["price"]
    calls, read, written = ledger.usage(endpoint_fingerprint(source))
    asked = [(stage, shares[name]) for name, stage in left.items() if source in stage["models"]]
    if price is None:
        money = "money isn't known: the run file gives no price"
    elif None in [stage["money"] for stage, _ in asked]:
        money = "money isn't known: a server that the same stage asks has no price"
    else:
        money = f"money: {bound} {sum(stage['money'] * share for stage, share in asked):,.2f}"
    spent = f" {(read * price[0] + written * price[1]) / 1e6:,.2f}" if price else ""
    before = f"; so far{spent} for {calls:,} calls" if calls else ""
    caps = [f"{name} {entry[name]:,}" for name in ("max_spend", "max_tokens") if entry[name] is not None]
    stops = ", where it stops before the end, and goes on once they are raised" if entry["stops_before_the_end"] else ""
    return f"{source}: {money}{before}; caps: {', '.join(caps) or 'none'}{stops}"


def _tokens(count: float) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{round(count):,}"
