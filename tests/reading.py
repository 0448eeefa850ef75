"""What the book's reading part is, and the words of a page as its reader reads them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from isce.files import ROOT

BOOK = ROOT / "book"
_FENCE = re.compile(r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)[ ]*$", re.DOTALL | re.MULTILINE)
_END = re.compile(r"(?<=[.?!])[\"')*]*\s+(?=[A-Z*\"'(\[$])|(?<=:)\s*\n\n")


def reading_pages() -> list[Path]:
    """Return the pages of the table of contents before its appendix."""
    contents = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part for part in contents["parts"] if part["caption"] != "Appendix"]
    names = [contents["root"], *(chapter["file"] for part in parts for chapter in part["chapters"])]
    return [BOOK / f"{name}.md" for name in names]


def plain(text: str) -> str:
    """Return the prose of a page's source: no headings, directives, tables or maths; a role or formula is one word."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    while (shorter := _FENCE.sub("", text)) != text:
        text = shorter
    text = re.sub(r"^:{3,}[^\n]*$|^\([\w-]+\)=$|^%.*$|^#.*$|^\|.*$|^:\w[\w-]*:.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{term\}`([^`<]*?)(?: <[^`]*>)?`", r"\1", text)
    text = re.sub(r"\{(?:cite|cite:t)\}`[^`]*`", "", text)
    text = re.sub(r"\{[a-z:-]+\}`[^`]*`", "N", text)
    text = re.sub(r"\$\$.*?\$\$(?:\s*\([\w-]+\))?", "N", text, flags=re.DOTALL)
    text = re.sub(r"\$[^$]*\$|`[^`]*`", "N", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", lambda link: link[1] or "N", text)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs, list items and definitions of :func:`plain` text, each on one line."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.)\s)|\n(?=: )", plain(text))
    found = [re.sub(r"^(?:[*-]|\d+\.|:)\s+", "", " ".join(block.split())) for block in blocks]
    return [block for block in found if re.search(r"\w", block)]


def sentences(text: str) -> list[str]:
    """Return the sentences of a page."""
    return [one for block in paragraphs(text) for one in _END.split(block.replace("et al.", "et al")) if one]


def words(sentence: str) -> int:
    """Return the number of words."""
    return len(re.findall(r"[\w'.,/%-]*\w[\w'.,/%-]*", sentence))
