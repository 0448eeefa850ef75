"""Sphinx extension: pointing at a link to a theorem, an equation or a word of the glossary shows it.

After the build each page gets, for every such link, a copy of what it leads to inside a ``<template>``, which costs
nothing until ``isce-previews.js`` shows it. So it works from ``file://``, and without scripts the links are links.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

LINK = re.compile(r'href="(?P<page>[\w./-]*)#(?P<id>(?:thm|def|rem|cor|conj|equation|term)-[\w-]+)"')
START, END = "<!-- previews -->", "<!-- end of previews -->"
OLD = re.compile(f"{START}.*?{END}", re.DOTALL)


def add_previews(app: Sphinx, error: Exception | None) -> None:
    """Write the templates into every page of the built book."""
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir).resolve()
    parsed: dict[Path, BeautifulSoup] = {}
    for path in sorted(out.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        links = {match["page"] + "#" + match["id"] for match in LINK.finditer(text)}
        found = {link: content for link in sorted(links) if (content := _target(path, link, out, parsed))}
        templates = "".join(
            f'<template class="isce-preview-of" data-href="{html.escape(link)}">{content}</template>'
            for link, content in found.items()
        )
        body = OLD.sub("", text)
        new = body.replace("</body>", f"{START}{templates}{END}</body>") if templates else body
        if new != text:
            path.write_text(new, encoding="utf-8")


def _target(page: Path, link: str, out: Path, parsed: dict[Path, BeautifulSoup]) -> str:
    """What a link leads to, as HTML without ids; empty where there is no such thing in this book."""
    where, _, name = link.partition("#")
    path = (page.parent / where).resolve() if where else page.resolve()
    if not path.is_relative_to(out) or not path.is_file():
        return ""
    if path not in parsed:
        parsed[path] = BeautifulSoup(OLD.sub("", path.read_text(encoding="utf-8")), "html.parser")
    element = parsed[path].find(id=name)
    if not isinstance(element, Tag):
        return ""
    meaning = element.find_next_sibling("dd") if element.name == "dt" else None  # a word of the glossary
    copy = BeautifulSoup(f"{element}{meaning or ''}", "html.parser")
    for part in copy.find_all(True):
        part.attrs.pop("id", None)
    for anchor in copy.select("a.headerlink"):
        anchor.decompose()
    for anchor in copy.find_all("a"):
        anchor.unwrap()  # relative links of another page lead nowhere from here, and a preview holds no links
    return str(copy)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("build-finished", add_previews)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
