"""Cards of hostile runs, folders for Hugging Face, and pushes to a stand-in of the Hub's API (not to the Hub itself)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.export.hub_server import TOKEN, hub
from typer.testing import CliRunner

from charter.cli.main import app
from charter.errors import ConfigError, StoreError
from charter.export.cards import dataset_card, model_card
from charter.export.evidence import is_hub_id, read_evidence
from charter.export.hub import check_repo, model_files
from charter.export.markdown import block, code, table
from charter.records import Message, PreferencePair, Prompt
from charter.store.folder import StageFolder
from charter.store.jsonl import write_json, write_jsonl

HOSTILE = (
    "</code>`` | x |\n---\nlicense: mit\n---\n# Forged\n```\n<script>alert(1)</script> [go](http://evil.example) "
    "![i](http://evil.example/x) http://evil.example \x1b[2J\u202e\ud800 | --- | mail@evil.example"
)


def _figure(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 1234, "reason": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "run"
    write_json(folder / "starter" / "x.json", {})
    text = json.dumps(HOSTILE.replace("\ud800", "").replace("\x1b", "\\e"))
    (folder / "run.yaml").write_text(
        f"name: hostile\nconstitution: constitution.yaml\nmodel: {{source: {folder / 'starter'}}}\n"
        "prompts: {source: prompts.jsonl}\npolicy: {steps: 5}\nevaluate: {prompts: {source: prompts.jsonl}}\n"
        f"label: {{labeler: {{model: {{source: {folder / 'starter'}}}}}}}\n"
    )
    (folder / "prompts.jsonl").write_text('{"prompt": "hello there"}\n')
    (folder / "constitution.yaml").write_text(f"name: {text}\nprinciples:\n  - id: harm\n    text: {text}\n")
    says = {"says": HOSTILE, "link": HOSTILE, "kind": HOSTILE, "size": {"value": None, "reason": HOSTILE}}
    check = {"verdict": {"fitness": HOSTILE, "unfit": [], "warnings": [HOSTILE]}}
    summary = {
        "charter": HOSTILE,
        "gold": {"name": HOSTILE, "simulated": True},
        "reader": HOSTILE,
        "labeler": {"gold_agreement": _figure(0.75), "check": check},
        "policies": {"rl-cai": {"over_refusal_rate": _figure(0.25), "kl_to_sl_cai": _figure(2.5)}},
        "reward_model": {"baselines": {HOSTILE: _figure(0.5)}},
        "hashes": {"constitution": "ab" * 32, "judge": None},
    }
    write_json(folder / "summary.json", summary)
    write_json(
        folder / "8-audit" / "audit.json", {"verdict": says, "findings": [says], "policy": {"gold_peak": HOSTILE}}
    )
    pair = PreferencePair(
        "pair", Prompt("p", (Message("user", HOSTILE),)), "one", HOSTILE, 0.9, ("harm",), "/home/me/judge"
    )
    for name in ("4-label", "6-policy"):
        (folder / name / "model").mkdir(parents=True)
    write_jsonl(folder / "4-label" / "preferences.jsonl", [pair])
    write_jsonl(folder / "4-label" / "judgments.jsonl", [])
    (folder / "6-policy" / "model" / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "6-policy" / "model" / "config.json").write_text("{}")
    for name in ("4-label", "6-policy"):
        StageFolder(folder / name).finish("key", {})
    return folder


def _kinds(markdown):
    """How often each kind of token is in a document, read as the Hub does it: CommonMark with tables."""
    found = {}
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        for part in [token, *(token.children or [])]:
            found[part.type] = found.get(part.type, 0) + 1
    return found


@settings(deadline=None, max_examples=60)
@given(st.text() | st.text(alphabet="`|\\<>[]()!-#*\n\r \u2028~&;:/@ab", max_size=40))
def test_hostile_text_stays_text(text):
    document = f"{code(text)}\n\n{table(['a', 'b'], [[code(text), code(text)], ['1', '2']])}\n\n{block(text)}\n\nend"
    found = _kinds(document)
    assert found["code_inline"] == 3 and found["fence"] == 1 and found["td_open"] == 4 and found["paragraph_open"] == 2
    assert not found.keys() & {"html_inline", "html_block", "link_open", "image", "heading_open", "hr", "em_open"}


def test_cards_of_a_hostile_run(run):
    evidence = read_evidence(run)
    cards = [
        model_card(evidence, "policy"),
        dataset_card(evidence, {"preferences.jsonl": 1}, {"preferences.jsonl": "0" * 64}, "Nothing is left out."),
    ]
    for text, reader in zip(cards, (ModelCard, DatasetCard), strict=True):
        card = reader(text)
        assert card.data.tags == ["constitutional-ai", "rlaif"] and card.data.license is None
        found = _kinds(card.text)
        assert not found.keys() & {"html_inline", "html_block", "link_open", "image", "hr"}
        assert found["heading_open"] == 7 and found["fence"] == 1
        assert (
            "0.750 (0.650 to 0.850), n 1,234" in text and "2.500 (2.400 to 2.600)" in text and "**Simulated.**" in text
        )
        assert evidence.constitution.hash in text
        assert not any(mark in text for mark in ("\x1b", "\u202e", str(run), "/home/me"))
    assert "Whether held-out prompts are training prompts too is not known." in cards[0]
    rate = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 234}
    evidence.summary["held_out"] = {
        "num_prompts": 400, "num_seen": 166, "unseen": {"rl-cai": {"harmful_rate": rate, "correct_rate": rate}}
    }  # fmt: skip
    seen = model_card(evidence, "policy")
    assert (
        "166 of the 400 held-out prompts are training prompts too" in seen and "0.100 (0.000 to 0.200), n 234" in seen
    )
    told = ModelCard(cards[0]).data.to_dict()
    assert told["library_name"] == "transformers" and told.get("base_model") is None


def test_an_unfinished_run_says_what_is_not_known(run, tmp_path):
    for name in ("run.yaml", "constitution.yaml", "prompts.jsonl"):
        (tmp_path / name).write_text((run / name).read_text())
    text = model_card(read_evidence(tmp_path), "policy")
    assert "Not audited" in text and "not known" in text and "0.000" not in text and "Simulated" not in text


def test_hf_folders_load(run, tmp_path):
    result = CliRunner().invoke(app, ["export", str(run), "--to", "hf", "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)["files"]
    assert {what: len(files) for what, files in told.items()} == {"dataset": 2, "policy": 3}
    weights = (tmp_path / "out" / "policy" / "model.safetensors").read_bytes()
    assert weights == b"weights" * 1000
    card = DatasetCard.load(tmp_path / "out" / "dataset" / "README.md")
    assert [row["data_files"] for row in card.data.configs] == ["preferences.jsonl"]


def test_a_changed_model_is_not_sent(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "6-policy" / "model" / "extra.bin").write_bytes(b"pickle")
    assert [file.name for file in model_files(copy, "policy")] == ["README.md", "config.json", "model.safetensors"]
    (copy / "6-policy" / "model" / "config.json").write_text('{"auto_map": 1}')
    with pytest.raises(StoreError, match="changed or missing"):
        model_files(copy, "policy")
    with pytest.raises(StoreError, match="no finished model"):
        model_files(copy, "reward")


def test_a_dry_run_opens_no_connection(run, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    dry = CliRunner().invoke(app, ["push", str(run), "me/model", "--dry-run"])
    assert dry.exit_code == 0 and "3 files would go to me/model (private); nothing was sent" in dry.output
    assert "7,000  model.safetensors" in dry.output


def _push(held, home, *words, token=TOKEN):
    """In a process of its own: huggingface_hub reads its settings once, when it is imported."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    env |= {
        "HF_ENDPOINT": held.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    env |= {"HF_TOKEN": token} if token else {}
    done = subprocess.run([sys.executable, "-m", "charter", "push", *words], env=env, capture_output=True, text=True)
    assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
    return done


