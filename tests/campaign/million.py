"""A million labels: what a killed labelling stage takes to go on, and what the report's explorer takes to open.

    python -m tests.campaign.million [--long] [--labels N] [--seed N]

Five things are measured, each in a process of its own that has loaded what ``charter run`` loads:

ledger    every answer found again by its key, the hashing of the keys included: no resume does that any more
resume    the labelling stage, killed in its last batch: seconds until the first new question goes out, and until it is done
report    the page of that run written
page      that page opened in Chromium: until the first 25 pairs stand there, and until all of them can be searched (null
          where there is no Chromium)
rating    a database of as many pairs, half of them rated: the next pair and the tally for a rater, as the page asks for both

A label is a judgment: a pair, one of 8 principles, one of 2 orders. The model is a hash of the question, so that it takes no
time worth telling; all else is the stage's own code. The last line is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.campaign.forked import run_forked
from tests.campaign.say import arguments, result

PRINCIPLES, ORDERS, BATCH = 8, 2, 128
KEYS = 5000  # that the ledger looks up at once
MAX_SECONDS, MAX_PAGE_SECONDS, MAX_MIB = 10.0, 0.5, 500.0
PATIENCE_MS = 300_000  # a busy machine isn't the page's fault: its own clock begins when it is asked for
Report = Callable[[dict[str, Any]], None]
RUN = "name: million\nlabel: {labeler: {model: {source: hashed}}}\n"


def used() -> dict[str, Any]:
    """CPU seconds of this process, and the most memory that it held."""
    return {
        "cpu": round(time.process_time(), 2),
        "mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


class Hashed:
    """A model whose answers are hashes of the questions; says when it is asked first, and dies at a question."""

    name, fingerprint = "hashed", "f" * 64

    def __init__(self, dies_at: int | None, report: Report) -> None:
        self._left, self._report, self._asked = dies_at, report, 0

    def choose(self, questions: Sequence[Any]) -> list[Any]:
        from charter.models.protocol import Choice

        if not self._asked:
            self._report({"first_question": time.monotonic(), **used()})
        self._asked += len(questions)
        if self._left is not None and self._asked > self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        digests = (hashlib.sha256(q.conversation[-1].content.encode()).digest() for q in questions)
        return [Choice((-0.1 - d[0] / 200, -0.1 - d[1] / 200), 200) for d in digests]


def write_world(out: Path, pairs: int, seed: int) -> None:
    """A run folder in which the pairs are sampled and nothing is labelled."""
    from charter.records import Message, Prompt, ResponsePair
    from charter.store.jsonl import write_jsonl

    rng = random.Random(seed)
    words = [f"w{rng.randrange(10**6):06d}" for _ in range(5000)]

    def say(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    def rows() -> Iterator[ResponsePair]:
        for i in range(pairs):
            yield ResponsePair(f"pair-{i}", Prompt(f"{i}", (Message("user", say(12)),)), say(30), say(30))

    write_jsonl(out / "3-sample" / "pairs.jsonl", rows())
    (out / "run.yaml").write_text(RUN)


def label(out: Path, dies_at: int | None) -> Callable[[Report], None]:
    """The labelling stage as the pipeline does it; told when it began and how it ended."""

    def work(report: Report) -> None:
        import charter.pipeline  # noqa: F401  what a run holds in memory anyway
        from charter.config import LabelConfig
        from charter.constitution.load import Constitution
        from charter.labelers.make import make_labeler
        from charter.labelers.recorded import RecordedModel
        from charter.progress import QuietProgress
        from charter.records import Principle, ResponsePair
        from charter.stages import label as stage
        from charter.store.jsonl import read_jsonl
        from charter.store.ledger import Ledger

        began, before = time.monotonic(), time.process_time()
        config = LabelConfig.model_validate({
            "labeler": {"model": {"source": "hashed"}, "batch_size": BATCH}, "check": {"num_controls": 0},
        })  # fmt: skip
        norms = [
            Principle(f"p{i}", f"rule {i}", "c", "r", f"which follows rule {i} better?") for i in range(PRINCIPLES)
        ]
        with Ledger(out / "ledger.sqlite") as ledger:
            model = RecordedModel(Hashed(dies_at, report), ledger)
            labeler = make_labeler(config.labeler, lambda wanted: model, Constitution("c", "", tuple(norms)), 0)
            report({"began": began, "cpu_before": before, **used()})
            pairs = list(read_jsonl(out / "3-sample" / "pairs.jsonl", ResponsePair))
            summary = stage.run(
                config, out / "4-label", pairs=pairs, labeler=labeler, gold=None, progress=QuietProgress()
            )
        report(
            {
                "ended": time.monotonic(),
                "judgments": summary["num_judgments"],
                "labels": summary["num_labels"],
                **used(),
            }
        )

    return work


def write_page(out: Path) -> Callable[[Report], None]:
    def work(report: Report) -> None:
        from charter.report.page import write_report

        began = time.monotonic()
        write_report(out)
        report({"seconds": time.monotonic() - began, **used()})

    return work


def find_again(out: Path, labels: int, seed: int) -> Callable[[Report], None]:
    """Fill a ledger, then look up each of its keys."""

    def keys() -> Iterator[list[str]]:
        from charter.store.hashing import hash_json

        for begin in range(0, labels, KEYS):
            yield [hash_json([seed, number]) for number in range(begin, min(labels, begin + KEYS))]

    def work(report: Report) -> None:
        from charter.store.ledger import Ledger

        with Ledger(out / "other.sqlite") as ledger:
            for own in keys():
                ledger.put_many({key: {"logprobs": [-0.5, -0.9], "num_prompt_tokens": 200} for key in own})
        began, before = time.monotonic(), time.process_time()
        with Ledger(out / "other.sqlite") as ledger:
            found = sum(len(ledger.get_many(own)) for own in keys())
        report(
            {
                "found": found,
                "seconds": time.monotonic() - began,
                "cpu": time.process_time() - before,
                "mib": used()["mib"],
            }
        )

    return work


def rate(out: Path, items: int) -> Callable[[Report], None]:
    """Fill a database of pairs to be rated, and ask as the rating page does after each label."""

    def work(report: Report) -> None:
        from charter.records import Message, Prompt, ResponsePair
        from charter.store.labels import HumanLabel, Item, LabelStore
        from charter.store.sql import open_database

        def rows() -> Iterator[tuple[Any, ...]]:
            for i in range(items):
                pair = ResponsePair(f"pair-{i}", Prompt(f"{i}", (Message("user", f"ask {i}"),)), "a " * 60, "b " * 60)
                yield pair.id, i, json.dumps(Item(pair).to_json())

        database = open_database(str(out / "rated.sqlite"))
        LabelStore(database)
        with database.transaction() as transaction:
            transaction.run_many("INSERT INTO items VALUES (?, ?, 1, 'x', ?)", rows())  # type: ignore[arg-type]
            rated = ((f"l{i}", f"pair-{i}") for i in range(items // 2))
            transaction.run_many("INSERT INTO labels VALUES (?, ?, 'ann', 'a', 'ab', '', 0, NULL)", rated)  # type: ignore[arg-type]
            transaction.run("DELETE FROM meta WHERE key = 'counted'")
        store, slowest = LabelStore(database), 0.0
        for rater in ("ann", "bob") * 5:
            began = time.monotonic()
            item = store.next_item(rater)
            assert item is not None
            store.add_label(HumanLabel(f"new-{rater}-{item.pair.id}", item.pair.id, rater, "b", "ab"))
            store.next_item(rater)
            done = store.tally(rater).done
            slowest = max(slowest, time.monotonic() - began)
        report({"slowest": slowest, "done": done, **used()})

    return work


WATCH = """
new MutationObserver(() => {
  const now = performance.now(), pager = document.querySelector("#explorer .pager");
  if (!window.firstPage && document.querySelectorAll("#explorer details.pair").length >= 25) window.firstPage = now;
  if (!window.allPairs && pager && !pager.hidden) window.allPairs = now;
}).observe(document, {subtree: true, childList: true, attributes: true});
"""


def open_page(page: Path) -> list[float] | None:
    """Seconds from asking for the page until its first pairs stand there, and until all can be searched; median of three."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if browser is None:
        return None
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        seen = []
        for _ in range(3):
            tab = opened.new_page()
            tab.add_init_script(WATCH)
            tab.set_default_timeout(PATIENCE_MS)
            tab.goto(page.as_uri())
            tab.wait_for_selector("#explorer .pager:not([hidden])")
            seen.append(tab.evaluate("[window.firstPage / 1000, window.allPairs / 1000]"))
            tab.close()
        opened.close()
    return [sorted(times)[1] for times in zip(*seen, strict=True)]


