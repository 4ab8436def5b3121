"""The chain as a run has it: four links where its labels come from a constitution, three where people or a model label freely.

    constitution    goal -> constitution -> labels -> reward model -> policy
    no constitution goal -> labels -> reward model -> policy

In the shorter chain the first link bears all that labels lose of the goal; losses of both still add up to what the whole
chain lost, on the same pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charter.audit.evidence import Evidence
from charter.audit.figures import GOAL, LABELER, LINKS, SHORT, figure
from charter.records import Estimate

FREE = ("human", "checker", "plain")


def chain_of(evidence: Evidence, falls: dict[str, Any]) -> dict[str, Any]:
    """The links of this run with what each lost; ``reason`` says why there are none.

    Args:
        falls: the audit's waterfall.
    """
    if evidence.section("policy", "reward") is not None:
        return {"links": [], "reason": "the policy's reward is no reward model: no link gives a verdict on pairs"}
    if np.isnan(evidence.pairs.label_P).all():
        return {"links": [], "reason": "the run has no labels"}
    rows = {row["link"]: row for row in falls["links"]}
    names: tuple[str, ...] = LINKS
    if not reads_constitution(evidence):
        names = (SHORT, *(link for link in LINKS if link not in (GOAL, LABELER)))
        rows[SHORT] = {**rows[LABELER], "loss": _whole_loss(rows[LABELER]["agreement"])}
    links = [{"link": name, "agreement": rows[name]["agreement"], "loss": rows[name]["loss"]} for name in names]
    return {"links": links, "reason": None}


def reads_constitution(evidence: Evidence) -> bool:
    """Do labels come from the principles? Judgments on principles show it; a labeler that scores is asked about all at once."""
    if not np.isnan(evidence.pairs.judged_PKO).all():
        return True
    kind, principles = (evidence.section("label", "labeler", key) for key in ("kind", "principles"))
    return bool(evidence.pairs.principle_ids) and kind not in FREE and kind is not None and principles != "none"


def _whole_loss(agreement: dict[str, Any]) -> dict[str, Any]:
    """What labels lost of the goal itself, whose agreement with itself is 1."""
    value, low, high = (None if agreement[key] is None else 1 - agreement[key] for key in ("value", "high", "low"))
    return figure(Estimate(value, low, high, agreement["n"], reason=agreement["reason"]), agreement["source"])
