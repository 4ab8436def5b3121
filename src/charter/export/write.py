"""Write a run's tables as TRL, verl or Label Studio read them.

    trl           preferences.jsonl, sft.jsonl, prompts.jsonl: TRL's conversational forms, extra columns kept; README.md
                  declares their columns to Hugging Face's datasets
    trl-standard  the same four with texts in place of messages
    csv           preferences.csv, sft.csv, prompts.csv, the same texts; cells that a spreadsheet would run begin with '
    verl          rl.parquet (data_source, prompt, ability, reward_model, extra_info), sft.parquet (messages)
    label-studio  tasks.json and labels.xml: pairs to compare, the labeler's verdict in ``meta``, where raters don't see it

Every folder also holds export.json: counts of rows, ties left out and characters replaced.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charter.errors import DataError, StoreError
from charter.export.columns import CONVERSATIONS, declared
from charter.export.rows import Rows, RunRows
from charter.store.disk import atomic_write, store_errors
from charter.store.hashing import hash_file
from charter.store.jsonl import write_json, write_jsonl
from charter.yaml_io import write_text

LABELS = """<View>
  <Text name="prompt" value="$prompt"/>
  <Header value="Which response is better?"/>
  <Pairwise name="comparison" toName="response_a,response_b"/>
  <Text name="response_a" value="$response_a"/>
  <Text name="response_b" value="$response_b"/>
</View>
"""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}


def write_export(rows: RunRows, to: str, folder: Path) -> dict[str, Any]:
    """Write the tables into a new folder and return export.json's content.

    Raises:
        StoreError: the folder has something in it, or can't be written. DataError: pyarrow is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder}: is not empty: delete it or choose another --out")
    with store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = WRITERS[to](rows, folder)
    told = {"to": to, "files": files, "num_ties_left_out": rows.num_ties, "num_texts_replaced": rows.num_replaced}
    write_json(folder / "export.json", told)
    return told


def _trl(rows: RunRows, folder: Path) -> dict[str, int]:
    return _json_lines(rows.tables(), folder)


def _standard(rows: RunRows, folder: Path) -> dict[str, int]:
    return _json_lines(
        {name: [_texts(row) for row in table] for name, table in rows.tables().items()}, folder, texts=True
    )


def _json_lines(tables: dict[str, Rows], folder: Path, texts: bool = False) -> dict[str, int]:
    for name, table in tables.items():
        write_jsonl(folder / f"{name}.jsonl", table)
    _declare(folder, [f"{name}.jsonl" for name in tables], texts)
    return {f"{name}.jsonl": len(table) for name, table in tables.items()}


def _declare(folder: Path, names: list[str], texts: bool) -> None:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(**declared({name: hash_file(folder / name) for name in names}, texts))
    loads = "\n".join(f'    load_dataset(FOLDER, "{name.partition(".")[0]}", split="train")' for name in names)
    write_text(folder / "README.md", f"---\n{data.to_yaml()}\n---\n\nWritten by `charter export`.\n\n{loads}\n")


def _csv(rows: RunRows, folder: Path) -> dict[str, int]:
    tables = {f"{name}.csv": [_texts(row) for row in table] for name, table in rows.tables().items()}
    for name, table in tables.items():
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(table[0]))
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in table)
        with atomic_write(folder / name) as file:
            file.write(text.getvalue().encode())
    return {name: len(table) for name, table in tables.items()}


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    """Messages as text: one alone is its content, a longer conversation a dialogue of Human and Assistant as in hh-rlhf."""
    return {key: _text(value) if key in CONVERSATIONS else value for key, value in row.items() if key != "votes"}


def _text(messages: list[dict[str, str]]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    turns = "".join(f"\n\n{SPEAKERS[turn['role']]}: {turn['content']}" for turn in messages)
    return turns + ("\n\nAssistant:" if messages[-1]["role"] == "user" else "")


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _verl(rows: RunRows, folder: Path) -> dict[str, int]:
    rl = [
        {
            "data_source": "charter",
            "prompt": row["prompt"],
            "ability": row["domain"] or "alignment",
            "reward_model": {"style": "rule" if row["answer"] else "model", "ground_truth": row["answer"] or ""},
            "extra_info": {"index": index, "split": "train", "prompt_id": row["prompt_id"], "harmful": row["harmful"]},
        }
        for index, row in enumerate(rows.prompts)
    ]
    sft = [{"messages": row["prompt"] + row["completion"], "source": row["source"]} for row in rows.sft]
    tables = {name: table for name, table in (("rl.parquet", rl), ("sft.parquet", sft)) if table}
    for name, table in tables.items():
        _parquet(folder / name, table)
    return {name: len(table) for name, table in tables.items()}


def _parquet(path: Path, rows: Rows) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: writing Parquet needs pyarrow: pip install 'charter[parquet]'") from error
    with store_errors(path):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _label_studio(rows: RunRows, folder: Path) -> dict[str, int]:
    tasks = []
    for row in rows.preferences:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        a, b = (chosen, rejected) if row["chosen_is"] == "a" else (rejected, chosen)
        prompt = "\n\n".join(f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in row["prompt"])
        meta = {key: row[key] for key in ("p_chosen", "chosen_is", "principle_ids", "labeler")}
        data = {
            "prompt": prompt,
            "response_a": a,
            "response_b": b,
            "pair_id": row["pair_id"],
            "messages": row["prompt"],
        }
        tasks.append({"data": data, "meta": meta})
    write_json(folder / "tasks.json", tasks)
    write_text(folder / "labels.xml", LABELS)
    return {"tasks.json": len(tasks)}


WRITERS: dict[str, Callable[[RunRows, Path], dict[str, int]]] = {
    "trl": _trl,
    "trl-standard": _standard,
    "csv": _csv,
    "verl": _verl,
    "label-studio": _label_studio,
}
