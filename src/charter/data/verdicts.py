"""Rows of two responses and a verdict, under the names that others use, as prompt, chosen and rejected.

LLMBar                input, output_1, output_2, label (1 or 2)
PandaLM               instruction, input, response1, response2, annotator1, annotator2, ... (1, 2 or 0, a tie)
MT-bench, arenas      conversation_a, conversation_b, winner (model_a, model_b, or a tie)
2022 paper            text_correct, text_incorrect
HHH alignment         input, targets {choices, labels}; or Prometheus's chosen_instruction and rejected_instruction
PKU-SafeRLHF          prompt, response_0, response_1, safer_response_id
OpenAI                input {messages}, preferred_output, non_preferred_output
LLaMA-Factory         instruction, input, chosen, rejected
Label Studio          data {prompt, response_a, response_b}, annotations: what ``charter export --to label-studio`` gave out

Where several people judged, ``p_chosen`` is the share of votes for the chosen response, a tie counting half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from charter.data.rows import Row
from charter.errors import DataError

OPENS, ENDS = "###The instruction to evaluate:\n", "\n\n###Response to evaluate:\n"
RUBRIC = "\n\n###Score Rubric"
ARENA = {"conversation_a", "conversation_b", "winner"}
ANNOTATORS = tuple(f"annotator{number}" for number in range(1, 10))


def renamed(row: Row, place: str) -> Row:
    """The row as prompt, chosen, rejected (and ``p_chosen``) if it has one of these shapes, else as it is.

    Raises:
        DataError: a verdict that isn't one.
    """
    for keys, read in _SHAPES:
        if keys <= row.keys():
            return read(row, place)
    return row


def vote(row: Row, place: str) -> float:
    """What an arena's row says of its first conversation: 1, 0, or 0.5 for a tie.

    Raises:
        DataError: a winner that is none.
    """
    winner = str(row["winner"]).casefold()
    if winner.startswith("tie"):
        return 0.5
    return _one_of({"model_a": 1.0, "model_b": 0.0, "tie": 0.5}, winner, place, "winner")


def instruction(row: Row) -> Any:
    """An instruction, with its input below it."""
    more = row.get("input")
    text = row["instruction"]
    return f"{text}\n\n{more}" if isinstance(more, str) and more.strip() and isinstance(text, str) else text


def prometheus_request(text: Any) -> str | None:
    """What was asked, out of Prometheus's request to score a response."""
    if not isinstance(text, str) or OPENS not in text or ENDS not in text:
        return None
    return text.partition(OPENS)[2].partition(ENDS)[0]


def opened(text: Any) -> Any:
    """A dialogue as a transcript, where its first turn's speaker isn't named."""
    unnamed = isinstance(text, str) and "\n\nAssistant:" in text and not text.lstrip().startswith("Human:")
    return f"\n\nHuman: {text}" if unnamed else text


def _sides(prompt: Any, first: Any, second: Any, p_first: float) -> Row:
    if p_first >= 0.5:
        return {"prompt": prompt, "chosen": first, "rejected": second, "p_chosen": p_first}
    return {"prompt": prompt, "chosen": second, "rejected": first, "p_chosen": 1 - p_first}


def _one_of(values: dict[Any, float], found: Any, place: str, what: str) -> float:
    if not isinstance(found, (str, int)) or isinstance(found, bool) or found not in values:
        expected = ", ".join(map(str, values))
        raise DataError(f"{place}: {what} is {str(found)[:40]!r}: expected one of {expected}")
    return values[found]


def _llmbar(row: Row, place: str) -> Row:
    label = row["label"]
    if label not in (1, 2):
        raise DataError(f"{place}: label is {str(label)[:40]!r}: expected 1 or 2, the better output")
    return _sides(row["input"], row["output_1"], row["output_2"], float(label == 1))


def _pandalm(row: Row, place: str) -> Row:
    said = {"1": 1.0, "2": 0.0, "0": 0.5}
    votes = [_one_of(said, str(row[name]), place, name) for name in ANNOTATORS if row.get(name) is not None]
    if not votes:
        raise DataError(f"{place}: no annotator has said anything: delete this row")
    return _sides(instruction(row), row["response1"], row["response2"], sum(votes) / len(votes))


def _arena(row: Row, place: str) -> Row:
    sides = _sides(None, row["conversation_a"], row["conversation_b"], vote(row, place))
    return {key: value for key, value in sides.items() if key != "prompt"}


def _hhh(row: Row, place: str) -> Row:
    targets = row["targets"]
    choices, labels = (targets.get(key) if isinstance(targets, dict) else None for key in ("choices", "labels"))
    if not isinstance(choices, Sequence) or labels not in ([0, 1], [1, 0]) or len(choices) != 2:
        raise DataError(f"{place}: targets must hold two choices and their labels, 1 for the better: delete this row")
    first, second = choices
    return _sides(opened(row["input"]), first, second, float(labels[0] == 1))


def _prometheus(row: Row, place: str) -> Row:
    asked = [prometheus_request(row[key]) for key in ("chosen_instruction", "rejected_instruction")]
    if asked[0] is None or asked[0] != asked[1]:
        raise DataError(
            f"{place}: chosen_instruction and rejected_instruction don't ask about one instruction: delete this row"
        )
    first, second = (
        row[key].partition(ENDS)[2].partition(RUBRIC)[0] for key in ("chosen_instruction", "rejected_instruction")
    )
    return _sides(opened(asked[0]), first, second, 1.0)


def _safe_rlhf(row: Row, place: str) -> Row:
    better = _one_of({0: 1.0, 1: 0.0}, row["safer_response_id"], place, "safer_response_id")
    return _sides(row["prompt"], row["response_0"], row["response_1"], better)


def _openai(row: Row, place: str) -> Row:
    asked = row["input"].get("messages") if isinstance(row["input"], dict) else None
    return {"prompt": asked, "chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}


def _label_studio(row: Row, place: str) -> Row:
    data = row["data"] if isinstance(row["data"], dict) else {}
    votes = []
    for annotation in _objects(row["annotations"]):
        for result in [] if annotation.get("was_cancelled") else _objects(annotation.get("result")):
            if result.get("type") == "pairwise" and isinstance(result.get("value"), dict):
                votes.append(_one_of({"left": 1.0, "right": 0.0}, result["value"].get("selected"), place, "selected"))
    if not votes:
        raise DataError(f"{place}: nobody has compared this pair: delete this row")
    if not {"prompt", "response_a", "response_b"} <= data.keys():
        raise DataError(f"{place}: data has no prompt, response_a and response_b: delete this row")
    asked = data.get("messages") or data["prompt"]
    return _sides(asked, data["response_a"], data["response_b"], sum(votes) / len(votes))


def _objects(value: Any) -> list[Row]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _correct(row: Row, _: str) -> Row:
    return {"chosen": row["text_correct"], "rejected": row["text_incorrect"]}


_SHAPES: list[tuple[set[str], Callable[[Row, str], Row]]] = [
    ({"text_correct", "text_incorrect"}, _correct),
    ({"input", "output_1", "output_2", "label"}, _llmbar),
    ({"instruction", "response1", "response2", "annotator1"}, _pandalm),
    (ARENA, _arena),
    ({"input", "targets"}, _hhh),
    ({"chosen_instruction", "rejected_instruction"}, _prometheus),
    ({"prompt", "response_0", "response_1", "safer_response_id"}, _safe_rlhf),
    ({"input", "preferred_output", "non_preferred_output"}, _openai),
    ({"data", "annotations"}, _label_studio),
    ({"instruction", "chosen", "rejected"}, lambda row, _: {**row, "prompt": instruction(row)}),
]
