"""Revise and sample: what is asked, in which form, and that a torn run ends in the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from charter.config import ReviseConfig, SampleConfig, SftConfig
from charter.constitution.load import Constitution
from charter.models.few_shot import worked_examples
from charter.models.protocol import Generation
from charter.progress import QuietProgress
from charter.records import Conversation, Message, Principle, Prompt, ResponsePair, RevisionChain
from charter.stages import revise, sample, train_sft
from charter.stages.seeds import row_seed
from charter.store.jsonl import read_jsonl, read_rows

CONSTITUTION = Constitution(
    "t", "", tuple(Principle(f"p{i}", f"rule {i}.", f"critique {i}", f"revise {i}", "") for i in range(3))
)


class HashModel:
    """Answers with a hash of everything that may decide an answer, its batch included: a batch that changes shows."""

    name = fingerprint = "hash"

    def __init__(self) -> None:
        self.asked: list[Conversation] = []

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
    ) -> list[Generation]:
        self.asked += conversations
        batch = repr(list(conversations))
        made = []
        for conversation, seed in zip(conversations, seeds, strict=True):
            digest = hashlib.sha256(f"{conversation}{seed}{max_new_tokens}{temperature}{batch}".encode()).hexdigest()
            made.append(Generation(digest[:8], "length" if digest[0] == "0" else "stop", 10, 3))
        return made


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"id{i}", (Message("user", f"question {i}"),), harmful=i % 2 == 0) for i in range(count)]


def run_revise(folder: Path, model: HashModel, num: int = 10, **changes: object) -> dict:
    config = ReviseConfig.model_validate({"rounds": 3, "sampling": {"batch_size": 4, "max_new_tokens": 9}, **changes})
    return revise.run(
        config, folder, prompts=prompts(num), constitution=CONSTITUTION, model=model, seed=1, progress=QuietProgress()
    )


def test_the_turns_of_a_round():
    principle = CONSTITUTION.principles[1]
    answered = (Message("user", "q"), Message("assistant", "r"))
    assert [m.content for m in revise.revision_turns(answered, principle, "c")] == [
        "q",
        "r",
        "critique 1",
        "c",
        "revise 1",
    ]
    assert [m.content for m in revise.revision_turns(answered, principle, None)] == ["q", "r", "rule 1. revise 1"]
    assert [m.role for m in revise.revision_turns(answered, principle, "c")] == ["user", "assistant"] * 2 + ["user"]


def test_each_round_goes_on_from_the_last_revision_alone(tmp_path):
    model = HashModel()
    run_revise(tmp_path, model, num=1)
    chain = next(iter(read_jsonl(tmp_path / "revisions.jsonl", RevisionChain)))
    contents = [[m.content for m in conversation] for conversation in model.asked]
    assert contents[0] == ["question 0"]
    assert contents[1][1] == chain.initial_response and contents[1][2] == f"critique {chain.rounds[0].principle_id[1]}"
    assert contents[3][:2] == ["question 0", chain.rounds[0].revision]
    assert contents[5][:2] == ["question 0", chain.rounds[1].revision] and len(contents) == 7
    assert {entry.principle_id for entry in chain.rounds} == {"p0", "p1", "p2"}
    assert chain.num_tokens == 7 * 13


def test_without_critique(tmp_path):
    model = HashModel()
    run_revise(tmp_path, model, num=2, critique=False)
    assert all(
        entry.critique is None
        for chain in read_jsonl(tmp_path / "revisions.jsonl", RevisionChain)
        for entry in chain.rounds
    )
    assert len(model.asked) == 2 * 4


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 9])
def test_a_torn_revision_file_is_completed_to_the_same_bytes(tmp_path, rows):
    whole = run_revise(tmp_path / "whole", HashModel())
    expected = (tmp_path / "whole" / "revisions.jsonl").read_bytes()
    lines = expected.splitlines(keepends=True)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "revisions.jsonl").write_bytes(b"".join(lines[:rows]) + lines[rows][:17])
    model = HashModel()
    assert run_revise(tmp_path / "torn", model) == whole
    assert (tmp_path / "torn" / "revisions.jsonl").read_bytes() == expected
    assert len(model.asked) == (10 - rows // 4 * 4) * 7


def run_sample(folder: Path, model: HashModel) -> dict:
    config = SampleConfig.model_validate({"sampling": {"batch_size": 4}})
    return sample.run(config, folder, prompts=prompts(10), model=model, seed=1, progress=QuietProgress())


def test_sampled_pairs_are_resumed_to_the_same_bytes(tmp_path):
    summary = run_sample(tmp_path / "whole", HashModel())
    assert (summary["num_prompts"], summary["num_pairs"], summary["num_tokens"]) == (10, 10, 260)
    lines = (tmp_path / "whole" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "samples.jsonl").write_bytes(b"".join(lines[:6]))
    assert run_sample(tmp_path / "torn", HashModel()) == summary
    for name in ("samples.jsonl", "pairs.jsonl"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_identical_pairs_are_dropped_and_counted(tmp_path):
    class Same(HashModel):
        def generate(self, conversations, **settings):
            return [Generation("same" if "3" in c[0].content else g.text, "stop", 1, 1)
                    for c, g in zip(conversations, super().generate(conversations, **settings), strict=True)]  # fmt: skip

    summary = run_sample(tmp_path, Same())
    assert (summary["num_pairs"], summary["num_identical"]) == (9, 1)
    assert "pair-id3" not in {pair.id for pair in read_jsonl(tmp_path / "pairs.jsonl", ResponsePair)}


def test_helpful_answers_never_come_from_harmful_prompts_and_reuse_what_is_there(tmp_path):
    run_revise(tmp_path, HashModel(), num=4)
    chains = list(read_jsonl(tmp_path / "revisions.jsonl", RevisionChain))
    model = HashModel()
    train_sft.sample_helpful(
        4, tmp_path, prompts=prompts(10), chains=chains, sampling=ReviseConfig().sampling, model=model, seed=1,
        progress=QuietProgress(),
    )  # fmt: skip
    rows = [row for _, row in read_rows(tmp_path / "helpful.jsonl")]
    assert [row["prompt"]["id"] for row in rows] == ["id1", "id3", "id5", "id7"]
    assert [row["response"] for row in rows[:2]] == [chains[1].initial_response, chains[3].initial_response]
    assert len(model.asked) == 2
    helpful, spent = train_sft.read_helpful(tmp_path)
    assert spent == 26
    examples, counts = train_sft.build_dataset(SftConfig(), tmp_path, chains=chains, up_to=3, helpful=helpful, seed=1)
    assert counts["num_examples"] == len(examples) == counts["num_revisions"] + counts["num_helpful"]
    assert {row["source"] for _, row in read_rows(tmp_path / "dataset.jsonl")} == {"revision", "helpful"}


def test_helpful_answers_never_come_from_prompts_without_a_mark(tmp_path):
    unmarked = [dataclasses.replace(prompt, harmful=[True, None][i % 2]) for i, prompt in enumerate(prompts(10))]
    unmarked[8] = dataclasses.replace(unmarked[8], harmful=False)
    train_sft.sample_helpful(
        4, tmp_path, prompts=unmarked, chains=[], sampling=ReviseConfig().sampling, model=HashModel(), seed=1,
        progress=QuietProgress(),
    )  # fmt: skip
    assert [row["prompt"]["id"] for _, row in read_rows(tmp_path / "helpful.jsonl")] == ["id8"]


def test_row_seeds_differ_by_every_part():
    seeds = {row_seed(s, stage, p, r, k) for s in (0, 1) for stage in "ab" for p in "xy" for r in (0, 1) for k in "mn"}
    assert len(seeds) == 32 and all(0 <= seed < 2**63 for seed in seeds)
    assert row_seed(0, "a", "bc") != row_seed(0, "ab", "c")


def test_a_base_model_gets_worked_examples_before_critique_and_revision_but_not_before_the_response(tmp_path):
    model = HashModel()
    config = ReviseConfig.model_validate({"rounds": 1})
    revise.run(
        config,
        tmp_path,
        prompts=prompts(1),
        constitution=CONSTITUTION,
        model=model,
        seed=1,
        progress=QuietProgress(),
        few_shot=True,
    )
    response, critique, revision = model.asked
    examples = worked_examples()
    assert response == prompts(1)[0].messages
    assert critique[: len(examples)] == examples and critique[-1].content.startswith("critique ")
    assert revision[: len(examples)] == examples and revision[-1].content.startswith("revise ")
