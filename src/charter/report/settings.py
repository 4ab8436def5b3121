"""Sentences that depend on what the run file says: who labelled, what was rewarded, where the KL penalty stood.

A default that the run file leaves open (kl_in, kl_estimator) is spelled out as the training loops fill it in.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from charter.report.artifacts import UNFINISHED, Artifacts
from charter.report.figures import finite
from charter.report.sections import part

STAGE_WORDS = {
    "1-revise": "revisions",
    "4-label": "labels",
    "5-reward": "reward model",
    "6-policy": "training of the policy",
}
TOLD = {"4-label": ("labeler", "coverage"), "5-reward": ("reward_model", "label_agreement")}
"""Figures that are there once the stage is done; where they aren't known, they say why."""
OTHER_LABELERS = {
    "committee": "Several labelers were asked; their labels are combined, and each member's own is in 4-label/members.jsonl.",
    "debate": "Two debaters argued for the two responses before a frozen model decided.",
    "assisted": "A frozen model decided, with critiques of both responses before it.",
    "direct": "A frozen model scored each response on its own; the higher score is better.",
    "human": "The labels were read from a file of people’s choices; no model was asked.",
    "checker": "A program checked the responses against known answers; no model was asked.",
}
WITHOUT_CONSTITUTION = ("human", "checker", "plain")


def setting(artifacts: Artifacts, *path: str) -> dict[str, Any]:
    """A section of the run file; empty where it isn't there."""
    value = artifacts.section(*path)
    return value if isinstance(value, dict) else {}


def short_source(source: Any) -> str:
    """A hub id as it is; of a path only the last part: where it lay on somebody's disk helps nobody."""
    text = str(source or "")
    return PurePath(text).name if text.startswith(("/", ".", "~")) or "\\" in text else text


def rewards_of(artifacts: Artifacts) -> list[dict[str, Any]]:
    """The sources of reward, each ``{by, weight, domains}``; a reward model alone where the run file names none."""
    told = artifacts.section("policy", "reward")
    if isinstance(told, list):
        return [row for row in told if isinstance(row, dict)]
    return [{"by": told if isinstance(told, dict) else "reward-model"}]


def needs_labels(artifacts: Artifacts) -> bool:
    """Does this run label pairs and train a reward model?"""
    return any(row.get("by") == "reward-model" for row in rewards_of(artifacts))


def has_principles(artifacts: Artifacts) -> bool:
    """Do the labels come from the constitution?"""
    labeler = setting(artifacts, "label", "labeler")
    return labeler.get("kind") not in WITHOUT_CONSTITUTION and labeler.get("principles") != "none"


def missing(artifacts: Artifacts, stage: str, phase: str) -> str:
    """Why a section is empty."""
    phases = artifacts.summary.get("phases")
    if isinstance(phases, list) and phases and phase not in phases:
        return f"not known: phase {phase} is left out of this run"
    if stage in ("4-label", "5-reward") and not needs_labels(artifacts):
        return f"not part of this run: its reward is {reward_in_words(artifacts)}; no pairs are labelled, no reward model trained"
    words = STAGE_WORDS[stage]
    if stage in TOLD and (reason := part(artifacts.summary, *TOLD[stage]).get("reason")):
        return f"The {words} {'are' if stage == '4-label' else 'is'} in {stage}; how good isn’t known: {reason}."
    return (
        f"not known: {UNFINISHED}, there is no {words} yet"
        if not artifacts.finished
        else f"not known: no {words} in {stage}"
    )


def revision_words(artifacts: Artifacts) -> str:
    """What a round of phase 1 is."""
    if artifacts.section("revise", "critique") is False:
        return "Phase 1: the model rewrites its own response by a principle, without a critique before it."
    return "Phase 1: the model criticises its own response by a principle, then rewrites it."


