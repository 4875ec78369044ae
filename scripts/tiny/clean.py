"""Turn package files into text worth learning from.

Owns the light clean-up of the three kinds of file that `sources.py` names. reStructuredText loses
the markup that only Sphinx reads (roles, labels, index entries) and keeps headings, lists and code;
HTML loses its tags and navigation; Python loses its licence header. It does not judge style:
`keep()` only drops documents that are mostly tables, data or not English.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_ASCII = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
        "\u00a0": " ",
        "\u200b": "",
        "\ufeff": "",
        "\u00b6": "",
        "\u2192": "->",
        "\u2022": "*",
        "\t": "    ",
        "\r": "",
    }
)

_ROLE_TITLED = re.compile(r":[a-zA-Z][\w:.+-]*:`([^`<]+?)\s*<[^`>]*>`")
_ROLE = re.compile(r":[a-zA-Z][\w:.+-]*:`[~!]?([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
_REF = re.compile(r"`([^`\n]+)`__?(?=\W|$)")
_SUBST = re.compile(r"\|([\w. -]+)\|_?")
_DROP_LINE = re.compile(r"^\s*\.\. (_[^:\n]+:.*|\|[^|]+\|.*|\[\w+\] *)$|^\s*:(orphan|tocdepth):.*$")
_DROP_BLOCK = re.compile(
    r"^(\s*)\.\. (index|image|figure|toctree|only|raw|meta|highlight|currentmodule|module|"
    r"moduleauthor|sectionauthor|"
    r"contents|include|literalinclude|autoclass|automodule|autofunction|automethod|autosummary|"
    r"autoexception|autodata|autoattribute|default-role|testsetup|testcleanup|ipython|plot|"
    r"tabularcolumns|role|rst-class|"
    r"program|default-domain|container|sidebar|csv-table)::"
)
_SKIP_CLASSES = (
    "navheader",
    "navfooter",
    "nav-wrapper",
    "sidebar",
    "footer",
    "menu",
    "searchmenu",
    "toc",
    "submenu",
    "sphinxsidebar",
    "related",
    "headerlink",
    "bd-sidebar-primary",
    "bd-sidebar-secondary",
    "bd-header",
    "prev-next-area",
    "sphinxsidebarwrapper",
    "wy-nav-side",
    "rst-footer-buttons",
)
_BLOCKS = frozenset(
    [
        "p",
        "div",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "li",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "tr",
        "table",
        "pre",
        "br",
        "section",
        "article",
        "blockquote",
    ]
)
_VOID = frozenset(
    [
        "br",
        "img",
        "hr",
        "meta",
        "link",
        "input",
        "area",
        "base",
        "col",
        "embed",
        "source",
        "track",
        "wbr",
    ]
)


def normalise(text: str) -> str:
    """Return text with ASCII punctuation, no trailing blanks and at most two blank lines in a
    row."""
    text = "\n".join(line.rstrip() for line in text.translate(_ASCII).split("\n"))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"


def clean_rst(text: str) -> str:
    """Return the prose and code of a reStructuredText file without Sphinx's own markup."""
    kept: list[str] = []
    lines = text.split("\n")
    i = 0
    while i < len(lines):
        line = lines[i]
        i += 1
        block = _DROP_BLOCK.match(line)
        comment = (
            re.match(r"^(\s*)\.\.(\s|$)", line)
            and "::" not in line
            and not re.match(r"^\s*\.\. \[", line)
        )
        if block or (comment and not _DROP_LINE.match(line)):
            indent = len(line) - len(line.lstrip())
            while i < len(lines) and (
                not lines[i].strip() or len(lines[i]) - len(lines[i].lstrip()) > indent
            ):
                i += 1
            kept.append("")
            continue
        if _DROP_LINE.match(line):
            continue
        kept.append(line)
    body = "\n".join(kept)
    for pattern, new in (
        (_ROLE_TITLED, r"\1"),
        (_ROLE, r"``\1``"),
        (_LINK, r"\1"),
        (_REF, r"\1"),
        (_SUBST, r"\1"),
    ):
        body = pattern.sub(new, body)
    body = re.sub(r"``([^`\n]+)``", r"`\1`", body)
    return normalise(re.sub(r"\n{3,}", "\n\n", body))


class _Text(HTMLParser):
    """Collects visible text; `pre` keeps its line breaks, everything else is reflowed by
    paragraphs."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self.skip: list[str] = []
        self.pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            if tag == "br" and not self.skip:
                self.out.append("\n")
            return
        names = " ".join(v or "" for k, v in attrs if k in ("class", "id"))
        hidden = tag in (
            "script",
            "style",
            "nav",
            "header",
            "footer",
            "head",
            "button",
            "svg",
            "form",
        )
        if self.skip or hidden or any(name in names.split() for name in _SKIP_CLASSES):
            self.skip.append(tag)
            return
        if tag in _BLOCKS:
            self.out.append("\n\n" if tag not in ("tr", "dt", "dd", "li") else "\n")
        if tag == "li":
            self.out.append("* ")
        elif tag in ("td", "th"):
            self.out.append("  ")
        self.pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self.skip:
            if tag in self.skip:
                while self.skip and self.skip.pop() != tag:
                    pass
            return
        self.pre -= tag == "pre" and self.pre > 0
        if tag in _BLOCKS:
            self.out.append("\n" if tag in ("li", "dt", "dd", "tr") else "\n\n")

    def handle_data(self, data: str) -> None:
        if not self.skip:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def clean_html(text: str) -> str:
    """Return the visible text of an HTML page."""
    parser = _Text()
    parser.feed(text)
    lines = [
        line if line.startswith("    ") else line.strip(" ")
        for line in "".join(parser.out).split("\n")
    ]
    return normalise(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)))


def clean_code(text: str) -> str:
    """Return a Python module without a leading licence comment."""
    lines = text.split("\n")
    start = 0
    while start < len(lines) and (not lines[start].strip() or lines[start].startswith("#")):
        start += 1
    head = "\n".join(lines[:start]).lower()
    if "licen" in head or "copyright" in head or "coding" in head:
        lines = lines[start:]
    return normalise("\n".join(lines))


def keep(text: str) -> bool:
    """Whether a cleaned document is long enough and mostly ASCII words."""
    if not 300 <= len(text) <= 400_000 or "\0" in text:
        return False
    ascii_share = len(text.encode("ascii", "ignore")) / len(text.encode())
    letters = sum(c.isalpha() for c in text) / max(1, sum(not c.isspace() for c in text))
    longest = max(len(line) for line in text.split("\n"))
    return ascii_share > 0.97 and letters > 0.6 and longest < 5000
