"""An auditor's view of a finished run: what was changed by hand is found, with files.json or without."""

import json
import shutil

import pytest

from charter.audit.run import audited, write_audit
from charter.report.page import write_report
from charter.source import source_hash
from charter.store.ledger import Ledger
from charter.store.whole import close, rewriting
from charter.verification import verify_run


@pytest.fixture(scope="module")
def finished(whole, tmp_path_factory):
    """The tiny run with audit, report and files.json, as the command leaves it."""
    run = tmp_path_factory.mktemp("verified") / "run"
    shutil.copytree(whole, run)
    write_audit(run)
    write_report(run)
    close(run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def _edit(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def _forge_rate(told):
    told["policies"]["rl-cai"]["num_words"]["value"] = 3.5


def test_a_finished_run_verifies(charter, run):
    found = verify_run(run)
    assert (found.num_stages, found.faults, found.unverified) == (8, [], [])
    told = json.loads((run / "summary.json").read_text())["source"]
    assert told == source_hash() == json.loads((run / "8-audit" / "audit.json").read_text())["source"]
    assert f"(source {told})" in (run / "report.html").read_text()
    code, out, _ = charter("verify", run)
    assert code == 0 and "8 stages are as they were written" in out


def test_without_the_list_the_rest_is_named_and_the_exit_code_tells(charter, run):
    (run / "files.json").unlink()
    code, out, _ = charter("verify", run, "--json")
    told = json.loads(out)
    assert code == 3 and told["faults"] == []
    assert {"constitution.yaml", "run.yaml", "report.html", "summary.json", "8-audit/audit.json"} <= set(
        told["unverified"]
    )
    (run / "sitecustomize.py").write_text("")
    code, out, _ = charter("verify", run)
    assert (
        code == 3
        and "\nsitecustomize.py: unknown" in out
        and "not checked" in out
        and "constitution.yaml" in out
        and "report.html" in out
    )


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda run: _edit(run / "summary.json", _forge_rate), "summary.json: policies.rl-cai.num_words isn't what"),
        (lambda run: _edit(run / "summary.json", lambda s: s["labeler"].update(coverage=None)), "labeler.coverage"),
        (lambda run: _edit(run / "summary.json", lambda s: s["stages"][0].update(wall_seconds=0)), "stages.1-revise"),
        (lambda run: _edit(run / "summary.json", lambda s: s["policies"].pop("sl-cai")), "sl-cai is left out"),
        (lambda run: _edit(run / "inputs.json", lambda i: i.pop("constitution")), "inputs.json: missing, or without"),
        (
            lambda run: (run / "constitution.yaml").write_text(
                (run / "constitution.yaml").read_text().replace("be kind", "be blunt")
            ),
            "constitution.yaml: its hash is",
        ),
        (lambda run: shutil.rmtree(run / "4-label"), "4-label/done.json: missing, though"),
        (lambda run: (run / "6-policy" / "done.json").unlink(), "6-policy/done.json: missing, though 7-evaluate"),
    ],
)
def test_what_can_still_be_checked_is(charter, run, forge, says):
    (run / "files.json").unlink()
    forge(run)
    code, out, _ = charter("verify", run)
    assert code == 1 and says in out and "not checked" in out


def test_the_report_says_that_the_folder_does_not_verify(charter, run):
    code, _, err = charter("report", run)
    assert (code, err) == (0, "") and "not verify" not in (run / "report.html").read_text()
    _edit(run / "summary.json", _forge_rate)
    code, _, err = charter("report", run)
    assert code == 0 and err.count("\n") == 1 and "summary.json: content changed" in err
    assert (
        "does not verify" in (run / "report.html").read_text() and "summary.json" in (run / "report.html").read_text()
    )
    code, out, _ = charter("verify", run)
    assert code == 1 and out.splitlines() == ["summary.json: content changed since the run was finished"]

    (run / "files.json").unlink()
    code, _, err = charter("report", run)
    assert "summary.json: policies.rl-cai.num_words" in err and "does not verify" in (run / "report.html").read_text()


def test_the_report_of_a_run_without_its_list_says_so(charter, run):
    (run / "files.json").unlink()
    code, _, err = charter("report", run)
    assert code == 0 and err.count("\n") == 1 and "files.json" in err and "summary.json" in err


def test_an_audit_keeps_the_one_that_says_otherwise(charter, run):
    before, now = run / "8-audit" / "audit.before.json", run / "8-audit" / "audit.json"
    code, out, err = charter("audit", run)
    assert (code, err) == (0, "") and not before.exists() and "otherwise" not in out  # the same but for its seconds
    honest = json.loads(now.read_text())
    _edit(now, lambda told: told["labels"]["position"]["order_gap"].update(value=9.125, low=None))
    forged = now.read_bytes()
    code, out, _ = charter("audit", run)
    assert code == 0 and "labeler's order gap: 9.125 before, " in out and before.read_bytes() == forged
    assert json.loads(now.read_text())["labels"] == honest["labels"]
    # the hash that the author's audit ought to have goes along with it
    assert verify_run(run).faults == ["8-audit/audit.before.json: content changed since the run was finished"]

    # charter run makes the audit anew after other code made it, and keeps what that said
    before.unlink()
    _edit(now, lambda told: told.update(source="0" * 10, seed=99))
    assert audited(run)["labels"] == honest["labels"] and json.loads(before.read_text())["seed"] == 99
    before.write_bytes(forged)

    now.write_text("{")
    code, out, err = charter("audit", run, "--json")
    assert code == 0 and json.loads(out)["labels"] == honest["labels"] and "can't be read" in err
    assert before.read_bytes() == forged


def test_exports_and_new_answers_are_no_faults(charter, run):
    assert charter("export", run, "--to", "trl")[0] == 0
    assert verify_run(run).faults == []
    exported = next((run / "export" / "trl").glob("*.jsonl"))
    exported.write_text("{}\n")
    assert [line.split(":")[0] for line in verify_run(run).faults] == [exported.relative_to(run).as_posix()]
    shutil.rmtree(run / "export")
    assert verify_run(run).faults == []
    with rewriting(run, "ledger.sqlite"), Ledger(run / "ledger.sqlite") as ledger:
        ledger.put_many({"question": {"answer": 1}})
    assert verify_run(run).faults == []
    (run / "ledger.sqlite").write_bytes((run / "ledger.sqlite").read_bytes() + b"x")
    with rewriting(run, "ledger.sqlite"):
        pass
    assert verify_run(run).faults == ["ledger.sqlite: content changed since the run was finished"]
