"""A stage that trained is never trained again, whenever it is killed; weights that aren't finite are never saved."""

import pytest
import torch

from charter.errors import ModelError, TrainingError
from charter.progress import QuietProgress
from charter.stages.keyed import do_stage, stage_key
from charter.stages.saved import save_model
from charter.store.folder import RunFolder, StageFolder, verify


def test_a_key_goes_by_content_and_not_by_place(tmp_path):
    def key(folder, words="a", source="model", hub="org/name"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "known.jsonl").write_text(words)
        labeler = {"members": [{"model": {"source": str(tmp_path / folder / source)}}, {"model": {"source": hub}}]}
        check = {"pairs": str(tmp_path / folder / "known.jsonl")}
        return stage_key("4-label", {"config": {"labeler": labeler, "check": check}, "labeler": "hash of the models"})

    assert key("here") == key("there") == key("there", source="model-2")  # its hash stands beside
    assert len({key("here"), key("here", words="b"), key("here", hub="org/other")}) == 3


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@pytest.mark.parametrize("moment", ["before the model is saved", "while the stage is closed"])
def test_checkpoints_stay_until_the_stage_is_closed(tmp_path, monkeypatch, moment):
    found = []

    def work(path):
        checkpoint = path / "members" / "2" / "checkpoint" / "step-00000001"
        found.append(checkpoint.is_dir())
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "state.json").write_text("{}")
        if len(found) == 1 and moment == "before the model is saved":
            raise Killed
        return {}

    def killed(*_):
        raise Killed

    with RunFolder.open(tmp_path / "run") as folder:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            if moment == "while the stage is closed":
                patch.setattr(StageFolder, "finish", killed)
            do_stage(folder, "5-reward", {}, work, QuietProgress())
        do_stage(folder, "5-reward", {}, work, QuietProgress())
        assert do_stage(folder, "5-reward", {}, work, QuietProgress()) and found == [False, True]
    left = [path.name for path in (tmp_path / "run" / "5-reward").rglob("*") if "checkpoint" in path.name]
    assert left == [] and verify(tmp_path / "run") == []


def test_a_full_device_is_told_in_one_line_and_what_is_done_stays(tmp_path):
    def work(path):
        if (path / "rows.jsonl").exists():
            return {}
        (path / "rows.jsonl").touch()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with RunFolder.open(tmp_path / "run") as folder:
        with pytest.raises(ModelError, match="2-sft: the device is out of memory: .*lower tokens_per_forward") as stop:
            do_stage(folder, "2-sft", {}, work, QuietProgress())
        assert "\n" not in str(stop.value)
        assert do_stage(folder, "2-sft", {}, work, QuietProgress())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="weight bias is not finite.*isn't written.*learning rate"):
        save_model(model, None, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
