"""What can be wrong with a model folder is said in one line."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny import bpe_tokenizer, save_tiny_model

from charter.config import ModelConfig
from charter.errors import ModelError
from charter.models import budget
from charter.models.load import fingerprint, load_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("original"), "llama")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def load(source, **settings):
    return load_model(ModelConfig(source=str(source), device="cpu"), **settings)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def shard_that_is_not_there(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))


def index_of(folder):
    path = folder / "model.safetensors.index.json"
    path.write_text("{}")
    return path


def template(folder, text):
    (folder / "chat_template.jinja").write_text(text)


def cut(path, keep=300):
    path.write_bytes(path.read_bytes()[:keep])


DAMAGES = {
    "no config.json": lambda f: (f / "config.json").unlink(),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "pickled weights are refused": lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
    "config.json asks for remote code": lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "x.Y"}),
    "tokenizer_config.json asks for remote code": lambda f: edit_json(
        f / "tokenizer_config.json", auto_map={"A": "x.Y"}
    ),
    "model-2.safetensors is missing": shard_that_is_not_there,
    "Git LFS pointer": lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "safetensors header can't be read": lambda f: cut(f / "model.safetensors"),
    "can't be loaded": lambda f: cut(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 1),
    "weight_map names a file outside": lambda f: edit_json(index_of(f), weight_map={"a": "../x.safetensors"}),
    "weight_map doesn't name a file": lambda f: edit_json(index_of(f), weight_map={"a": ["x"]}),
    "num_hidden_layers 1e.09, too much": lambda f: edit_json(f / "config.json", num_hidden_layers=10**9),
    "hidden_size 1e.07, too much": lambda f: edit_json(f / "config.json", hidden_size=10**7),
    "can't be used": lambda f: edit_json(f / "generation_config.json", eos_token_id="null"),
    "look at eos_token_id": lambda f: edit_json(f / "generation_config.json", eos_token_id=10**9),
    "raises to a power": lambda f: template(f, "{{ 9**9**9 }}"),
    "has a number over 1,000,000": lambda f: template(f, "{{ 'x' * 1000 * 1000 * 10 }}"),
    "takes more than 0.2 s": lambda f: template(
        f, "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "the chat template refuses the roles user, assistant: .*no": lambda f: template(f, "{{ raise_exception('no') }}"),
    "config.json: not readable as JSON": lambda f: cut(f / "config.json", 20),
    "has NaN or infinite values": lambda f: edit_weights(f, lambda w: w["model.norm.weight"].fill_(float("nan"))),
    "are not in the file": lambda f: edit_weights(f, lambda w: w.pop("model.norm.weight")),
    "tokens and the model": lambda f: bpe_tokenizer().save_pretrained(f),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(folder, message, monkeypatch):
    monkeypatch.setattr(budget, "RENDER_SECONDS", 0.2)
    DAMAGES[message](folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "model" in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="there is no folder"):
        load("./nowhere", base_dir=tmp_path)


def test_a_gpu_that_is_not_there(original):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="no GPU"):
        load_model(ModelConfig(source=str(original), device="cuda"))


def test_sources(original, tmp_path, monkeypatch):
    shutil.copytree(original, tmp_path / "inside" / "weights")
    (tmp_path / "some_package.py").write_text(
        "from pathlib import Path\nFOLDER = Path(__file__).parent / 'inside' / 'weights'\ndef folder():\n    return FOLDER\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    expected = load(original).fingerprint
    assert load("inside/weights", base_dir=tmp_path).fingerprint == expected
    for source in ("some_package:FOLDER", "some_package:folder"):
        model = load(source)
        assert (model.name, model.fingerprint) == (source, expected)
    sys.modules.pop("some_package")


def test_precision(original):
    assert load(original).model.dtype == torch.float32
    assert load_model(ModelConfig(source=str(original), device="cpu", dtype="bfloat16")).model.dtype == torch.bfloat16


def test_fingerprint_follows_what_the_model_does(folder):
    seen = {fingerprint(folder)}
    (folder / "README.md").write_text("a card")
    assert fingerprint(folder) in seen
    for change in (
        lambda: edit_weights(folder, lambda w: w["model.norm.weight"].add_(1)),
        lambda: edit_json(folder / "config.json", rms_norm_eps=1e-5),
        lambda: (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}"),
        lambda: edit_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>"),
    ):
        change()
        assert fingerprint(folder) not in seen
        seen.add(fingerprint(folder))
