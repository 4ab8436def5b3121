"""Linear probes: can a principle be read off the hidden states of the policies and of the reward model?

For each model, layer and principle a ridge regression foretells from the state at the last token of a reply (its end of
turn) whether the gold says that the reply keeps the principle. Accuracy is held out, by five folds over prompts, and
balanced: the mean of the shares read right among kept and among broken replies, so that a coin has 0.5. The control task has
the same labels dealt to other prompts: what a probe of that size gets by fitting alone (Hewitt and Liang 2019,
arXiv:1909.03368). Selectivity is accuracy minus control. A probe shows what can be read, not what the model uses.

All models read the same replies, one to three of a prompt, from the policies before, amid and after training.

Axes: N replies, D hidden units, T targets (principles, then their controls), C controls of a principle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charter.audit.evidence import NO_GOLD, Evidence
from charter.audit.figures import figure
from charter.audit.recursive import EVALUATED, KEPT, levels_of, replies_of
from charter.audit.scoring import RewardScorer, TooMuchWork, hidden_states, load_for_reading
from charter.errors import ModelError
from charter.records import Estimate, EvaluatedResponse
from charter.regression import Array, Index, bootstrap, cluster_index
from charter.statistics import unknown

MAX_REPLIES = 400
MIN_OF_A_CLASS = 10
NUM_FOLDS = 5
NUM_CONTROLS = 20
RIDGE = 0.1  # of the variance of a standardised unit, per reply
LAYERS = ("middle", "last")


def audit_probes(evidence: Evidence, scorer: RewardScorer | None, why_no_reward: str) -> dict[str, Any]:
    """Probes of SL-CAI, RL-CAI and the reward model, as far as they are in the run folder."""
    replies = replies_of(evidence, evidence.gold) if evidence.gold else None
    principle_ids = evidence.pairs.principle_ids
    if evidence.gold is None or replies is None or not principle_ids:
        why = NO_GOLD if evidence.gold is None else f"no principle to read, or no replies in {EVALUATED}"
        return {"num_replies": 0, "models": {}, "reason": why}
    rows = chosen_replies(replies.rows)
    level_NK = np.array([levels_of(evidence.gold, row, principle_ids) for row in rows])
    index_N = cluster_index([row.prompt.id for row in rows])
    models = {}
    for name, place in (("sl-cai", "2-sft"), ("rl-cai", "6-policy"), ("reward model", "5-reward")):
        folder = evidence.folder / place / "model"
        reward = scorer if place == "5-reward" else None
        why = why_no_reward if place == "5-reward" and scorer is None else f"{place}/model isn't there"
        states = _states(folder, reward, rows) if folder.is_dir() and (reward or place != "5-reward") else why
        models[name] = _probed(states, level_NK, principle_ids, index_N, f"{place}/model on {EVALUATED}")
    return {"num_replies": len(rows), "models": models, "reason": None}


def chosen_replies(rows_SN: Sequence[Sequence[EvaluatedResponse]]) -> list[EvaluatedResponse]:
    """At most 400 replies: the policies take turns over the prompts, so that every prompt is used before any comes twice."""
    num = len(rows_SN[0])
    turns = ((i, (i + turn) % len(rows_SN)) for turn in range(len(rows_SN)) for i in range(num))
    return [rows_SN[s][i] for _, (i, s) in zip(range(MAX_REPLIES), turns, strict=False)]


def _states(folder: Path, reward: RewardScorer | None, rows: Sequence[EvaluatedResponse]) -> list[Array] | str:
    """float64[N, D] of the middle and the last layer, or the reason why not."""
    texts = [(row.prompt, row.response) for row in rows]
    try:
        if reward is not None:
            return hidden_states(reward.model, reward.encoded(texts))
        return hidden_states(*load_for_reading(folder, texts))
    except (ModelError, TooMuchWork) as reason:
        return str(reason)


def _probed(
    states: list[Array] | str, level_NK: Array, principle_ids: tuple[str, ...], index_N: Index, source: str
) -> dict[str, Any]:
    if isinstance(states, str):
        return {"layers": {}, "reason": states}
    layers = {}
    for layer, state_ND in zip(LAYERS, states, strict=True):
        told = [_target(level_NK[:, k]) for k in range(len(principle_ids))]
        layers[layer] = {
            id: probe(state_ND, target_N, index_N, source) for id, target_N in zip(principle_ids, told, strict=True)
        }
    return {"layers": layers, "reason": None}


def _target(level_N: Array) -> Array:
    """1 kept, -1 broken, NaN where the principle doesn't apply."""
    return np.where(np.isnan(level_N), np.nan, np.where(level_N >= KEPT, 1.0, -1.0))