def tell(**found: Any) -> None:
    """What is known so far, with the machine's load: later parts may fail for reasons of their own."""
    print(json.dumps({**found, "load": os.getloadavg()[0]}), flush=True)


def campaign(labels: int, seed: int) -> dict[str, Any]:
    pairs = labels // (PRINCIPLES * ORDERS)
    labels = pairs * PRINCIPLES * ORDERS
    with tempfile.TemporaryDirectory() as place:
        out, log = Path(place) / "run", Path(place) / "log"
        out.mkdir()
        ledger = run_forked(find_again(out, labels, seed), log)
        tell(ledger=ledger.heard[-1])
        write_world(out, pairs, seed)
        began = time.monotonic()
        killed = run_forked(label(out, labels - PRINCIPLES), log)
        written = time.monotonic() - began
        assert killed.status == -9, killed.text
        went_on = run_forked(label(out, None), log)
        assert went_on.status == 0, went_on.text
        start, first, end = went_on.heard
        tell(resume=first["first_question"] - start["began"], cpu=first["cpu"] - start["cpu_before"], mib=end["mib"])
        report = run_forked(write_page(out), log)
        assert report.status == 0, report.text
        tell(report=report.heard[-1])
        page = open_page(out / "report.html")
        rated = run_forked(rate(out, labels), log)
        assert rated.status == 0, rated.text
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    found = ledger.heard[-1]
    told = {
        "ledger_seconds": round(found["seconds"], 2), "ledger_cpu_seconds": round(found["cpu"], 2),
        "resume_seconds": round(first["first_question"] - start["began"], 2),
        "resume_cpu_seconds": round(first["cpu"] - start["cpu_before"], 2),
        "done_after_seconds": round(end["ended"] - start["began"], 2), "resume_mib": first["mib"], "done_mib": end["mib"],
        "loaded_mib": start["mib"], "report_seconds": round(report.heard[-1]["seconds"], 2), "report_mib": report.heard[-1]["mib"],
        "page_seconds": page and round(page[0], 3), "page_searched_seconds": page and round(page[1], 3), "rating_seconds": round(rated.heard[-1]["slowest"], 3), "labelling_seconds": round(written, 1), "run_mib": round(size),
    }  # fmt: skip
    bad = {
        "not_found": found["found"] != labels, "lost": end["judgments"] != labels,
        "slow": told["resume_cpu_seconds"] > MAX_SECONDS,
        "slow_page": page is not None and page[0] > MAX_PAGE_SECONDS,
        "slow_rating": rated.heard[-1]["slowest"] > MAX_PAGE_SECONDS, "uncounted": rated.heard[-1]["done"] != labels // 2 + 10,
        "large": max(found["mib"], end["mib"], report.heard[-1]["mib"]) > MAX_MIB,
    }  # fmt: skip
    failed = [name for name, is_bad in bad.items() if is_bad]
    return {"campaign": "million", "seed": seed, "labels": labels, **told, "failed": failed, "violations": len(failed)}


if __name__ == "__main__":
    args = arguments(__doc__, labels=(1_000_000, 20_000))
    result(campaign(args.labels, args.seed))
