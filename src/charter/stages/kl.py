"""KL(policy||reference) in nats per response, estimated on responses that the policy sampled at temperature 1.

    k1 = sum over T of log p - log q              unbiased, may be negative for one response
    k3 = sum over T of q/p - 1 - (log q - log p)  unbiased, never negative, heavier tails

p is the policy, q the reference (Schulman 2020, "Approximating KL divergence"). The end-of-turn token counts where the
response ended by itself. Responses are scored as their text is encoded, which for nearly all is how they were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charter.models.local import LocalModel
from charter.records import Conversation

ROWS_PER_FORWARD = 32


@dataclass(frozen=True, slots=True)
class Spoken:
    """A conversation and the response that a policy gave; ``truncated``: it ran into the token limit."""

    conversation: Conversation
    response: str
    truncated: bool


def kl_per_response(policy: LocalModel, reference: LocalModel, spoken: Sequence[Spoken]) -> list[tuple[float, float]]:
    """(k1, k3) of each response, in nats."""
    found = []
    for start in range(0, len(spoken), ROWS_PER_FORWARD):
        batch = spoken[start : start + ROWS_PER_FORWARD]
        for p_T, q_T in zip(response_logprobs(policy, batch), response_logprobs(reference, batch), strict=True):
            difference_T = p_T - q_T
            k3_T = torch.expm1(-difference_T) + difference_T
            found.append((float(difference_T.sum()), float(k3_T.sum())))
    return found


@torch.inference_mode()
def response_logprobs(model: LocalModel, spoken: Sequence[Spoken]) -> list[Tensor]:
    """float64[T] per row: log-probabilities (nats) of the response's tokens at temperature 1."""
    prompts = [model.encode_prompt(row.conversation) for row in spoken]
    responses = [_response_ids(model, row) for row in spoken]
    length = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    ids_BL = torch.zeros(len(spoken), length, dtype=torch.long)
    mask_BL = torch.zeros(len(spoken), length, dtype=torch.long)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids = torch.tensor(prompt + response)
        ids_BL[row, : len(ids)] = ids
        mask_BL[row, : len(ids)] = 1
    device = model.model.device
    logits_BLV = model.model(input_ids=ids_BL.to(device), attention_mask=mask_BL.to(device)).logits
    found = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        # the logits at position i speak about token i + 1
        logits_TV = logits_BLV[row, len(prompt) - 1 : len(prompt) + len(response) - 1].double()
        chosen_T = torch.tensor(response, device=device, dtype=torch.long)
        found.append(logits_TV.log_softmax(-1).gather(1, chosen_T[:, None]).squeeze(1).cpu())
    return found


def _response_ids(model: LocalModel, row: Spoken) -> list[int]:
    ids = model.encode_response(row.response)
    return ids[:-1] if row.truncated else ids
