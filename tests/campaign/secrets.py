"""Canary keys through every fault of a server: they may stand in no file, no database, no page, and nowhere in the output.

    python -m tests.campaign.secrets [--long] [--runs N] [--seed N]

Each run has a labeler behind a server that fails in a way of its own, or in all ways, and echoes the key in its errors; some
end with an error, and the same command then finishes them against a server that answers. Other runs name a key in the
address itself. The report, the audit, the exports, the ledger with its WAL and all output are searched. The last line is one
JSON object.
"""

from __future__ import annotations

import base64
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.campaign.forked import Ended, charter_run, run_forked
from tests.campaign.say import arguments, result
from tests.campaign.world import CountingServer, endpoint_labeler, make_world

KEY = "sk-canary-Zq7-0123456789abcdef"
PASSWORD = "pw-canary-Xk3-fedcba9876543210"
FORMS = [
    form for secret in (KEY, PASSWORD) for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"="))
]
FAULTS: list[Any] = [
    "reset", "cut", "malformed", "empty", "html", "error_in_200", "null_choices", "no_choices", "null_content", 500, 502,
    (503, {"retry-after": "0"}), 429, (429, {"retry-after": "0.1"}), 400, 413, 401, 403, 404, (302, {"location": "http://127.0.0.1:9/"}),
    (429, {"retry-after": "86400"}),
]  # fmt: skip


def hits(folder: Path) -> list[str]:
    """Files in which a secret stands, hidden ones and databases included."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in FORMS)
    ]


def run(work: Path, source: str, out: Path) -> Ended:
    (work / "world").mkdir(exist_ok=True)
    settings = {"attempt_seconds": 1, "deadline_seconds": 3, "dead_seconds": 2}
    run_file = work / "world" / "run.yaml"
    if not run_file.exists():
        make_world(work / "world", endpoint_labeler("SOURCE", **settings))
    own = work / "world" / f"{out.name}.yaml"
    own.write_text(run_file.read_text().replace("SOURCE", source))
    return run_forked(charter_run(own, out), work / "log")


def exported(out: Path, to: Path) -> str:
    """What ``charter export`` and ``charter report`` print; they write beside the run."""
    own = {**os.environ, "OPENAI_API_KEY": KEY}
    told = ""
    for command in (["report", str(out)], ["verify", str(out)], ["export", str(out), "--to", "trl", "--out", str(to)]):
        code = "from charter.cli.main import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, env=own, check=False
        )
        told += ended.stdout + ended.stderr
    return told


def campaign(runs: int, seed: int) -> dict[str, Any]:
    os.environ["OPENAI_API_KEY"] = KEY
    rng = random.Random(seed)
    chosen = [*rng.sample(FAULTS, min(runs, len(FAULTS)))]
    found: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    sent = 0
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for number, fault in enumerate(chosen):
            out = work / f"run-{number}"
            share = rng.choice((0.3, 1.0))
            with CountingServer(lambda n, body, f=fault, s=share: f if rng.random() < s else "ok") as server:
                ended = run(work, f"{server.url}#m", out)
                sent += sum(KEY in str(headers) for headers in server.headers)
            ends[f"exit {ended.status}"] += 1
            text = ended.text + (exported(out, work / f"run-{number}-export") if number < 2 else "")
            found["output"] += sum(form in text.encode() for form in FORMS)
            for name in hits(out):
                found[name] += 1
        for number, source in enumerate(
            (f"http://user:{PASSWORD}@127.0.0.1:9/v1#m", f"http://{PASSWORD}@127.0.0.1:9/v1#m")
        ):
            ended = run(work, source, work / f"address-{number}")
            ends[f"exit {ended.status}"] += 1
            found["output"] += sum(form in ended.text.encode() for form in FORMS)
            found["address"] += len(hits(work / f"address-{number}")) if (work / f"address-{number}").exists() else 0
        for folder in work.glob("run-*-export"):
            found["export"] += len(hits(folder))
    told = {
        "campaign": "secrets", "seed": seed, "runs": len(chosen) + 2, "ends": dict(ends), "requests_with_the_key": sent,
        "hits": found.total(), "where": dict(+found),
    }  # fmt: skip
    return {**told, "violations": found.total() + (not sent)}


if __name__ == "__main__":
    args = arguments(__doc__, runs=(len(FAULTS), 2))
    import transformers.models.llama.modeling_llama  # noqa: F401  the slow imports, before the forks

    import charter.audit.run
    import charter.pipeline
    import charter.report.page  # noqa: F401

    result(campaign(args.runs, args.seed))
