"""Labels and readings that were changed on disk are laid at the files, and at no link."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from charter.audit.counting import audit_counting
from charter.audit.evidence import read_evidence
from charter.audit.figures import RECORD
from charter.audit.recorded import check_labels, check_readings, combiner
from charter.audit.run import audit_run
from charter.config import CommitteeConfig, LabelConfig
from charter.labelers.combine import combine
from charter.records import Abstention, Judgment
from charter.report.artifacts import read_run
from charter.report.counting import counting

RUN = """name: planted
constitution: constitution.yaml
model: {source: m}
prompts: {source: "worlds:prompts"}
label: {labeler: {model: {source: m}, min_log_odds: 0.3}}
evaluate: {gold: "worlds:gold", prompts: {source: "worlds:prompts"}}
"""


@pytest.fixture
def run(planted, tmp_path):
    """A run whose labels are those of its judgments by the rule of the run file."""
    world = planted.draw_world(33)
    planted.write(dataclasses.replace(world, num_prompts=30, pairs=world.pairs[:300]), tmp_path / "run")
    folder = tmp_path / "run"
    folder.joinpath("run.yaml").write_text(RUN)
    evidence = read_evidence(folder)
    weights = dict(zip(evidence.pairs.principle_ids, evidence.pairs.weights_K.tolist(), strict=True))
    by_pair = {}
    for judgment in evidence.judgments:
        by_pair.setdefault(judgment.pair_id, []).append(judgment)
    rows = [json.loads(line) for line in (folder / "4-label/preferences.jsonl").read_text().splitlines()]
    labels = {row["id"]: combine(by_pair[row["id"]], weights, 1.0, 0.3) for row in rows}
    kept = [{**row, "p_a": labels[row["id"]]} for row in rows if isinstance(labels[row["id"]], float)]
    write(folder / "4-label/preferences.jsonl", kept)
    told = {row["id"]: row["p_a"] for row in kept}
    held_out = [json.loads(line) for line in (folder / "5-reward/held_out.jsonl").read_text().splitlines()]
    write(
        folder / "5-reward/held_out.jsonl", [{**row, "p_a": told[row["id"]]} for row in held_out if row["id"] in told]
    )
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(path, how, number):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:number]:
        how(row)
    write(path, rows)


def test_what_was_not_changed_is_what_it_was_rebuilt_as(run):
    evidence, told, faults = check_labels(read_evidence(run))
    assert told["value"] == 0.0 and told["n"] > 250 and faults == []
    _, told, faults = check_readings(evidence)
    assert told["value"] == 0.0 and told["n"] == 5 * 30 and faults == []


def test_flipped_labels_are_no_fault_of_the_labeler(run):
    honest = read_evidence(run).pairs.label_P
    change(run / "4-label/preferences.jsonl", lambda row: row.update(p_a=1 - row["p_a"]), 80)
    found = audit_run(run)
    verdict = found["verdict"]
    assert verdict["link"] == RECORD and verdict["says"].startswith("80 of ")
    assert not [row for row in found["findings"] if row["kind"] == "unreliable"]
    assert np.allclose(check_labels(read_evidence(run))[0].pairs.label_P, honest, atol=1e-6, equal_nan=True)


def test_a_deleted_label_is_found(run):
    path = run / "4-label/preferences.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[3:]))
    (fault,) = check_labels(read_evidence(run))[2]
    assert fault.says.startswith("3 of ")


@pytest.mark.parametrize("forged", [{"gold": 9.0}, {"harmful": True, "rude": True}])
def test_forged_readings_are_found_and_put_right(run, forged):
    honest = [row.reading for row in read_evidence(run).policies["rl-cai"]]
    change(run / "7-evaluate/rl-cai.jsonl", lambda row: row["reading"].update(forged), 12)
    evidence, _, (fault,) = check_readings(read_evidence(run))
    assert fault.link == RECORD and "rl-cai.jsonl" in fault.says and "of 150 readings" in fault.says
    assert [row.reading for row in evidence.policies["rl-cai"]] == honest


def test_a_run_file_of_another_kind_is_told(run):
    shutil.copy(run / "run.yaml", run / "old.yaml")
    run.joinpath("run.yaml").write_text("name: planted\n")
    _, told, faults = check_labels(read_evidence(run))
    assert told["value"] is None and "run file" in told["reason"] and faults == []


def test_a_committee_is_rebuilt_from_its_members():
    model = {"source": "m"}
    config = LabelConfig.model_validate(
        {"labeler": {"kind": "committee", "method": "majority", "members": [
            {"kind": "constitutional", "principles": "none", "model": model},
            {"kind": "human", "labels": "people.jsonl"}]}}
    ).labeler  # fmt: skip
    assert isinstance(config, CommitteeConfig)
    judgments = [
        Judgment("a", None, "ab", 0.9, labeler="1 constitutional"),
        Judgment("a", None, "ab", 0.2, labeler="2 human"),
    ]
    assert combiner(config, None)(judgments) == 0.5
    assert combiner(config, None)(judgments[:1]) == 1.0
    assert combiner(config, None)([]) == Abstention.UNDECIDED


def test_what_counts_in_labels_is_told_by_principle(run):
    evidence = read_evidence(run)
    told = audit_counting(evidence)
    judged_PK = evidence.pairs.judged_PK
    counted = np.abs(judged_PK) >= 0.3
    assert (
        told["all"]["counted"]["value"] == pytest.approx(counted.mean())
        and told["all"]["counted"]["n"] == judged_PK.size
    )
    assert told["all"]["flips_counted"]["value"] < told["all"]["flips_dropped"]["value"], "doubtful ones flip"
    assert told["all"]["right_counted"]["value"] > told["all"]["right_dropped"]["value"]
    first = told["by_principle"]["harm"]
    assert first["counted"]["value"] == pytest.approx(counted[:, 0].mean())
    audit_file = run / "8-audit" / "audit.json"
    audit_file.parent.mkdir()
    audit_file.write_text(json.dumps({"labels": {"counting": told}}))
    shown = counting(read_run(run))
    assert "at least 0.3 nats count" in shown.words and "harm 3" in shown.words and "flip" in shown.words
    assert len(shown.table.rows) == 9


def test_no_threshold_of_a_run_file_that_cannot_be_read(planted, clean_run):
    assert "run file" in audit_counting(read_evidence(clean_run))["reason"]
