"""JSON Schema of run files and constitutions: the committed copies are the program's, and they tell right from wrong."""

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from charter.cli.main import app
from charter.cli.run import default_run_file
from charter.cli.schema import schema_text

ROOT = Path(__file__).parents[2]


def _read(path):
    return YAML(typ="safe").load(path.read_text())


@pytest.mark.parametrize("kind", ["run", "constitution"])
def test_the_committed_copy_is_what_the_command_prints(kind):
    printed = CliRunner().invoke(app, ["schema", kind])
    committed = (ROOT / "docs" / "schema" / f"{kind}.json").read_text()
    assert printed.exit_code == 0 and printed.output == committed, f"charter schema {kind} > docs/schema/{kind}.json"


def _validator(kind):
    schema = json.loads(schema_text(kind))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_it_takes_what_loads_and_refuses_what_does_not(tmp_path):
    run, constitution = _validator("run"), _validator("constitution")
    CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    for path in (default_run_file(), tmp_path / "new" / "run.yaml"):
        assert run.is_valid(_read(path)), path
    good = _read(default_run_file())
    assert not run.is_valid({**good, "policy": {**good["policy"], "stepz": 3}})
    assert not run.is_valid({**good, "seed": -1})
    assert not run.is_valid({**good, "label": {"labeler": {"kind": "constitutionl", "model": {"source": "x"}}}})
    for path in (ROOT / "src" / "charter" / "constitutions").glob("*.yaml"):
        assert constitution.is_valid(_read(path)), path
    assert not constitution.is_valid({"name": "x", "principles": []})


def test_the_run_file_of_init_points_at_a_schema_that_is_there(tmp_path):
    CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    first = (tmp_path / "new" / "run.yaml").read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (tmp_path / "new" / named).read_text() == schema_text("run")
