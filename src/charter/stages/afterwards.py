"""What a stage that is done has to tell beside its figures: data that went in and hardly served. A line each, in words."""

from __future__ import annotations

from typing import Any

from charter.config import RunConfig
from charter.stages.filters import why_unfit


def warnings(config: RunConfig, stage: str, summary: dict[str, Any]) -> list[str]:
    """From a stage's summary; one of an earlier version, which lacks a count, gives no warning of it."""
    if stage.startswith("2-sft"):
        return _few_revisions(config, summary)
    return _labels_that_say_nothing(config, summary) if stage == "4-label" else []


def of_all(config: RunConfig, summaries: dict[str, dict[str, Any]]) -> list[str]:
    """The warnings of all stages, each with its stage."""
    return [f"{stage}: {line}" for stage, told in summaries.items() for line in warnings(config, stage, told)]


def _few_revisions(config: RunConfig, summary: dict[str, Any]) -> list[str]:
    offered, filters = summary.get("num_offered"), summary.get("filters", {})
    if not offered:
        return []
    reasons = why_unfit(filters, config.revise.sampling.max_new_tokens, summary["context"])
    num_fit = offered - sum(count for count, _ in reasons)
    if 2 * num_fit >= offered:
        return []
    told = "; ".join(f"{count:,} of {offered:,} {reason}" for count, reason in reasons)
    return [f"revisions fit to train on: only {num_fit:,} of {offered:,}; {told}"]


def _labels_that_say_nothing(config: RunConfig, summary: dict[str, Any]) -> list[str]:
    num_labels, num_ties = summary["num_labels"], summary.get("num_ties", 0)
    stays = summary.get("position_bias_deciding", {}).get(
        "value"
    )  # where principles hardly tell, the position always does
    most = config.label.check.max_position_bias
    told = []
    if 2 * num_ties > num_labels:
        told.append(f"{num_labels:,} labels, {num_ties:,} of them ties (p_a .5), from which nothing can be learnt")
    if stays is not None and stays > most:
        told.append(
            f"the verdict follows the position in {stays:.0%} of the questions that count, label.check.max_position_bias "
            f"is {most:.0%}"
        )
    return [f"{'; '.join(told)}: read 4-label/judgments.jsonl, and try another labeler"] if told else []
