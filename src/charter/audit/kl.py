"""KL of the evaluated responses, computed again from the saved policies and SL-CAI, as the evaluation computed it.

    k1 = sum over T of log p - log q, p the policy, q SL-CAI; the end of turn counts where the response ended by itself

A response was sampled on another machine or in another precision perhaps, so that only a difference which no rounding makes is
one: 0.05 nats, 2 % of the KL, and 0.02 nats times the root of the number of tokens. Where values differ the policies are
measured on those computed here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charter.audit.evidence import Evidence
from charter.audit.figures import POLICY, RECORD, Finding, figure
from charter.audit.scoring import TooMuchWork, row_logprobs
from charter.errors import ModelError
from charter.records import EvaluatedResponse
from charter.statistics import counted, unknown

EVALUATED = "7-evaluate"
WHAT = "KL of responses"
REFERENCE = Path("2-sft") / "model"


def check_kl(evidence: Evidence) -> tuple[Evidence, dict[str, Any], list[Finding]]:
    """The evidence with KL as the models give it where the file says otherwise, and what was found."""
    source = f"{EVALUATED} against the saved policies and {REFERENCE.as_posix()}"
    folders = {name: folder for name, folder in _folders(evidence).items() if _recorded(evidence.policies[name])}
    if not folders or not (evidence.folder / REFERENCE).is_dir():
        why = f"no response with a KL whose policy is saved, or no {REFERENCE.as_posix()}"
        return evidence, figure(unknown(why), source), []
    policies, off, num = dict(evidence.policies), [], 0
    try:
        for name, folder in folders.items():
            rows = policies[name]
            kl_N = _kl(folder, evidence.folder / REFERENCE, rows)
            told_N = np.array([row.kl_k1 for row in rows], dtype=float)
            tokens_N = np.array([row.num_tokens for row in rows], dtype=float)
            differs_N = np.abs(kl_N - told_N) > 0.05 + 0.02 * np.abs(kl_N) + 0.02 * np.sqrt(tokens_N)
            num += len(rows)
            off += [name] * int(differs_N.sum())
            policies[name] = [
                dataclasses.replace(row, kl_k1=float(kl)) if differs else row
                for row, kl, differs in zip(rows, kl_N, differs_N, strict=True)
            ]
    except (ModelError, TooMuchWork) as reason:
        return evidence, figure(unknown(str(reason)), source), []
    size = counted(len(off), num)
    if not off:
        return evidence, figure(size, source), []
    files = ", ".join(f"{name}.jsonl" for name in dict.fromkeys(off))
    says = (
        f"KL of {len(off):,} of {num:,} responses isn't what the saved policies give ({EVALUATED}: {files}): the files or the "
        "models were changed; the policies are measured on KL as computed here"
    )
    fault = Finding(RECORD, "record", WHAT, size, "share of responses", 0.0, 0.0, says, of_link=POLICY)
    return dataclasses.replace(evidence, policies=policies), figure(size, source), [fault]


def _recorded(rows: Sequence[EvaluatedResponse]) -> bool:
    return bool(rows) and all(row.kl_k1 is not None for row in rows)


def _folders(evidence: Evidence) -> dict[str, Path]:
    """The folders of the policies that reinforcement learning made, as far as they are there."""
    made = evidence.folder / "6-policy"
    found = {name: made / "checkpoints" / name.removeprefix("rl-") for name in evidence.policies if "rl-step-" in name}
    if "rl-cai" in evidence.policies:
        found["rl-cai"] = made / "model"
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def _kl(policy: Path, reference: Path, rows: Sequence[EvaluatedResponse]) -> Any:
    texts = [(row.prompt, row.response) for row in rows]
    cut = [row.truncated for row in rows]
    return np.array(row_logprobs(policy, texts, cut)) - np.array(row_logprobs(reference, texts, cut))
