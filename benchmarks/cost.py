"""Cost of a GRPO step against model size and against group size, Charter beside TRL, drawn.

    python benchmarks/cost.py [--steps 2] [--threads 1]

The same work as in benchmarks/training.py, in float32: 8 prompts a step, 8 responses each where the model grows, the 3M model
where the group grows. Seconds of a step are the median of ``--steps`` after one that warms up, of TRL and of Charter in turn.
Writes docs/cost.svg, and prints one JSON object at the end.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

import training
from charter.report.charts import Series, line_with_band
from charter.report.figures import Figure

SIZES, GROUPS = ("1M", "3M", "10M", "30M"), (2, 4, 8, 16, 32)
OUT = Path(__file__).parents[1] / "docs" / "cost.svg"
STYLE = (
    "text{fill:#24292f;font:12px sans-serif}.value{font-weight:650;fill:var(--c)}.note,.tick{fill:#667;font-size:10.5px}"
    ".grid{stroke:#dde}.line{fill:none;stroke:var(--c);stroke-width:2}.dot{fill:var(--c)}.s-rl{--c:#0a66c2}.s-sl{--c:#b4540a}"
)


def step_seconds(size: str, group: int, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of both."""
    asked = argparse.Namespace(size=size, group=group, steps=args.steps, threads=args.threads)
    figures = training.side_by_side("grpo_fp32", asked, "")
    told = {side: training.PROMPTS * group / figures[side] for side in ("charter", "trl")}
    print(size, group, {side: round(value, 2) for side, value in told.items()}, flush=True)
    return {"size": size, "group": group, **told}


def chart(key: str, title: str, rows: list[tuple[float, dict[str, Any]]], x_name: str) -> Markup:
    series = [
        Series(name, [(x, Figure(row[side])) for x, row in rows], style)
        for name, side, style in (("Charter", "charter", "rl"), ("TRL", "trl", "sl"))
    ]
    return line_with_band(key, title, series, x_name, "number")


def draw(by_size: list[dict[str, Any]], by_group: list[dict[str, Any]]) -> None:
    """Both charts side by side."""
    charts = [
        chart("size", "Seconds of a step by model size", [(float(r["size"][:-1]), r) for r in by_size], "million parameters"),
        chart("group", "Seconds of a step by group size", [(float(r["group"]), r) for r in by_group], "responses to a prompt"),
    ]  # fmt: skip
    placed = [
        str(one).replace("<svg", f'<svg x="{10 + 330 * i}" y="24" width="300" height="190"', 1)
        for i, one in enumerate(charts)
    ]
    titles = [
        f'<text x="{54 + 330 * i}" y="16" class="note">seconds of a GRPO step by {what}</text>'
        for i, what in enumerate(("model size", "group size"))
    ]
    body = "".join([f"<style>{STYLE}</style>", *titles, *map(str, placed)])
    OUT.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 670 225">{body}</svg>\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    by_size = [step_seconds(size, training.GROUP, args) for size in SIZES]
    by_group = [step_seconds("3M", group, args) for group in GROUPS if group != training.GROUP]
    by_group = sorted([*by_group, by_size[1]], key=lambda row: row["group"])
    draw(by_size, by_group)
    print(json.dumps({"by_size": by_size, "by_group": by_group, "threads": args.threads}))


if __name__ == "__main__":
    main()
