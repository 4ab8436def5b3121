"""The independent oracle where one exists: TRL's own loss code, run on the same random batch, agrees to 1e-5.

TRL's losses are methods of its trainers; each is called on a bare object that holds the settings which it reads.
"""

import warnings
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: pip install trl==1.16.0 to compare with its losses")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import DPOTrainer, GRPOTrainer, RewardTrainer, SFTTrainer

from charter.objectives.advantage import group_advantages
from charter.objectives.bradley_terry import bradley_terry_nll, centering_penalty
from charter.objectives.dpo import dpo_nll
from charter.objectives.entropy import entropy, token_logprobs
from charter.objectives.kl import kl_k3_loss
from charter.objectives.ppo import clipped_policy_loss
from charter.objectives.reduce import masked_mean

CLIP, BETA = 0.2, 0.07
LENGTHS = [5, 2, 4, 1, 3, 5]


@pytest.fixture
def batch():
    """Random logits, targets and a mask of six responses, in float32."""
    generator = torch.Generator().manual_seed(0)
    logits, old, reference = (torch.randn(6, 5, 11, generator=generator) for _ in range(3))
    target = torch.randint(11, (6, 5), generator=generator)
    mask = torch.tensor([[t < n for t in range(5)] for n in LENGTHS])
    return SimpleNamespace(
        logits=logits.requires_grad_(), old=logprobs(old, target), reference=logprobs(reference, target),
        target=target, mask=mask, reward=torch.randn(6, generator=generator),
    )  # fmt: skip


def logprobs(logits, target):
    return token_logprobs(logits.flatten(0, 1), target.flatten()).view(target.shape)


def bare(**settings):
    """An object with what TRL's methods read, and one process's idea of communication."""
    accelerator = SimpleNamespace(
        num_processes=1, device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x,
        parallelism_config=None,
    )  # fmt: skip
    metrics = {"eval": SimpleMetrics(), "train": SimpleMetrics()}
    return SimpleNamespace(
        accelerator=accelerator,
        model=SimpleNamespace(training=False),
        aux_loss_enabled=False,
        _metrics=metrics,
        **settings,
    )


class SimpleMetrics(dict):
    def __missing__(self, key):
        return self.setdefault(key, [])


def agree(ours, theirs, leaf):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    own, other = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, theirs))
    assert own.abs().max() > 0
    torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def test_sft_loss(batch):
    trainer = bare(compute_loss_func=None, label_smoother=None, args=SimpleNamespace(loss_type="nll", average_tokens_across_devices=False))  # fmt: skip

    def model(**_):
        label_mask = batch.mask
        found = logprobs(batch.logits, batch.target).masked_fill(~label_mask, 0)
        return SimpleNamespace(log_probs=found, label_mask=label_mask, entropy=found, is_top1=label_mask)

    trainer._total_train_tokens = 0
    theirs = SFTTrainer.compute_loss(trainer, model, {"labels": batch.target}, num_items_in_batch=20)
    agree(-masked_mean(logprobs(batch.logits, batch.target), batch.mask, 20), theirs, batch.logits)


def test_reward_loss(batch):
    rewards = batch.reward.clone().requires_grad_()
    trainer = bare(args=SimpleNamespace(center_rewards_coefficient=0.01), _total_train_tokens=0)
    margin = torch.tensor([0.5, 0.0, 0.2])
    model = lambda **_: SimpleNamespace(logits=rewards[:, None])  # noqa: E731
    theirs = RewardTrainer.compute_loss(trainer, lambda **k: model(), {"margin": margin})
    a, b = rewards.chunk(2)
    ours = bradley_terry_nll(a, b, torch.ones(3), margin) + 0.01 * centering_penalty(a, b)
    agree(ours.sum() / 3, theirs, rewards)


def test_dpo_loss(batch):
    trainer = bare(
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=0.1, loss_types=["sigmoid"],
        loss_weights=[1.0], use_weighting=False, label_smoothing=0.0, _total_train_tokens=0,
    )  # fmt: skip
    policy = logprobs(batch.logits, batch.target).masked_fill(~batch.mask, 0)
    reference = batch.reference.masked_fill(~batch.mask, 0).sum(1)
    model = lambda **_: SimpleNamespace(  # noqa: E731
        log_probs=policy, entropy=policy, is_top1=batch.mask, label_mask=batch.mask, selected_logits=policy,
        logits_sum=policy, mean_logits=policy,
    )  # fmt: skip
    first = torch.zeros(6, 1, dtype=torch.long)  # a prompt of one token
    ids, whole_mask = torch.cat([first, batch.target], 1), torch.cat([first, batch.mask], 1)
    inputs = {"input_ids": ids, "completion_mask": whole_mask, "attention_mask": whole_mask,
              "ref_chosen_logps": reference[:3], "ref_rejected_logps": reference[3:]}  # fmt: skip
    theirs = DPOTrainer._compute_loss(trainer, model, inputs, False)
    (a, b), (ref_a, ref_b) = policy.sum(1).chunk(2), reference.chunk(2)
    agree(dpo_nll(a, b, ref_a, ref_b, torch.ones(3), 0.1).mean(), theirs, batch.logits)


@pytest.mark.parametrize("kl_coef", [0.0, BETA])
def test_grpo_loss(batch, kl_coef):
    policy = logprobs(batch.logits, batch.target)
    trainer = bare(
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, policy.detach(), None), top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, importance_sampling_level="token", beta=kl_coef, loss_type="dapo",
        epsilon_low=CLIP, epsilon_high=CLIP, use_vllm=False, _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=True),
    )  # fmt: skip
    advantages = group_advantages(batch.reward.view(2, 3), torch.ones(2, 3, dtype=torch.bool)).flatten()
    inputs = {
        "prompt_ids": batch.target, "prompt_mask": batch.mask, "completion_ids": batch.target,
        "completion_mask": batch.mask.float(), "advantages": advantages, "old_per_token_logps": batch.old,
        "ref_per_token_logps": batch.reference, "num_items_in_batch": torch.tensor(20.0),
    }  # fmt: skip
    theirs = GRPOTrainer._compute_loss(trainer, None, inputs)
    ours = clipped_policy_loss(policy, batch.old, advantages[:, None], CLIP)
    ours = ours + kl_coef * kl_k3_loss(policy, batch.old, batch.reference)
    agree(masked_mean(ours, batch.mask, 20), theirs, batch.logits)


def test_entropy_and_logprobs(batch):
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    theirs = entropy_from_logits(batch.logits)
    torch.testing.assert_close(entropy(batch.logits.flatten(0, 1)).view(6, 5), theirs, atol=1e-5, rtol=1e-5)
    chosen = selective_log_softmax(batch.logits, batch.target)
    torch.testing.assert_close(logprobs(batch.logits, batch.target), chosen, atol=1e-5, rtol=1e-5)
