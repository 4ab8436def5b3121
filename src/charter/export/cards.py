"""Model and dataset cards: what a run made, and the evidence for and against it.

Front matter is written by huggingface_hub's card classes; names in it are ours, hub ids or left out. Everything that comes
from a model, a data set or a file of others stands in code (``charter.export.markdown``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from charter import __version__
from charter.export.columns import declared
from charter.export.evidence import Evidence, is_hub_id, versions
from charter.export.markdown import block, code, figure, table
from charter.sources import public_name

TAGS = ["constitutional-ai", "rlaif"]
MODELS = {
    "sl-cai": ("SL-CAI", "text-generation", "trained on revisions of its own responses by the constitution (phase 1)"),
    "reward": ("Reward model", "text-classification", "trained on the labeler's preferences; its logit is the reward"),
    "policy": ("RL-CAI policy", "text-generation", "trained by reinforcement learning from AI feedback (phase 2)"),
}
POLICIES = {"initial": "initial model", "sl-cai": "SL-CAI", "rl-cai": "RL-CAI"}
FIGURES = {
    "harmful_rate": "harmful responses",
    "over_refusal_rate": "refusals of harmless prompts",
    "correct_rate": "correct on harmless prompts",
    "evasive_rate": "evasive responses",
    "gold": "gold",
    "kl_to_sl_cai": "KL to SL-CAI (nats per response)",
}
MOST_FINDINGS = 10


def model_card(evidence: Evidence, what: str) -> str:
    """The card of one of a run's models.

    Args:
        what: a key of ``MODELS``.
    """
    from huggingface_hub import ModelCardData

    title, pipeline, how = MODELS[what]
    source = evidence.config.model.source
    data = ModelCardData(
        base_model=source if is_hub_id(source) else None,
        library_name="transformers",
        pipeline_tag=pipeline,
        tags=[*TAGS, *(["trl"] if evidence.config.engine == "trl" else [])],
    )
    lines = [  # front matter names no dataset: prompts are read from files and Python, never by a hub id
        f"# {title} of the run {code(evidence.config.name)}",
        f"{title}: {code(evidence.base_model())} {how}, with Charter {__version__}. It is saved as any Transformers "
        "model, and loads without code of Charter's.",
    ]
    return _card(data, [*lines, *_evidence(evidence)])


def dataset_card(evidence: Evidence, files: dict[str, int], hashes: dict[str, str], left_out: str) -> str:
    """The card of a run's data.

    Args:
        files: rows of each file, as ``preferences.jsonl``; each becomes a configuration of its own.
        hashes: SHA-256 of each.
        left_out: what isn't in the files, as a sentence.
    """
    from huggingface_hub import DatasetCardData

    names = {name: name.partition(".")[0] for name in files}
    data = DatasetCardData(
        tags=TAGS,
        task_categories=["text-generation", "reinforcement-learning"],
        **declared(hashes),
    )
    rows = [[f"`{names[name]}`", f"`{name}`", f"{count:,}", CONTENTS[names[name]]] for name, count in files.items()]
    lines = [
        f"# Data of the run {code(evidence.config.name)}",
        "Preferences are labels of a model that read a constitution, not of people, unless a labeler below says human. "
        f"Written by Charter {__version__} in TRL's conversational forms.",
        table(["configuration", "file", "rows", "columns"], rows),
        f"Missing values are null. {left_out}",
        f"Prompts come from {code(public_name(evidence.config.prompts.source))}.",
    ]
    return _card(data, [*lines, *_evidence(evidence)])


CONTENTS = {
    "preferences": "prompt, chosen, rejected, p_chosen (soft label, 0.5 to 1), votes of each principle and order",
    "sft": "prompt, completion, source (revision or helpful)",
    "prompts": "prompt, harmful, domain, answer",
}


def _card(data: Any, sections: list[str]) -> str:
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _evidence(evidence: Evidence) -> Iterator[str]:
    simulated = evidence.simulated()
    if simulated:
        yield (
            f"**Simulated.** The gold is {code(simulated)}, a simulation; what is said of people rests on it. "
            "These figures show how the method works, not that the model is safe."
        )
    yield "Figures are value (95 % interval), n. What can't be known says so."
    yield "## Constitution"
    yield f"{code(evidence.constitution.name)}, SHA-256 of its content `{evidence.constitution.hash}`."
    yield block("\n".join(f"{p.id} (weight {p.weight:g}): {p.text}" for p in evidence.constitution.principles))
    yield "## Labeler"
    yield from _labeler(evidence)
    yield "## Policies on held-out prompts"
    yield from _policies(evidence)
    yield "## Reward model and over-optimisation"
    yield from _reward(evidence)
    yield "## Audit and known failures"
    yield from _audit(evidence)
    yield "## Versions"
    yield from _versions(evidence)


def _labeler(evidence: Evidence) -> Iterator[str]:
    found = evidence.summary.get("labeler", {})
    position = evidence.audit.get("labels", {}).get("position", {})
    names = ", ".join(map(code, evidence.labelers())) or "none named in the run file"
    yield f"Kind {code(evidence.config.label.labeler.kind)}: {names}."
    rows = [
        ["agreement with gold", figure(found.get("gold_agreement"))],
        ["verdicts read right, by principle", figure(found.get("accuracy"))],
        ["pairs that got a label", figure(found.get("coverage"))],
        ["position: gap between the two orders", figure(position.get("order_gap"))],
        ["position: verdicts that stay with it", figure(position.get("verdicts_that_stay_with_the_position"))],
    ]
    yield table(["figure", "value"], rows)
    verdict = (found.get("check") or {}).get("verdict")
    if verdict:
        yield f"Check before labelling: {code(verdict['fitness'])}."


def _policies(evidence: Evidence) -> Iterator[str]:
    policies = evidence.summary.get("policies", {})
    yield table(["figure", *POLICIES.values()], _rows(policies, FIGURES))
    yield f"Responses were read by {code(evidence.summary.get('reader') or 'nobody: the run has no summary yet')}."
    yield "One run, one seed: the intervals are over prompts, and say nothing of how another seed would end."
    yield from _seen(evidence.summary.get("held_out") or {})


def _seen(held_out: dict[str, Any]) -> Iterator[str]:
    """How many held-out prompts are none."""
    num_seen, num_prompts = held_out.get("num_seen"), held_out.get("num_prompts")
    if num_seen is None or num_prompts is None:
        yield "Whether held-out prompts are training prompts too is not known."
    elif num_seen:
        yield f"{num_seen:,} of the {num_prompts:,} held-out prompts are training prompts too, word for word. On the others:"
        unseen = held_out.get("unseen") or {}
        yield table(["figure", *POLICIES.values()], _rows(unseen, ("harmful_rate", "correct_rate")))
    else:
        yield "No held-out prompt is, word for word, a training prompt."


def _rows(policies: dict[str, Any], keys: Iterable[str]) -> list[list[str]]:
    return [[FIGURES[key], *(figure((policies.get(name) or {}).get(key)) for name in POLICIES)] for key in keys]


def _reward(evidence: Evidence) -> Iterator[str]:
    reward, policy = evidence.summary.get("reward_model", {}), evidence.audit.get("policy", {})
    baselines = reward.get("baselines") or {}
    rows = [
        ["reward model agrees with held-out labels", figure(reward.get("label_agreement"))],
        *([f"baseline {code(name)}", figure(value)] for name, value in baselines.items()),
        ["reward model agrees with gold", figure(reward.get("gold_agreement"))],
        ["KL beyond which gold falls (fit)", figure(policy.get("stop_at_kl"))],
        ["gold lost after its peak", figure(policy.get("gold_lost_after_peak"))],
    ]
    yield table(["figure", "value"], rows)
    if policy.get("gold_peak"):
        yield f"Gold is highest at {code(policy['gold_peak'])} among the checkpoints that were measured."


def _audit(evidence: Evidence) -> Iterator[str]:
    if not evidence.audit:
        yield "Not audited: run `charter audit` on the run and write this card again."
    else:
        verdict = evidence.audit.get("verdict") or {}
        yield f"Verdict: {code(verdict.get('says') or 'no link is to blame')}."
        findings = evidence.audit.get("findings", [])[:MOST_FINDINGS]
        rows = [[code(row["link"]), code(row["kind"]), code(row["says"]), figure(row.get("size"))] for row in findings]
        if rows:
            yield table(["link", "kind", "finding", "size"], rows)
    check = (evidence.summary.get("labeler", {}).get("check") or {}).get("verdict") or {}
    warnings = [*check.get("unfit", []), *check.get("warnings", [])]
    if warnings:
        yield "The labeler's check warned: " + "; ".join(map(code, warnings)) + "."
    yield (
        "Intended for research on AI feedback. The constitution, the labeler and the prompts bound what was learned; "
        "nothing here was shown outside of them. License: not known; state one before you publish."
    )


def _versions(evidence: Evidence) -> Iterator[str]:
    made = evidence.summary.get("charter")
    rows = [["Charter, as the run was made", code(made) if made else "not known"], ["seed", str(evidence.config.seed)]]
    rows += [[name, code(found)] for name, found in versions().items()]
    hashes = evidence.summary.get("hashes") or {}
    rows += [[f"SHA-256 of {name.replace('_', ' ')}", f"`{value}`"] for name, value in hashes.items() if value]
    yield "Libraries as this card was written:"
    yield table(["what", "version or hash"], rows)