def labels_by(artifacts: Artifacts) -> str:
    """Who stands behind the labels, for the list of what was simulated."""
    if not needs_labels(artifacts):
        return f"No pairs were labelled: the reward is {reward_in_words(artifacts)}."
    labeler = setting(artifacts, "label", "labeler")
    name = short_source(setting(artifacts, "label", "labeler", "model").get("source")) or "not named"
    return OTHER_LABELERS.get(
        str(labeler.get("kind")), f"The preference labels are by a model ({name}), not by people."
    )


def labeler_words(artifacts: Artifacts) -> str:
    """How labels came about."""
    settings = setting(artifacts, "label", "labeler")
    kind = str(settings.get("kind") or "constitutional")
    if kind in OTHER_LABELERS:
        return f"{OTHER_LABELERS[kind]}{_fitness(artifacts)}"
    orders = "in both orders" if settings.get("both_orders", True) else "in one order"
    number = settings.get("principles", "all")
    asked = "every principle" if number == "all" else f"{number} principles, drawn for each pair"
    by = f" by {asked}" if has_principles(artifacts) else ", with no principle named"
    if settings.get("votes"):
        how = f"The share of {settings['votes']} sampled verdicts is"
    elif settings.get("chain_of_thought"):
        how = "It reasons before its verdict; the probabilities are"
    else:
        how = "Its probabilities of the two options are"
    target = "the labels (hard ones, for TRL’s reward trainer)" if _trl(artifacts) else "the soft labels"
    return (
        f"A frozen model is asked which of two responses is better{by}, {orders}. {how} {target} that train "
        f"{'policy and reward model' if _is_dpo(artifacts) else 'the reward model'}.{_fitness(artifacts)}"
    )


def _fitness(artifacts: Artifacts) -> str:
    """What the check before labelling found."""
    verdict = part(part(part(artifacts.summary, "labeler"), "check"), "verdict")
    if not verdict:
        return ""
    why = "; ".join(str(line) for line in (*(verdict.get("unfit") or []), *(verdict.get("warnings") or [])))
    return f" Checked on pairs with a known answer it is {verdict.get('fitness')}{': ' if why else '.'}{why}{'.' if why else ''}"


def reward_words(artifacts: Artifacts) -> str:
    """What the reward model learned, and how it is judged."""
    number = int(finite(artifacts.section("reward", "ensemble")) or 1)
    who = "A Bradley-Terry reward model learns" if number == 1 else f"{number} Bradley-Terry reward models learn"
    what = "the likelier side of each label (TRL’s trainer knows no soft ones)" if _trl(artifacts) else "the labels"
    soft = "" if _trl(artifacts) else ", soft where they are soft"
    judged = "It is" if number == 1 else "The first is"
    return (
        f"{who} {what}{soft}. {judged} judged on pairs that were held out by prompt id (a text that stands under two ids can be on "
        "both sides: the audit below counts them), and beside three baselines that know nothing of meaning."
    )


def reward_in_words(artifacts: Artifacts) -> str:
    """``the reward model``, ``a check (math)``, ...: what rollouts are scored by."""
    sources = rewards_of(artifacts)
    if len(sources) == 1 and not isinstance(artifacts.section("policy", "reward"), list):
        return _source_in_words(artifacts, sources[0].get("by"))
    told = []
    for row in sources:
        domains = row.get("domains", "all")
        where = "" if domains == "all" else f" on {'the rest' if domains == 'rest' else ', '.join(map(str, domains))}"
        told.append(
            f"{_source_in_words(artifacts, row.get('by'))} (weight {finite(row.get('weight', 1.0)) or 1.0:g}{where})"
        )
    return (
        f"a mix of {', '.join(told)}, each normalised over the step"
        if len(told) > 1
        else f"{told[0]}, normalised over the step"
    )


