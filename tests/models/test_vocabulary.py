"""Words that a closed vocabulary doesn't hold are named; a vocabulary of bytes knows everything."""

import json

from charter.cli.constitution import _folded
from charter.constitution.check import Finding, check
from charter.constitution.load import load_constitution
from charter.models.vocabulary import named, unknown_in, unknown_words
from charter.run_file import load_run
from charter.village.tokenizer import constitution_file, starter_folder

STARTER = "charter.village.tokenizer:starter_folder"


def saved(model, folder):
    from tokenizers import Tokenizer

    Tokenizer(model).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    return str(folder)


def test_the_villages_own_words_are_known_and_others_named():
    assert unknown_in(STARTER, load_constitution(constitution_file())) == []
    assert unknown_in(str(starter_folder()), load_constitution(constitution_file()), judges=True) == []
    text = "harm : do not harm the animal or the environment . animal"
    assert unknown_words(STARTER, [text]) == ["animal", "environment"]
    assert unknown_words(STARTER, ["kindness : be as warm and kind as you can ."]) == []


def test_the_villages_prompts_are_known():
    from charter.cli.run import default_run_file
    from charter.stages.inputs import gather

    inputs = gather(load_run(default_run_file()))
    prompts = [turn.content for prompt in (*inputs.prompts, *inputs.held_out) for turn in prompt.messages]
    assert len(prompts) > 1000 and unknown_words(STARTER, prompts) == []


def test_pieces_and_bytes(tmp_path):
    from tokenizers import models

    for name in ("pieces", "unigram", "bytes"):
        (tmp_path / name).mkdir()
    pieces = models.WordPiece({"[UNK]": 0, "an": 1, "##imal": 2}, unk_token="[UNK]")
    assert unknown_words(saved(pieces, tmp_path / "pieces"), ["animal an imal"]) == ["imal"]
    unigram = models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0)
    assert unknown_words(saved(unigram, tmp_path / "unigram"), ["ab abc"]) == ["abc"]
    plain = models.BPE({"a": 0}, [])
    assert unknown_words(saved(plain, tmp_path / "bytes"), ["a zebra"]) == []


def test_what_cannot_be_told_is_nothing(tmp_path):
    assert unknown_words("http://127.0.0.1:9/v1#m", ["x"]) == unknown_words("org/name", ["x"]) == []
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 3}))
    assert unknown_words(str(tmp_path), ["x"]) == []


def test_many_words_are_cut():
    assert named(["a", "b"]) == "a, b"
    assert named([str(i) for i in range(1010)]).endswith("7 and 1,002 more")


def test_principles_without_wording_share_a_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: c\nprinciples:\n" + "".join(f"- {{id: p{i}, text: be {i} and kind to all}}\n" for i in range(2))
    )
    lines = _folded([Finding("vague", ("p0",), "short"), *check(load_constitution(path))])
    assert [line for line in lines if line.startswith("wording")] == [
        "wording: 2 principles have no requests of their own, the defaults are used: p0, p1"
    ]
    assert lines[0] == "vague: short"
