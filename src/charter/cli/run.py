"""``charter run``: the whole pipeline; the same command resumes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.ending import explained, next_steps
from charter.cli.interrupt import Interrupts, interrupts, to_stderr
from charter.cli.say import aligned, figure, say

if TYPE_CHECKING:
    from charter.config import RunConfig

STOPPING = "stopping after the current step (what is done stays; Ctrl-C again ends at once)…"

POLICIES = ("initial", "sl-cai", "rl-cai")
FIGURES = ("harmful_rate", "over_refusal_rate", "correct_rate", "gold")
COUNTED = ("num_words", "distinct_2", "kl_to_sl_cai")  # known also where nobody reads the responses
NO_JUDGE = "nobody read the responses, so harm and help aren't known: set evaluate.judge, or evaluate.gold"


def default_run_file() -> Path:
    """The run file of the embedded default."""
    return Path(__file__).parents[1] / "village" / "run.yaml"


def checked(run_file: Path | None) -> Path | None:
    """The path, unless it is a folder.

    Raises:
        ConfigError: it is; the run file in it may be meant.
    """
    from charter.errors import ConfigError

    if run_file is not None and run_file.is_dir():
        inside = run_file / "run.yaml"
        hint = f"did you mean {inside}?" if inside.is_file() else "name a run file, as charter init makes one"
        raise ConfigError(f"{run_file}: a folder, not a run file: {hint}")
    return run_file


def run(
    run_file: Annotated[
        Path | None, typer.Argument(help="Run file; none: the embedded default.", metavar="[RUN.yaml]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default: runs/NAME).", metavar="DIR")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, instead of the run file's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, as policy.steps=3.", metavar="KEY=VALUE")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the result.")] = False,
) -> None:
    """Do both phases of Constitutional AI, evaluate, audit, and write a report. The same command resumes.

    Before it begins it says what is left to do, and what that may cost at most.

    \f
    JSON: run (folder), summary (the content of summary.json), verdict (of the audit), files {summary, audit, report}.
    """
    from charter.run_file import load_run

    overrides = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    config = load_run(checked(run_file) or default_run_file(), overrides)
    folder = out or Path("runs") / config.name

    with interrupts(STOPPING) as heard:
        try:
            summary, audit, page = _do(config, folder, quiet, heard)
        except KeyboardInterrupt:
            to_stderr(
                f"stopped {_where(folder)}; go on with: {shlex.join(['charter', *sys.argv[1:]])} (the same command)"
            )
            raise typer.Exit(heard.code) from None
    files = {
        "summary": str(folder / "summary.json"),
        "audit": str(folder / "8-audit" / "audit.json"),
        "report": str(page),
    }
    if as_json:
        say(json.dumps({"run": str(folder), "summary": summary, "verdict": audit["verdict"], "files": files}))
        return
    for line in [*headline(summary), "", *explained(summary), ""]:
        say(line)
    for server in summary["servers"]:
        say(f"server:  {spent(server)}")
    say(f"audit:   {audit['verdict']['says']}")
    say(f"summary: {files['summary']}")
    say(f"details: {files['audit']}")
    say(f"report:  {files['report']}")
    say(next_steps(folder))


def spent(server: dict[str, Any]) -> str:
    """What a server was asked, and what it cost."""
    money = f"money isn't known: {server['reason']}" if server["money"] is None else f"money {server['money']:,.2f}"
    tokens = f"{server['prompt_tokens']:,} tokens read, {server['completion_tokens']:,} written"
    return f"{server['source']}: {server['calls']:,} calls, {tokens}, {money}, over all attempts"


def _do(config: RunConfig, folder: Path, quiet: bool, heard: Interrupts) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """All of it: summary, audit, and where the report is."""
    from charter.audit.run import audited
    from charter.pipeline import run as run_pipeline  # loads torch, so only once the run file is known to be right
    from charter.progress import open_progress
    from charter.report.page import write_report
    from charter.store.whole import close

    with open_progress(quiet) as progress:
        heard.tell = to_stderr if quiet else progress.say
        summary = run_pipeline(config, folder, progress)
        progress.start("audit")
        audit = audited(folder)
        progress.finish("audit")
    heard.tell = to_stderr
    page = write_report(folder)
    close(folder)
    return summary, audit, page


def _where(folder: Path) -> str:
    """The stage that was stopped in words."""
    from charter.errors import CharterError
    from charter.watch import look

    try:
        left = [stage["name"] for stage in look(folder)["stages"] if stage["state"] != "done"]
    except CharterError:
        return "before the first stage"
    return f"in {left[0]}" if left else "after the last stage"


def headline(summary: dict[str, Any]) -> list[str]:
    """A small table: the policies and the figures that matter most, with 95 % intervals; without a judge, what is counted."""
    policies = {name: summary["policies"][name] for name in POLICIES if summary["policies"].get(name) is not None}
    figures = FIGURES if _is_known(policies, FIGURES) or not _is_known(policies, COUNTED) else COUNTED
    rows = [[name, *(figure(policy.get(key)) for key in figures)] for name, policy in policies.items()]
    lines = aligned([["", *figures], *rows])
    return lines if figures is FIGURES else [*lines, NO_JUDGE]


def _is_known(policies: dict[str, Any], figures: tuple[str, ...]) -> bool:
    return any((policy.get(key) or {}).get("value") is not None for policy in policies.values() for key in figures)
