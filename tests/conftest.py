"""What tests of commands share."""

import io
import sys

import pytest

from charter.cli import main as cli


@pytest.fixture
def charter(capfd, monkeypatch):
    """The program as a user calls it, with what is ``typed`` at it: (exit code, standard output, standard error)."""

    def call(*arguments, typed=""):
        monkeypatch.setattr(sys, "argv", ["charter", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        shown = capfd.readouterr()
        return int(stop.value.code or 0), shown.out, shown.err

    return call
