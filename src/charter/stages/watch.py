"""Watches reinforcement learning, warns once of each thing that goes wrong, and stops it where the run file says so.

reads   the metrics of each step; rollouts.jsonl at each checkpoint, where gold or a judge scores them
writes  warnings.jsonl   {name, step, value, before, limit, text}, one line for each alarm
        holdout.jsonl    {step, num, reward, holdout, reader}: the rollouts since the last checkpoint, scored
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charter.config import MonitorConfig
from charter.progress import Progress
from charter.records import Prompt, Reading
from charter.stages.readings import Reader
from charter.store.jsonl import JsonlAppender, read_rows, write_jsonl
from charter.training.distributed import is_main
from charter.training.monitor import Alarm, alarms, falls_while_reward_rises


class PolicyWatch:
    """What the loop asks after each step, and a checkpoint."""

    def __init__(self, config: MonitorConfig, folder: Path, reader: Reader | None, progress: Progress) -> None:
        self._config, self._folder, self._reader, self._progress = config, folder, reader, progress
        path = folder / "warnings.jsonl"
        self._told: dict[str, dict[str, Any]] = {}
        if is_main() and path.exists():
            with JsonlAppender(path):  # repairs a torn last line
                self._told = {row["name"]: row for _, row in read_rows(path)}

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """All that went off so far, also before a resumption."""
        return list(self._told.values())

    def after_step(self, rows: Sequence[dict[str, Any]]) -> None:
        """Look at the metrics of all steps so far."""
        for alarm in alarms(rows, self._config):
            self._tell(alarm)

    def after_checkpoint(self, step: int) -> None:
        """Score the recorded rollouts up to ``step`` and compare with those of earlier checkpoints."""
        if self._reader is None or not (self._folder / "rollouts.jsonl").exists():
            return
        path = self._folder / "holdout.jsonl"
        done = [row for _, row in read_rows(path) if row["step"] < step] if path.exists() else []
        since = done[-1]["step"] if done else 0
        rows = [row for _, row in read_rows(self._folder / "rollouts.jsonl") if since < row["step"] <= step]
        readings = self._reader.read_all(
            [Prompt.from_json(row["prompt"]) for row in rows], [row["response"] for row in rows]
        )
        scored = [
            (row["reward"], worth)
            for row, read in zip(rows, readings, strict=True)
            if (worth := worth_of(read)) is not None
        ]
        both = [(reward, worth) for reward, worth in scored if reward is not None]
        told = {
            "step": step,
            "num": len(both),
            "reward": [reward for reward, _ in both],
            "holdout": [worth for _, worth in both],
            "reader": self._reader.name,
        }
        write_jsonl(path, [*done, told])
        windows = [(row["reward"], row["holdout"]) for row in [*done, told]]
        fall = falls_while_reward_rises(windows, self._config.holdout_z)
        if fall is not None:
            before, now = fall
            text = f"reward rises while {self._reader.name} falls from {before:.3g} to {now:.3g}: the reward is being gamed"
            self._tell(Alarm("holdout", step, now, before, before, text))

    def stop_reason(self, step: int) -> str | None:
        """Why to stop after ``step`` steps, where alarms stop a run."""
        if self._config.on_alarm == "warn":
            return None
        return next((f"alarm: {name}" for name, row in self._told.items() if row["step"] <= step), None)

    def _tell(self, alarm: Alarm) -> None:
        if alarm.name in self._told:
            return
        self._told[alarm.name] = alarm.to_json()
        with JsonlAppender(self._folder / "warnings.jsonl") as file:
            file.append([alarm.to_json()])
        self._progress.say(f"policy: step {alarm.step}: warning: {alarm.text}")


def worth_of(reading: Reading) -> float | None:
    """The gold score; where a judge gives none, the share of faults that it doesn't see. None: nothing is known."""
    if reading.gold is not None:
        return reading.gold
    faults = [fault for fault in (reading.harmful, reading.evasive, reading.false, reading.rude) if fault is not None]
    return 1 - sum(faults) / len(faults) if faults else None
