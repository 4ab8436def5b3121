"""Documents into draft principles: a Markdown or HTML text such as the Universal Declaration of Human Rights.

What becomes a draft: each ``<article>`` of an HTML page; else each section under a heading, where at least two have text;
else each item of the lists; else each paragraph. The text is taken as it stands, as text: scripts, styles, templates,
comments and hidden elements are left out, and no markup goes into a principle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_SKIPPED = {"script", "style", "template", "noscript", "head", "nav", "svg", "iframe", "object"}
_BLOCKS = {"p", "li", "div", "section", "article", "header", "footer", "br", "tr", "blockquote", "ol", "ul", "dd", "dt"}
_HEADINGS = {f"h{level}" for level in range(1, 7)}
_VOID = {"br", "hr", "img", "input", "link", "meta", "source", "wbr", "area", "base", "col", "embed", "track"}


@dataclass
class Section:
    """A heading and what stands beneath it; ``article`` where the page marks it as one."""

    heading: str = ""
    paragraphs: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    article: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.paragraphs)


@dataclass
class Document:
    """A title, a language where the page names one, and sections in order."""

    title: str = ""
    language: str | None = None
    sections: list[Section] = field(default_factory=list)

    def drafts(self) -> tuple[list[tuple[str, str]], list[str]]:
        """(heading, text) of what becomes a principle, and the headings of sections that were left out."""
        full = [section for section in self.sections if section.text]
        articles = [section for section in full if section.article]
        left = [section.heading or "text before the first heading" for section in full if not section.article]
        if articles:
            return [(section.heading, section.text) for section in articles], left
        headed = [section for section in full if section.heading]
        if len(headed) > 1:
            return [(section.heading, section.text) for section in headed], ["text before the first heading"] * (
                len(full) > len(headed)
            )
        items = [(section.heading, item) for section in full for item in section.items]
        if items:
            return items, []
        return [(section.heading, text) for section in full for text in section.paragraphs], []


def read_html(text: str) -> Document:
    """An HTML page as a document; broken markup is read as browsers do, as far as it goes."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.end_block()
    return reader.document


def read_markdown(text: str) -> Document:
    """A Markdown text as a document. HTML within it stays out."""
    from markdown_it import MarkdownIt

    document, depth, kind = Document(), 0, ""
    document.sections.append(Section())
    for token in MarkdownIt("commonmark", {"html": False}).disable("html_block").parse(text):
        depth += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type.endswith("_open"):
            kind = token.type
        if token.type == "inline":
            said = _plain("".join(_words(token.children or [])))
            if kind == "heading_open" and not document.title and len(document.sections) == 1:
                document.title = said
            elif kind == "heading_open":
                document.sections.append(Section(said))
            elif said:
                _add(document.sections[-1], said, in_item=depth > 0)
    return document


def _words(children: list[Any]) -> list[str]:
    breaks = {"softbreak": " ", "hardbreak": "\n"}
    return [
        breaks.get(child.type, child.content if child.type in ("text", "code_inline") else "") for child in children
    ]


def _add(section: Section, text: str, in_item: bool) -> None:
    section.paragraphs.append(text)
    if in_item:
        section.items.append(text)


def _plain(text: str) -> str:
    return " ".join(text.split())


class _Reader(HTMLParser):
    """Gathers text by blocks; keeps no tree, so nesting costs nothing."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.document = Document(sections=[Section()])
        self._skipping: list[str] = []  # open elements within one that is left out
        self._buffer: list[str] = []
        self._heading: str | None = None
        self._in_title = False
        self._page_title = ""
        self._items = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "html" and named.get("lang"):
            self.document.language = named["lang"]
        if self._skipping or tag in _SKIPPED or "hidden" in named or named.get("aria-hidden") == "true":
            if tag not in _VOID:
                self._skipping.append(tag)
            return
        if tag in _BLOCKS or tag in _HEADINGS:
            self.end_block()
        if tag == "article":
            self.document.sections.append(Section(article=True))
        if tag in _HEADINGS:
            self._heading = tag
        self._items += tag == "li"

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag in self._skipping:
                while self._skipping.pop() != tag:
                    pass
            return
        if tag in _BLOCKS or tag in _HEADINGS:
            self.end_block()
        if tag == "li":
            self._items = max(0, self._items - 1)
        if tag == "article":
            self.document.sections.append(Section())

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._buffer.append(data)

    def end_block(self) -> None:
        """What was read since the last block is a paragraph, an item or a heading."""
        said, self._buffer = _plain("".join(self._buffer)), []
        heading, self._heading = self._heading, None
        if not said:
            return
        section = self.document.sections[-1]
        if heading == "h1" and not self.document.title:
            self.document.title = said
        elif heading and section.article and not section.heading and not section.paragraphs:
            section.heading = said
        elif heading:
            self.document.sections.append(Section(said))
        else:
            _add(section, said, in_item=self._items > 0)
