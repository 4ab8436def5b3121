"""``charter``: the commands, and how their errors reach the user: one line on standard error, exit code 2."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from typing import Annotated

import typer

from charter.cli import (
    audit,
    chat,
    compare,
    constitution,
    doctor,
    export,
    induce,
    init,
    labeler,
    plan,
    push,
    rate,
    report,
    run,
    schema,
    show,
    train_reward,
    verify,
    village,
    watch,
)
from charter.errors import CharterError
from charter.safe_text import safe_text

BAD_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
app = typer.Typer(
    name="charter",
    help="Constitutional AI and RLAIF, from a written constitution to an audited model.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        from charter.source import version

        typer.echo(f"charter {version()}")
        raise typer.Exit


@app.callback()
def _charter(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show version and hash of the source."),
    ] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("init")(init.init)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.command("watch")(watch.watch)
app.command("chat")(chat.chat)
app.command("report")(report.report)
app.command("show")(show.show)
app.command("audit")(audit.audit)
app.command("export")(export.export)
app.command("push")(push.push)
app.command("compare")(compare.compare)
app.command("train-reward")(train_reward.train_reward)
app.command("rate")(rate.rate)
constitution.app.command("induce")(induce.induce)
app.add_typer(constitution.app, name="constitution")
app.add_typer(labeler.app, name="labeler")
app.add_typer(village.app, name="village")


def _say_whole_sentences(app: typer.Typer) -> None:
    """The list of commands gives the first sentence of each, which is else cut to fit the line."""
    for command in app.registered_commands:
        text = " ".join((inspect.getdoc(command.callback) or "").split("\n\n")[0].split())
        command.short_help = re.split(r"(?<=[.?!]) ", text)[0]
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.short_help = group.typer_instance.info.help
            _say_whole_sentences(group.typer_instance)


_say_whole_sentences(app)


def main() -> None:
    """Run the command line. Interrupted: exit code 130."""
    if sys.argv[1:2] == ["help"]:
        sys.argv[1:] = [*sys.argv[2:], "--help"]  # charter help run: charter run --help
    if "" in sys.argv[1:]:
        _stop("an argument is empty, as of a shell variable that isn't set: see charter --help", 2)
    try:
        code = app(prog_name="charter", standalone_mode=False)
    except CharterError as error:
        _stop(str(error), error.exit_code)
    except typer.Abort:
        _stop("stopped", 1)
    except Exception as error:
        says = _about_the_call(error) or _about_a_file(error)
        if says is None:
            raise
        _stop(says, 2)
    sys.exit(code if isinstance(code, int) else 0)


def _about_the_call(error: Exception) -> str | None:
    """What is wrong about what was typed, as the command line's library (click, or typer's own copy of it) tells it."""
    if not hasattr(error, "format_message"):
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        sys.exit(2)
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "charter"
    return f"{error.format_message().rstrip('.')}: see {where} --help"


def _about_a_file(error: Exception) -> str | None:
    """A full disk, or a path that nobody could open."""
    fault = _disk_fault(error)
    if fault is not None:
        return f"{fault} and run the same command again, it goes on where it stopped"
    if isinstance(error, OSError) and error.errno in BAD_PATH and error.filename is not None:
        return f"{str(error.filename)[:100]}: {error.strerror}: check the path"
    return None


def _disk_fault(error: Exception) -> str | None:
    """What to say of a disk that is full or broken, whichever library met it; None: it is another error."""
    from charter.store.disk import disk_fault

    number = disk_fault(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return "no space left on the disk: free some"
    if number in (errno.EIO, errno.EROFS):
        return f"{os.strerror(number).lower()}: check the disk"
    return None


def _stop(message: str, code: int) -> None:
    print("charter: " + " ".join(safe_text(message).split()), file=sys.stderr)
    sys.exit(code)