def _source_in_words(artifacts: Artifacts, by: Any) -> str:
    number = int(finite(artifacts.section("reward", "ensemble")) or 1)
    if by == "reward-model" and number > 1:
        caution = artifacts.section("policy", "caution")
        how = "the least of them" if caution == "min" else f"their mean less {finite(caution) or 0:g} deviations"
        return f"an ensemble of {number} reward models ({how})"
    if not isinstance(by, dict):
        return "the reward model"
    if by.get("kind") == "checker":
        return f"a program’s check ({by.get('check')})"
    named = by.get("model")
    model = short_source(named.get("source")) if isinstance(named, dict) else "not named"
    return f"the scores that a frozen model ({model}) gives each response on its own (d-RLAIF)"


def policy_heading(artifacts: Artifacts) -> str:
    """What phase 2 is called."""
    return "Direct preference optimisation" if _is_dpo(artifacts) else "Reinforcement learning"


def policy_words(artifacts: Artifacts) -> str:
    """What was trained against what, and what held it back."""
    start = " It starts from the helpful model." if artifacts.section("policy", "initialise_from") == "helpful" else ""
    if _is_dpo(artifacts):
        beta = finite(artifacts.section("dpo", "beta"))
        weight = "" if beta is None else f", with beta {beta:g}"
        return (
            f"Phase 2: DPO on the labelled pairs themselves{weight}.{start} It samples nothing while it trains, and no reward "
            "model stands between: the one above was trained for the audit alone."
        )
    algorithm = str(artifacts.section("policy", "algorithm") or "").upper()
    name = f"{algorithm}{' by TRL’s trainer' if _trl(artifacts) else ''}" if algorithm else "the policy is trained"
    gamed = "Where reward rises and gold falls, the reward is being gamed."
    if not part(artifacts.summary, "gold") and artifacts.finished:
        gamed = "Without gold this page can’t tell whether the reward is being gamed."
    return f"Phase 2: {name} against {reward_in_words(artifacts)}{_penalty(artifacts)}.{start} {gamed}{_stopped(artifacts)}"


def _penalty(artifacts: Artifacts) -> str:
    settings = setting(artifacts, "policy")
    coef, target = finite(settings.get("kl_coef")), finite(settings.get("kl_target"))
    if coef is None:
        return ""
    if coef == 0 and target is None:
        return ", with no KL penalty"
    place = settings.get("kl_in") or ("reward" if settings.get("algorithm") == "ppo" else "loss")
    estimator = settings.get("kl_estimator") or ("k1" if place == "reward" else "k3")
    weight = (
        f"of weight {coef:g}"
        if target is None
        else f"that begins with weight {coef:g} and is steered to {target:g} nats"
    )
    return f", with a KL penalty {weight} (estimator {estimator}, in the {place})"


def _stopped(artifacts: Artifacts) -> str:
    """Why training ended before its last step."""
    by = str(artifacts.stage("6-policy").get("stopped_by") or "steps")
    if by == "steps":
        return ""
    steps = finite(artifacts.stage("6-policy").get("num_steps"))
    after = "" if steps is None else f" after {steps:g} steps"
    budget = finite(artifacts.section("policy", "kl_budget"))
    why = f"the KL budget of {budget:g} nats was spent" if by == "kl_budget" and budget else f"{by.replace('_', ' ')}"
    return f" Training was stopped{after}: {why}."


def chain_words(artifacts: Artifacts) -> str:
    """The proxies between goal and policy, as this run has them."""
    links = ["true goal"]
    if needs_labels(artifacts):
        links += ["constitution", "labeler"] if has_principles(artifacts) else ["labels"]
        links += [] if _is_dpo(artifacts) else ["reward model"]
    else:
        links.append("reward")
    every = " → ".join([*links, "policy"])
    return f"{every[:1].upper()}{every[1:]}: every arrow loses something that the policy can exploit."


def _is_dpo(artifacts: Artifacts) -> bool:
    return artifacts.section("policy", "algorithm") == "dpo"


def _trl(artifacts: Artifacts) -> bool:
    return artifacts.section("engine") == "trl"