def test_push_to_a_stand_in(run, tmp_path):
    with hub() as held:
        sent = _push(held, tmp_path, str(run), "me/model", "--json")
        assert sent.returncode == 0, sent.stderr
        told, repo = json.loads(sent.stdout), held.repos["me/model"]
        assert told["private"] is True and told["sent"] is True and repo["private"] is True
        assert repo["files"]["model.safetensors"] == b"weights" * 1000 and len(repo["files"]) == len(told["files"]) == 3
        assert repo["files"]["README.md"].startswith(b"---\n")
        data = _push(held, tmp_path, str(run), "me/data", "--what", "dataset", "--public")
        assert data.returncode == 0, data.stderr
        assert held.repos["me/data"]["private"] is False and held.repos["me/data"]["type"] == "dataset"
        assert set(held.repos["me/data"]["files"]) == {"README.md", "preferences.jsonl"}
        assert not any(TOKEN.encode() in content for repo in held.repos.values() for content in repo["files"].values())
    assert not any(TOKEN in path.read_text(errors="replace") for path in Path(tmp_path).rglob("*") if path.is_file())


def test_refusals(run, tmp_path):
    with hub() as held:
        none = _push(held, tmp_path, str(run), "me/model", token=None)
        assert none.returncode == 2 and "no Hugging Face login" in none.stderr and held.requests == []
        held.repos["me/open"] = {"private": False, "files": {}}
        public = _push(held, tmp_path, str(run), "me/open")
        assert public.returncode == 2 and "public repository" in public.stderr and held.repos["me/open"]["files"] == {}
        held.refuse = f"no, {TOKEN} \x1b[2J may not"
        refused = _push(held, tmp_path, str(run), "me/model")
        assert refused.returncode == 2 and "may not" in refused.stderr and len(refused.stderr.splitlines()) == 1
    for name in ("no-org", "a/b/c", "../x", "me/mo del", "me/x--y"):
        with pytest.raises(ConfigError, match="ORG/NAME"):
            check_repo(name)
    assert is_hub_id("org/name-1.5B") and not is_hub_id("/a/b") and not is_hub_id("./a") and not is_hub_id("a")
