"""A chat template that changed by one byte on the way from the base model is named, with the difference."""

import json
import random

import pytest

from charter.models.templates import chat_templates, template_faults

TEMPLATE = "{% for m in messages %}\n<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"


@pytest.fixture
def run(tmp_path):
    for stage in ("2-sft", "6-policy"):
        (tmp_path / "run" / stage / "model").mkdir(parents=True)
        (tmp_path / "run" / stage / "model" / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return tmp_path / "run"


def test_the_same_template_in_another_file_is_the_same(run):
    assert chat_templates(run.parent / "base") == {"default": TEMPLATE}
    assert template_faults(run, run.parent / "base") == [] == template_faults(run, None)


@pytest.mark.parametrize("seed", range(20))
def test_one_byte(run, seed):
    rng = random.Random(seed)
    path = run / "6-policy" / "model" / "chat_template.jinja"
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    for base in (run.parent / "base", None):
        said = template_faults(run, base)
        assert said[0].startswith("6-policy/model: chat template 'default'"), said
        assert any(line.startswith("+") for line in said[1:]) and any(line.startswith("-") for line in said[1:])


def test_a_template_that_is_gone_or_new(run):
    (run / "2-sft" / "model" / "chat_template.jinja").unlink()
    (run / "6-policy" / "model" / "additional_chat_templates").mkdir()
    (run / "6-policy" / "model" / "additional_chat_templates" / "tool.jinja").write_text("x")
    said = [line for line in template_faults(run, run.parent / "base") if "chat template" in line]
    assert [line.split(" (")[0] for line in said] == [
        "2-sft/model: chat template 'default'",
        "6-policy/model: chat template 'tool'",
    ]
