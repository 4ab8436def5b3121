"""Checkpoints: what was saved comes back bit for bit; half of one is never seen; a bad one is never written."""

import pytest
import torch

from charter.errors import StoreError, TrainingError
from charter.training import checkpoint as module
from charter.training.optimise import Trainer

from .tiny import assert_same, make_model, weights


def trainer_of(model, folder, settings="same", num_steps=10, **more):
    return Trainer(
        model, folder, num_steps=num_steps, learning_rate=1e-2, warmup_fraction=0.2, settings=[settings], **more
    )


def one_step(trainer, factor=1.0):
    ids = torch.randint(2, 40, (2, 6))
    loss = factor * trainer.model(input_ids=ids, labels=ids).loss
    loss.backward()
    return trainer.update(loss.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_bitwise_the_same(tmp_path, dtype):
    torch.manual_seed(3)
    trainer = trainer_of(make_model(dtype=dtype), tmp_path)
    torch.manual_seed(4)
    for _ in range(3):
        one_step(trainer)
    trainer.checkpoint()
    for _ in range(2):
        one_step(trainer)
    torch.manual_seed(99)  # another process
    resumed = trainer_of(make_model(seed=7, dtype=dtype), tmp_path)
    assert resumed.step == 3
    for _ in range(2):
        one_step(resumed)
    assert_same(weights(trainer.model), weights(resumed.model))
    assert weights(resumed.model)["model.embed_tokens.weight"].dtype == dtype


def test_two_are_kept_and_the_newest_counts(tmp_path):
    trainer = trainer_of(make_model(), tmp_path)
    for _ in range(4):
        one_step(trainer)
        trainer.checkpoint()
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == ["step-00000003", "step-00000004"]
    assert trainer_of(make_model(), tmp_path).step == 4


def test_half_a_checkpoint_is_never_seen(tmp_path, monkeypatch):
    trainer = trainer_of(make_model(), tmp_path)
    one_step(trainer)
    trainer.checkpoint()
    one_step(trainer)

    def torn(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_optimizer_tensors", torn)
    with pytest.raises(StoreError, match="free some space"):
        trainer.checkpoint()
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["step-00000001"]
    assert trainer_of(make_model(), tmp_path).step == 1
    (tmp_path / "checkpoint" / ".draft-00000002").mkdir()  # what kill -9 leaves
    assert trainer_of(make_model(), tmp_path).step == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    trainer = trainer_of(make_model(), tmp_path)
    one_step(trainer)
    trainer.checkpoint()
    with pytest.raises(TrainingError, match="other settings"):
        trainer_of(make_model(), tmp_path, settings="another learning rate")


def test_nan_stops_before_the_weights_and_names_the_remedy(tmp_path):
    trainer = trainer_of(make_model(), tmp_path)
    one_step(trainer)
    trainer.checkpoint()
    before = weights(trainer.model)
    with pytest.raises(TrainingError, match="lower the learning rate") as stop:
        one_step(trainer, factor=float("nan"))
    assert str(tmp_path / "checkpoint") in str(stop.value) and "\n" not in str(stop.value)
    assert_same(before, weights(trainer.model))
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = float("inf")
    trainer.step += 1
    with pytest.raises(TrainingError, match="not finite"):
        trainer.checkpoint()
    assert trainer_of(make_model(), tmp_path).step == 1


def test_metrics_of_updates_to_be_done_again_are_dropped(tmp_path):
    trainer = trainer_of(make_model(), tmp_path)
    for step in (1, 2, 3):
        one_step(trainer)
        trainer.log({"step": step})
        if step == 2:
            trainer.checkpoint()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # torn by a crash
    assert trainer_of(make_model(), tmp_path).rows() == [{"step": 1}, {"step": 2}]


def test_learning_rate_warms_up_and_decays(tmp_path):
    trainer = trainer_of(make_model(), tmp_path, num_steps=10)
    rates = []
    for step in range(10):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates[:3] == pytest.approx([0.5e-2, 0.9e-2, 0.8e-2]) and rates[-1] == pytest.approx(0.1e-2)
    flat = trainer_of(make_model(), tmp_path / "flat", decay=False)
    flat.step = 9
    assert flat.learning_rate() == 1e-2


def test_bfloat16_learns_from_updates_smaller_than_its_rounding(tmp_path):
    """One update of 1e-4 on weights near 1 rounds away; fifty of them must not."""
    model = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.ones_(model.weight)
    trainer = Trainer(model, tmp_path, num_steps=50, learning_rate=1e-4, warmup_fraction=0, settings=[], decay=False)
    for _ in range(50):
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        trainer.update(1.0)
    assert model.weight.item() < 1
