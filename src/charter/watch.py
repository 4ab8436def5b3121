"""Where a run stands, from the files in its folder alone: it is neither locked nor touched.

reads   run.yaml, .holder.json, summary.json, and of each stage attempts.jsonl, done.json, its rows and metrics.jsonl
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from charter.errors import ConfigError, StoreError
from charter.store.folder import is_alive
from charter.store.stale import ASIDE
from charter.yaml_io import load_yaml

ROWS = {"1-revise": "revisions.jsonl", "3-sample": "samples.jsonl", "4-label": "judgments.jsonl"}
SHOWN = ("reward_mean", "loss", "accuracy", "kl_k1", "entropy", "grad_norm")  # of the last step, where it has them


def look(run: Path, now: float | None = None) -> dict[str, Any]:
    """What is going on.

    Keys: run, state (working, finished, stopped), stages[] with name, state (waiting, working, stopped, done), rows, unit,
    total, per_second, seconds_left, seconds and metrics (of the last step). What can't be known is None. ``per_second`` is over
    all the time that was worked on the stage.

    Raises:
        StoreError: no run folder there. ConfigError: its run file can't be read.
    """
    if not (run / "run.yaml").is_file():
        raise StoreError(f"{run}: no run folder there (no run.yaml): check the path")
    config = load_yaml(run / "run.yaml", ConfigError).data
    if not isinstance(config, dict):
        raise ConfigError(f"{run / 'run.yaml'}: no run file: check the path")
    alive = _alive(run)
    now = time.time() if now is None else now
    stages = [_stage(run, name, config, alive, now) for name in stage_names(config)]
    done = all(stage["state"] == "done" for stage in stages) and _summary_is_newest(run)
    state = "finished" if done else "working" if alive is not False else "stopped"
    return {"run": str(run), "state": state, "stages": stages}


def stage_names(config: dict[str, Any]) -> list[str]:
    """The stages of a run in their order."""
    phases, found = config.get("phases", ["sl", "rl"]), []
    if "sl" in phases:
        rounds = sorted(r for r in _get(config, "evaluate", "sl_rounds") or [] if r < _get(config, "revise", "rounds"))
        found += ["1-revise", "2-sft", *(f"2-sft-round-{r}" for r in rounds)]
    if "rl" in phases:
        found += [] if _get(config, "policy", "reward") else ["3-sample", "4-label", "5-reward"]
        found += ["6-policy"]
    return [*found, "7-evaluate"]


def _stage(run: Path, name: str, config: dict[str, Any], alive: bool | None, now: float) -> dict[str, Any]:
    folder = run / name
    done = (folder / "done.json").is_file()
    stale = not done and (folder / ASIDE).is_file()  # of other settings, and not begun anew yet
    attempts = {} if stale else _attempts(folder / "attempts.jsonl")
    is_open = bool(attempts) and not done
    state = "done" if done else "waiting" if not attempts else "stopped" if alive is False else "working"
    until = now if state == "working" else 0.0  # of an attempt that was cut off nothing is known
    seconds = sum(max(0.0, (until if end is None else end) - start) for start, end in attempts.items())
    metrics = {} if stale else _last_row(folder / "metrics.jsonl")
    rows, unit = _progress(folder, name, metrics)
    rows = None if stale else rows
    total = None if rows is None else _total(run, name, config)
    rate = rows / seconds if is_open and rows and seconds > 0 else None
    left = (total - rows) / rate if rate and total is not None and rows is not None and total >= rows else None
    return {
        "name": name,
        "state": state,
        "rows": rows,
        "unit": unit,
        "total": total,
        "per_second": None if rate is None else round(rate, 3),
        "seconds_left": None if left is None else round(left, 1),
        "seconds": round(seconds, 1),
        "metrics": {key: metrics[key] for key in SHOWN if key in metrics},
    }


def _attempts(path: Path) -> dict[float, float | None]:
    """Start -> end; None where it goes on, or was cut off."""
    found: dict[float, float | None] = {}
    for row in _rows(path):
        start, end = row.get("start"), row.get("end")
        if isinstance(start, (int, float)):
            found[start] = end if isinstance(end, (int, float)) else None
    return found


def _progress(folder: Path, name: str, metrics: dict[str, Any]) -> tuple[int | None, str]:
    if isinstance(metrics.get("step"), int):
        return metrics["step"], "steps"
    if name in ROWS:
        path = folder / ROWS[name]
        if name == "4-label":  # several judgments for each pair
            return len({row.get("pair_id") for row in _rows(path)}) if path.is_file() else None, "pairs"
        return (_num_lines(path) if path.is_file() else None), "prompts"
    if name == "7-evaluate" and (folder / "responses").is_dir():
        return sum(map(_num_lines, (folder / "responses").glob("*.jsonl"))), "responses"
    return None, "steps" if name[0] in "256" else "rows"


def _total(run: Path, name: str, config: dict[str, Any]) -> int | None:
    """How many rows or steps there will be; None where only the stage itself knows."""
    if name == "1-revise":
        return _get(config, "revise", "num_prompts")
    if name == "3-sample":
        return _get(config, "sample", "num_prompts")
    if name == "4-label":
        return _num_lines(run / "3-sample" / "pairs.jsonl")
    if name.startswith("2-sft"):
        num_rows, size = _num_lines(run / name / "dataset.jsonl"), _get(config, "sft", "batch_size")
        return _get(config, "sft", "epochs") * -(-num_rows // size) if num_rows and size else None
    if name == "6-policy":
        return _get(config, "policy", "steps")
    return None


def steps_done(run: Path, name: str) -> tuple[int, int | None]:
    """From which step training that was begun goes on, that of its newest checkpoint, and how many there will be."""
    saved = [
        int(digits) for path in (run / name / "checkpoint").glob("step-*") if (digits := path.name[5:]).isdecimal()
    ]
    rows = _rows(run / name / "metrics.jsonl") if saved else []
    steps = [
        r["step"] for r in rows if isinstance(r.get("step"), int) and r.get("num_updates", r["step"]) <= max(saved)
    ]
    config = load_yaml(run / "run.yaml", ConfigError).data
    return max(steps, default=0), _total(run, name, config) if isinstance(config, dict) else None


def _get(config: dict[str, Any], *path: str) -> Any:
    value: Any = config
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _num_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines that are objects; what is being written just now is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _last_row(path: Path) -> dict[str, Any]:
    rows = _rows(path)
    return rows[-1] if rows else {}


def _alive(run: Path) -> bool | None:
    """Whether the process that opened the folder last is alive; None where it is on another machine."""
    try:
        holder = json.loads((run / ".holder.json").read_text())
        host, pid = holder["host"], int(holder["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if host != socket.gethostname():
        return None
    return is_alive(pid)


def _summary_is_newest(run: Path) -> bool:
    """A summary that is older than a stage is that of a run before."""
    summary = run / "summary.json"
    stages = [path.stat().st_mtime for path in run.glob("[1-7]-*/done.json")]
    return summary.is_file() and summary.stat().st_mtime >= max(stages, default=0.0)
