"""Where the KL penalty stands, and how it is estimated: the run file's words made into terms of reward and loss.

In the loss each token answers for its own KL; in the reward for that of all tokens after it too (Ziegler et al. 2019,
arXiv:1909.08593, section 2.1).

Axes: R = responses, T = response tokens.
"""

from __future__ import annotations

from torch import Tensor

from charter.config import PolicyConfig
from charter.objectives.entropy import negative_entropy_loss
from charter.objectives.kl import kl_k1, kl_k1_loss, kl_k3, kl_k3_loss

ESTIMATORS = {"k1": kl_k1, "k3": kl_k3}
LOSSES = {"k1": kl_k1_loss, "k3": kl_k3_loss}


def penalised_in(config: PolicyConfig) -> str:
    """ "loss" or "reward"."""
    return config.kl_in or ("reward" if config.algorithm == "ppo" else "loss")


def reward_penalty(config: PolicyConfig, logprobs_RT: Tensor, reference_RT: Tensor) -> Tensor | None:
    """float[R, T]: what each token costs of the reward; None where the penalty stands in the loss, or there is none."""
    if penalised_in(config) != "reward" or not config.kl_coef:
        return None
    return config.kl_coef * ESTIMATORS[config.kl_estimator or "k1"](logprobs_RT, reference_RT)


def loss_penalty(config: PolicyConfig, logprobs_RT: Tensor, old_RT: Tensor, reference_RT: Tensor) -> Tensor | float:
    """float[R, T] to add to the loss: the KL penalty where it stands there, less the entropy bonus."""
    total: Tensor | float = 0.0
    if penalised_in(config) == "loss" and config.kl_coef:
        total = config.kl_coef * LOSSES[config.kl_estimator or "k3"](logprobs_RT, old_RT, reference_RT)
    if config.entropy_coef:
        total = total + config.entropy_coef * negative_entropy_loss(logprobs_RT, old_RT)
    return total
