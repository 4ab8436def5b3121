"""``report.html``: one self-contained page about a run, from the files of its folder alone.

All text in it is hostile until shown otherwise: Jinja escapes every value, hidden characters are spelled out, and a
Content-Security-Policy lets nothing load and nothing run but the page's own style and script, named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from charter.report import examples, sections, settings, words
from charter.report.artifacts import Artifacts, read_run
from charter.report.audit import MISSING, audit_part
from charter.report.counting import counting
from charter.report.explorer import Label, explorer, read_labels
from charter.report.figures import policy_class, policy_name
from charter.report.memory import memory_rows
from charter.report.reinforcement import reinforcement, warnings
from charter.report.visible import clipped, visible
from charter.source import version
from charter.sources import without_folders
from charter.store.disk import atomic_write
from charter.store.whole import note
from charter.verification import Verified, verify_run

REPORT = "report.html"
MAX_BYTES = 4_900_000  # of the page: what the rest of it leaves goes to the label explorer
CONTENTS = (
    ("figures", "The figures"),
    ("replies", "Before and after"),
    ("revisions", "Critique, revision"),
    ("stages", "Harm and help"),
    ("labeler", "The labeler"),
    ("reward", "Reward model"),
    ("rl", "Training the policy"),
    ("audit", "What each link lost"),
    ("constitution", "Constitution"),
    ("unknown", "Simulated, unknown"),
    ("making", "How it was made"),
)


def check(run: Path) -> Verified:
    """Is what the page is made from as it was written? Weights and ledger, which it doesn't read, are not hashed.

    Raises:
        StoreError: it is no run folder, or a file can't be read.
    """
    return verify_run(run, unread=(".safetensors", ".sqlite", REPORT))


def write_report(run: Path, found: Verified | None = None) -> Path:
    """Write ``report.html`` into a run folder, finished or not, and return its path.

    Args:
        found: what ``check`` found; None: it is called.

    Raises:
        DataError: it is no run folder, or a file in it is broken.
        StoreError: a file can't be read or written.
    """
    artifacts = read_run(run)
    html = render(artifacts, (found or check(run)).faults)
    path = run / REPORT
    with atomic_write(path) as file:
        file.write(html.encode("utf-8"))
    note(run, [REPORT])
    return path


def render(artifacts: Artifacts, faults: Sequence[str] = ()) -> str:
    """The page as text, without lone surrogates.

    Args:
        faults: what doesn't verify in the folder.
    """
    style, script = asset("page.css"), asset("explorer.js")
    template = environment().from_string(asset("page.html.j2"))
    parts = {
        "policy": content_security_policy(style, script),
        "css": Markup(style),
        "script": Markup(script),
        "version": _version(artifacts.summary),
        "contents": CONTENTS,
        "comparisons": examples.comparisons(artifacts),
        "chains": examples.chains(artifacts),
        **_figures(artifacts.summary),
        **_words(artifacts),
        "notices": [*words.unsound(faults), *words.notices(artifacts)],
    }
    labels, num_pairs = read_labels(artifacts)
    bare = template.render(labels=explorer(labels, num_pairs, 0), labels_words="", **parts)
    packed = explorer(labels, num_pairs, MAX_BYTES - len(script) - len(bare.encode("utf-8")) - 1000)
    return template.render(labels=packed, labels_words=words.explorer_words(packed), **parts)


def _version(summary: dict[str, Any]) -> str:
    """The version that made the run, with the hash of its code where the run has it; without either, this one."""
    if not summary.get("charter"):
        return version()
    source = f" (source {summary['source']})" if summary.get("source") else ""
    return f"{summary['charter']}{source}"


def content_security_policy(style: str, script: str) -> str:
    """Nothing may load; the one style and the one script are known by their SHA-256; no string ever becomes markup."""
    return (
        f"default-src 'none'; style-src '{_source_hash(style)}'; script-src '{_source_hash(script)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def asset(name: str) -> str:
    """The text of a template, style or script of the pages."""
    return resources.files("charter.report").joinpath("assets", name).read_text(encoding="utf-8")


def environment() -> jinja2.Environment:
    """Jinja as all pages use it: every value escaped, hidden characters spelled out."""
    environment = jinja2.Environment(
        autoescape=True, finalize=_shown, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        policy_class=policy_class,
        policy_name=policy_name,
        turns=examples.shown_turns,
        clipped=clipped,
        verdict=_verdict,
    )
    return environment


def _shown(value: Any) -> Any:
    """Every value on its way into the page: text with its hidden characters spelled out, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _verdict(label: Label) -> str:
    p = 0.5 if label.p_a is None else label.p_a
    return f"{'tie' if p == 0.5 else 'A' if p > 0.5 else 'B'} {whole_percent(max(p, 1 - p))} %"


def whole_percent(p: float) -> int:
    """As the explorer's script rounds: it has probabilities in thousandths, and halves go up."""
    return (round(p * 1000) + 5) // 10


def _figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "headline": sections.headline(summary),
        "num_seen": sections.num_seen(summary),
        "unseen_table": sections.unseen_table(summary),
        "plane_charts": sections.way(summary),
        "stage_charts": sections.by_stage(summary),
        "more_charts": sections.by_stage_more(summary),
        "policy_table": sections.policy_table(summary),
        "revision_charts": sections.revision_curve(summary),
        "rounds_evaluated": any(name.startswith("sl-cai-round-") for name in sections.part(summary, "policies")),
        "labeler_charts": sections.labeler(summary),
        "reward_charts": sections.reward_model(summary),
        "stages": words.stages(summary),
        "servers": words.servers(summary),
        "memory": memory_rows(summary),
        "unknowns": words.unknowns(summary),
        "standfirst": words.standfirst(summary),
    }


def _words(artifacts: Artifacts) -> dict[str, Any]:
    return {
        "title": words.title(artifacts),
        "facts": words.facts(artifacts),
        "simulated": words.simulated(artifacts),
        "hashes": words.hashes(artifacts),
        "command": words.command(artifacts),
        "revision_words": settings.revision_words(artifacts),
        "labeler_words": settings.labeler_words(artifacts),
        "counting": counting(artifacts),
        "reward_words": settings.reward_words(artifacts),
        "rl_heading": settings.policy_heading(artifacts),
        "rl_words": settings.policy_words(artifacts),
        "rl_charts": reinforcement(artifacts),
        "rl_warnings": warnings(artifacts),
        "chain_words": settings.chain_words(artifacts),
        "why_no_chains": settings.missing(artifacts, "1-revise", "sl"),
        "why_no_labels": settings.missing(artifacts, "4-label", "rl"),
        "why_no_reward": settings.missing(artifacts, "5-reward", "rl"),
        "why_no_rl": settings.missing(artifacts, "6-policy", "rl"),
        "audit": audit_part(artifacts),
        "why_no_audit": MISSING,
        "constitution": artifacts.constitution,
        "principle_texts": {p.id: p.text for p in artifacts.constitution.principles} if artifacts.constitution else {},
        "why_no_constitution": artifacts.why_no_constitution,
        "run_yaml": without_folders(artifacts.run_yaml),
    }