def probe(state_ND: Array, target_N: Array, index_N: Index, source: str) -> dict[str, Any]:
    known_N = ~np.isnan(target_N)
    target_N, index_N = target_N[known_N], cluster_index(index_N[known_N].tolist())
    fewest = int(min((target_N > 0).sum(), (target_N < 0).sum()))
    if fewest < MIN_OF_A_CLASS:
        nothing = figure(unknown(f"only {fewest} replies keep it, or break it: a probe needs {MIN_OF_A_CLASS}"), source)
        return {"accuracy": nothing, "control": nothing, "selectivity": nothing}
    targets_NT = np.column_stack([target_N, *dealt(target_N, index_N)])
    right_NT = held_out_hits(state_ND[known_N], targets_NT, index_N)
    accuracy = balanced(right_NT[:, 0], target_N, index_N)
    control_C = np.array([_balanced(right_NT[:, c], targets_NT[:, c]) for c in range(1, targets_NT.shape[1])])
    low, high = (float(q) for q in np.quantile(control_C, [0.025, 0.975]))
    control = Estimate(float(control_C.mean()), low, high, len(control_C))
    return {
        "accuracy": figure(accuracy, source),
        "control": figure(control, f"{source}, labels dealt anew {NUM_CONTROLS} times"),
        "selectivity": figure(_selectivity(accuracy, control_C), source),
    }


def dealt(target_N: Array, index_N: Index) -> list[Array]:
    """The labels of every prompt given to another one, so often as there are controls; which prompt, chance says."""
    rng = np.random.default_rng(0)
    by_prompt_N, size_G = np.argsort(index_N, kind="stable"), np.bincount(index_N)
    start_G = np.cumsum(size_G) - size_G
    place_N = np.empty_like(index_N)  # of a reply among those of its prompt
    place_N[by_prompt_N] = np.arange(len(index_N)) - np.repeat(start_G, size_G)
    controls = []
    for _ in range(NUM_CONTROLS):
        donor_N = rng.permutation(len(size_G))[index_N]
        controls.append(target_N[by_prompt_N[start_G[donor_N] + place_N % size_G[donor_N]]])
    return [control_N for control_N in controls if (control_N > 0).any() and (control_N < 0).any()]


def held_out_hits(state_ND: Array, targets_NT: Array, index_N: Index) -> Array:
    """1 where a probe that never saw the prompt reads the target right, else 0; one ridge solution for all targets."""
    fold_N = np.random.default_rng(0).permutation(int(index_N.max()) + 1)[index_N] % NUM_FOLDS
    right_NT = np.zeros_like(targets_NT)
    for fold in range(NUM_FOLDS):
        train_N, test_N = fold_N != fold, fold_N == fold
        mean_D, scale_D = state_ND[train_N].mean(axis=0), state_ND[train_N].std(axis=0) + 1e-8
        train_ND, test_ND = (state_ND[train_N] - mean_D) / scale_D, (state_ND[test_N] - mean_D) / scale_D
        weights_DT = ridge(train_ND, targets_NT[train_N])
        score_NT, positive_NT = train_ND @ weights_DT, targets_NT[train_N] > 0
        # halfway between the means of the two classes: a rare class isn't drowned
        num_T = positive_NT.sum(axis=0)
        high_T = (score_NT * positive_NT).sum(axis=0) / np.maximum(1, num_T)
        low_T = (score_NT * ~positive_NT).sum(axis=0) / np.maximum(1, len(score_NT) - num_T)
        said_NT = np.where(test_ND @ weights_DT > (high_T + low_T) / 2, 1.0, -1.0)
        right_NT[test_N] = said_NT == targets_NT[test_N]
    return right_NT


def ridge(columns_ND: Array, targets_NT: Array) -> Array:
    """float64[D, T]: ridge regression of centred columns, in whichever of its two forms is the smaller system."""
    num, width = columns_ND.shape
    centred_NT = targets_NT - targets_NT.mean(axis=0)
    if width <= num:
        gram_DD = columns_ND.T @ columns_ND + RIDGE * num * np.eye(width)
        return np.asarray(np.linalg.solve(gram_DD, columns_ND.T @ centred_NT))
    gram_NN = columns_ND @ columns_ND.T + RIDGE * num * np.eye(num)
    return np.asarray(columns_ND.T @ np.linalg.solve(gram_NN, centred_NT))


def _balanced(right_N: Array, target_N: Array) -> float:
    return float((right_N[target_N > 0].mean() + right_N[target_N < 0].mean()) / 2)


def balanced(right_N: Array, target_N: Array, index_N: Index) -> Estimate:
    """Balanced accuracy with its cluster bootstrap interval, the share of each class taken as given."""
    weight_N = np.where(target_N > 0, 0.5 / (target_N > 0).mean(), 0.5 / (target_N < 0).mean())
    drawn = bootstrap((right_N - 0.5) * weight_N, index_N)
    if drawn.value is None or drawn.low is None or drawn.high is None:
        return drawn
    return Estimate(drawn.value + 0.5, max(0.0, drawn.low + 0.5), min(1.0, drawn.high + 0.5), drawn.n)


def _selectivity(accuracy: Estimate, control_C: Array) -> Estimate:
    control = float(control_C.mean())
    if accuracy.value is None or accuracy.low is None or accuracy.high is None:
        return accuracy
    unsure = 1.96 * float(control_C.std(ddof=1)) / math.sqrt(len(control_C))
    value = accuracy.value - control
    low = value - math.hypot(accuracy.value - accuracy.low, unsure)
    return Estimate(value, low, value + math.hypot(accuracy.high - accuracy.value, unsure), accuracy.n)
