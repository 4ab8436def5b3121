"""The columns of exported tables with their types, and how they are declared to Hugging Face's ``datasets``.

Without a declaration ``datasets`` guesses a column's type from a file's first 10 MB and fails where a column that was null
so far holds something later. It also keeps what it has read under the folder's name and front matter alone: two runs' folders of
one name would be taken for each other, so each table's hash stands in the front matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MESSAGES = [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]
VOTES = [
    {"name": "principle_id", "dtype": "string"},
    {"name": "order", "dtype": "string"},
    {"name": "p_chosen", "dtype": "float64"},
    {"name": "abstained", "dtype": "string"},
]
CONVERSATIONS = ("prompt", "chosen", "rejected", "completion")
COLUMNS: dict[str, dict[str, Any]] = {
    "preferences": {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "p_chosen": "float64",
        "chosen_is": "string",
        "pair_id": "string",
        "prompt_id": "string",
        "principle_ids": "strings",
        "labeler": "string",
        "harmful": "bool",
        "domain": "string",
        "votes": VOTES,
    },
    "sft": {"prompt": MESSAGES, "completion": MESSAGES, "source": "string"},
    "prompts": {"prompt": MESSAGES, "prompt_id": "string", "harmful": "bool", "domain": "string", "answer": "string"},
}


def declared(hashes: Mapping[str, str], texts: bool = False) -> dict[str, Any]:
    """``configs`` and ``dataset_info`` of a data set's front matter.

    Args:
        hashes: SHA-256 of each file, as ``preferences.jsonl``; each becomes a configuration of its own.
        texts: conversations are written as text, and without votes.
    """
    configs, infos = [], []
    for file, sha256 in hashes.items():
        name = file.partition(".")[0]
        configs.append({"config_name": name, "data_files": file, "description": f"SHA-256 {sha256}"})
        columns = COLUMNS[name]
        if texts:
            columns = {
                key: "string" if key in CONVERSATIONS else kind for key, kind in columns.items() if key != "votes"
            }
        infos.append({"config_name": name, "features": [_feature(key, kind) for key, kind in columns.items()]})
    return {"configs": configs, "dataset_info": infos}


def _feature(name: str, kind: Any) -> dict[str, Any]:
    if kind == "strings":
        return {"name": name, "list": "string"}
    if isinstance(kind, str):
        return {"name": name, "dtype": kind}
    return {"name": name, "list": [dict(inner) for inner in kind]}  # copies: YAML would write one object as an alias
