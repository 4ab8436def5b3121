"""Which policy's responses does a judge prefer that is not the labeler? The last policy against those that it came from.

reads   7-evaluate/NAME.jsonl
writes  7-evaluate/wins/NAME.jsonl   {judge, policy, against, prompt_id, p_better, abstained}, a line a held-out prompt

The judge is asked as a labeler is (labelers/), in both orders. Responses that are the same word for word are a tie, and are
not asked about; an abstention is left out of the share and counted. A win rate is by prompt, a tie half a win (Zheng et al.
2023, arXiv:2306.05685, for judges and their positions).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charter.config import ConstitutionalConfig, EvaluateConfig
from charter.constitution.load import Constitution
from charter.labelers.make import make_labeler
from charter.labelers.protocol import Labeler
from charter.labelers.recorded import RecordedModel
from charter.progress import Progress
from charter.records import Abstention, Estimate, EvaluatedResponse, ResponsePair
from charter.stages.saved import opened
from charter.statistics import share, unknown
from charter.store.jsonl import read_jsonl, write_jsonl
from charter.store.ledger import Ledger

FOLDER = "wins"
ORDER = ("initial", "sl-cai", "rl-cai")
BATCH = 128


def judge_settings(config: EvaluateConfig) -> ConstitutionalConfig | None:
    """The judge in the words of a labeler; None where the run file names none."""
    if config.judge is None:
        return None
    wins = config.wins
    return ConstitutionalConfig(
        model=config.judge, principles=wins.principles, question=wins.question, min_log_odds=wins.min_log_odds
    )


def judge_wins(
    config: EvaluateConfig, folder: Path, constitution: Constitution, ledger: Ledger, progress: Progress
) -> dict[str, Any]:
    """``{wins: {judge, policy, against: {name: figure}}}``: the last policy against each before it; empty without a judge."""
    settings = judge_settings(config)
    if settings is None:
        return {}
    with opened(settings.model) as model:
        judge = make_labeler(settings, lambda _: RecordedModel(model, ledger), constitution, 0)
        return {"wins": compare_policies(judge, folder, progress)}


def compare_policies(judge: Labeler, folder: Path, progress: Progress) -> dict[str, Any]:
    """Compare the last policy with each of those before it; writes the verdicts and returns their shares."""
    names = [name for name in ORDER if (folder / f"{name}.jsonl").exists()]
    responses = {name: list(read_jsonl(folder / f"{name}.jsonl", EvaluatedResponse)) for name in names}
    found: dict[str, Any] = {}
    progress.start(f"evaluate: wins by {judge.name}", max(0, len(names) - 1), "policies")
    for name in names[:-1]:
        rows = _compared(judge, names[-1], responses[names[-1]], name, responses[name])
        write_jsonl(folder / FOLDER / f"{name}.jsonl", rows)
        found[name] = win_rate(rows).to_json()
        progress.advance()
    return {"judge": judge.name, "policy": names[-1], "against": found}


def win_rate(rows: list[dict[str, Any]]) -> Estimate:
    """Share of prompts won, a tie half; what the judge abstained on is left out."""
    known = [(row["p_better"], row["prompt_id"]) for row in rows if row["p_better"] is not None]
    if not known:
        return unknown("the judge gave no verdict")
    return share([0.5 if p == 0.5 else float(p > 0.5) for p, _ in known], [id for _, id in known])


def _compared(
    judge: Labeler, policy: str, own: list[EvaluatedResponse], against: str, other: list[EvaluatedResponse]
) -> list[dict[str, Any]]:
    theirs = {row.prompt.id: row for row in other}
    pairs = [
        ResponsePair(row.prompt.id, row.prompt, row.response, theirs[row.prompt.id].response)
        for row in own
        if row.prompt.id in theirs
    ]
    asked = [pair for pair in pairs if pair.response_a.strip() != pair.response_b.strip()]
    verdicts: dict[str, float | Abstention] = {}
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        verdicts |= {p.id: judge.combine(said) for p, said in zip(batch, judge.label(batch), strict=True)}
    rows = []
    for pair in pairs:
        said = verdicts.get(pair.id, 0.5)
        undecided = said == Abstention.UNDECIDED  # heard, and no principle tells the two apart: a tie
        p = 0.5 if undecided else None if isinstance(said, Abstention) else said
        why = str(said.value) if isinstance(said, Abstention) else None
        named = {"judge": judge.name, "policy": policy, "against": against}
        rows.append({**named, "prompt_id": pair.id, "p_better": p, "abstained": why})
    return rows
