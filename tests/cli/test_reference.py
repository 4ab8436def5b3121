"""docs/cli.md is what the commands say of themselves."""

import re
import runpy
from pathlib import Path

from charter.cli.main import app

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date():
    made = runpy.run_path(str(DOCS / "make_cli.py"))["page"]()
    assert (DOCS / "cli.md").read_text() == made, "write it anew: python docs/make_cli.py"


def test_every_command_is_there():
    page = (DOCS / "cli.md").read_text()
    names = [command.name for command in app.registered_commands]
    names += [
        f"{group.name} {command.name}"
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    ]
    assert len(names) > 15 and all(f"\n## charter {name}\n" in page for name in names)


def test_links_of_the_docs_lead_somewhere():
    root = DOCS.parent
    pages = [*DOCS.glob("*.md"), *root.glob("*.md"), *(root / "examples").rglob("*.md")]
    broken = [
        f"{page.relative_to(root)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert len(pages) > 10 and not broken


def test_commands_in_the_docs_exist():
    known = {command.name for command in app.registered_commands}
    groups = {g.name: {c.name for c in g.typer_instance.registered_commands} for g in app.registered_groups}
    pages = [DOCS / "index.md", *(DOCS.parent / "examples").rglob("*.md"), *DOCS.parent.glob("[AR]*.md")]
    used = [m for page in pages for m in re.findall(r"(?:`|^)charter ([a-z-]+)(?: ([a-z-]+))?", page.read_text(), re.M)]
    assert len(used) > 20
    for name, sub in used:
        assert name in known or sub in groups.get(name, ()), f"charter {name} {sub}"
