"""Mistakes that people make in these formulas, planted one by one: each must turn the named test red.

A symmetry alone passes with the sign flipped; this list shows that our tests don't.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = "charter.objectives"
MUTATIONS = [
    # module, what it says, what it is made to say, test file, test that turns red
    ("bradley_terry", "reward_a_B - reward_b_B - margin_B", "reward_b_B - reward_a_B - margin_B", "bradley_terry", "test_literal"),
    ("bradley_terry", "- margin_B", "+ margin_B", "bradley_terry", "test_literal"),
    ("bradley_terry", "(1 - p_a_B) *", "(p_a_B) *", "bradley_terry", "test_oracle_plain_loop"),
    ("bradley_terry", "return -(p_a_B", "return (p_a_B", "bradley_terry", "test_gradient_raises_the_preferred"),
    ("bradley_terry", "(reward_a_B + reward_b_B) ** 2", "(reward_a_B - reward_b_B) ** 2", "bradley_terry", "test_literal"),
    ("dpo", "logprob_B - reference_logprob_B", "reference_logprob_B - logprob_B", "dpo", "test_gradient_raises_the_preferred"),
    ("dpo", "logprob_B - reference_logprob_B)", "logprob_B)", "dpo", "test_at_the_reference_every_label_costs_ln_2"),
    ("dpo", "beta * (", "(", "dpo", "test_literal"),
    ("advantage", "count_P1 - 1).clamp(min=1)\n    return centred_PG / ", "count_P1).clamp(min=1)\n    return centred_PG / ", "advantage", "test_literals"),
    ("advantage", "centred_PG * count_P1 / (count_P1 - 1)", "centred_PG * (count_P1 - 1) / count_P1", "advantage", "test_literals"),
    ("advantage", "reward_PG - mean_P1", "reward_PG + mean_P1", "advantage", "test_group_oracle_plain_loop"),
    ("advantage", "reward_PG = reward_PG.masked_fill(~valid_PG, 0.0)", "pass", "advantage", "test_group_oracle_plain_loop"),
    ("advantage", "gamma * next_value_B - value", "gamma * next_value_B + value", "advantage", "test_gae_literal"),
    ("advantage", "gamma * lam * following_B", "lam * following_B", "advantage", "test_gae_oracle_sum_of_discounted_errors"),
    ("advantage", "values_BT - mean)", "values_BT - mean + mean)", "advantage", "test_whiten"),
    ("ppo", "-torch.minimum(ratio", "torch.minimum(ratio", "ppo", "test_policy_literals"),
    ("ppo", "torch.minimum(ratio", "torch.maximum(ratio", "ppo", "test_policy_literals"),
    ("ppo", "return -torch.minimum(ratio_BT * advantage_BT, clipped", "return -(clipped_BT * advantage_BT) - 0 * (clipped", "ppo", "test_oracle_plain_loop"),
    ("ppo", "clamp(1 - clip, 1 + clip)", "clamp(1 - clip, None)", "ppo", "test_oracle_plain_loop"),
    ("ppo", "0.5 * torch.maximum", "0.5 * torch.minimum", "ppo", "test_value_literals"),
    ("ppo", "0.5 * torch.maximum", "torch.maximum", "ppo", "test_value_literals"),
    ("kl", "return logprobs_BT - reference_logprobs_BT", "return reference_logprobs_BT - logprobs_BT", "kl", "test_literals"),
    ("kl", "reference_logprobs_BT - logprobs_BT\n", "logprobs_BT - reference_logprobs_BT\n", "kl", "test_oracle_expectation_under_the_policy_is_the_exact_kl"),
    ("kl", "torch.exp(logprobs_BT - old_logprobs_BT) * ", "", "kl", "test_gradient_of_the_loss_is_that_of_the_exact_kl"),
    ("kl", "reference_logprobs_BT).detach()", "reference_logprobs_BT)", "kl", "test_gradient_signs_and_gradcheck"),
    ("kl", "return torch.exp(logprobs_BT - old_logprobs_BT) * kl_k1(", "return kl_k1(", "kl", "test_literals"),
    ("kl", "max(-MAX_RELATIVE_ERROR, min(MAX_RELATIVE_ERROR, kl / target - 1))", "kl / target - 1", "kl", "test_adaptive_coefficient"),
    ("kl", "kl / target - 1", "1 - kl / target", "kl", "test_adaptive_coefficient"),
    ("entropy", "-(logprobs_NV.exp()", "(logprobs_NV.exp()", "sft", "test_literals"),
    ("entropy", "logprobs_NV.clamp(min=lowest)", "logprobs_NV", "sft", "test_literals"),
    ("entropy", "return torch.exp(logprobs_BT", "return -torch.exp(logprobs_BT", "sft", "test_the_entropy_bonus_has_value_and_gradient_of_the_entropy"),
    ("entropy", "torch.exp(logprobs_BT - old_logprobs_BT)", "torch.exp(old_logprobs_BT - logprobs_BT)", "sft", "test_the_entropy_bonus_has_value_and_gradient_of_the_entropy"),
    ("sft", "return -masked", "return masked", "sft", "test_gradient_raises_the_target"),
    ("reduce", "values_BT.masked_fill(~mask_BT, 0.0)", "values_BT", "sft", "test_oracle_cross_entropy_and_plain_loop"),
    ("reduce", "~mask_BT", "mask_BT", "sft", "test_literals"),
    ("reduce", "mask_BT) / global_count", "mask_BT) / mask_BT.sum()", "sft", "test_invariances"),
]  # fmt: skip


def load_tests(name: str) -> ModuleType:
    """The test file as a fresh module, bound to the objectives that are loaded now."""
    spec = importlib.util.spec_from_file_location(f"mutated_{name}", Path(__file__).with_name(f"test_{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(module: str, before: str, after: str) -> None:
    """Load the module with other source text; modules that are imported from now on see it."""
    origin = Path(importlib.util.find_spec(f"{PACKAGE}.{module}").origin)
    source = origin.read_text()
    assert before in source, f"{module}: {before!r} is no longer there; mend the list"
    mutated = ModuleType(f"{PACKAGE}.{module}")
    exec(compile(source.replace(before, after, 1), str(origin), "exec"), mutated.__dict__)
    sys.modules[mutated.__name__] = mutated


@pytest.fixture
def fresh_objectives():
    """Objectives are imported anew inside the test, and the old ones are put back after it."""
    package = importlib.import_module(PACKAGE)
    saved = {name: module for name, module in sys.modules.items() if name.startswith(PACKAGE)}
    attributes = dict(vars(package))
    for name in saved.keys() - {PACKAGE}:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]
    sys.modules.update(saved)
    vars(package).update(attributes)


@pytest.mark.parametrize(("module", "before", "after", "file", "red"), MUTATIONS, ids=lambda value: str(value)[:24])
def test_mutation_turns_its_test_red(fresh_objectives, module, before, after, file, red):
    plant(module, before, after)
    with pytest.raises((AssertionError, TypeError)):
        getattr(load_tests(file), red)()
