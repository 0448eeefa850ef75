"""Sphinx extension: the search puts the reading part first and shows the beginning of each page that it finds.

Sphinx's own excerpts are fetched, which browsers refuse for pages on the disk. These come in one script, which the page
of the search alone loads.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.config import Config

WORDS = 32  #: of an excerpt
EPSILON, FORMULA = r"\(\varepsilon\)", re.compile(r"\\\((?!\\varepsilon\\\)).*?\\\)")
#: A word in a title counts 15, one in a text 5, and a word of the glossary 108. Pages of the reading part get 8 more,
#: headings that hold what is looked for 20, those that say nothing else 40.
SCORER = """const plainly = (text) => text.toLowerCase().replace(/[^\\p{L}\\p{N}]+/gu, " ").trim().replace(/^the /, "");
var Scorer = {
  score: ([page, title, , , score]) => {
    const asked = plainly(new URLSearchParams(location.search).get("q") || "");
    const heading = plainly(title.split(" > ").pop());
    const fits = heading === asked ? 40 : ` ${heading} `.includes(` ${asked} `) ? 20 : 0;
    return Math.min(score, 30) + (READING.includes(page) ? 8 : 0) + fits;
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
"""


def reading_part(book: Path) -> list[str]:
    """Pages of the table of contents before the part called Appendix; none where there are no parts."""
    from sphinx_external_toc.parsing import parse_toc_yaml  # its own reader: other tools write the file, too

    contents = parse_toc_yaml(book / "_toc.yml")
    parts = [part for part in contents.root.subtrees if part.caption != "Appendix"]
    return [contents.root.docname, *(str(item) for part in parts for item in part.items)]


def write_scorer(app: Sphinx, config: Config) -> None:
    """Write the scorer beside the doctrees, for Sphinx to build it into its search."""
    reading = f"const READING = {json.dumps(reading_part(Path(app.srcdir)))};\n"
    path = Path(app.doctreedir) / "scorer.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(reading + SCORER, encoding="utf-8")
    config["html_search_scorer"] = str(path)


def load_excerpts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Only the page of the search needs them."""
    if page == "search":
        app.add_js_file("isce-excerpts.js")
        app.add_js_file("isce-search.js")


def write_excerpts(app: Sphinx, error: Exception | None) -> None:
    """Write the first words of every page."""
    if error is not None or app.builder.name != "html":
        return
    out, found = Path(app.outdir), dict[str, str]()
    for page in sorted(app.env.found_docs):
        text = (out / f"{page}.html").read_text(encoding="utf-8")
        start = text.find("<article")
        first = BeautifulSoup(text[start : text.find("</p>", text.find("<p>", start)) + 4], "html.parser").find("p")
        words = FORMULA.sub("…", first.get_text()).replace(EPSILON, "ε").split() if first else []
        found[page] = " ".join(words[:WORDS]) + (" …" if len(words) > WORDS else "")
    script = f"const EXCERPTS = {json.dumps(found, ensure_ascii=False, indent=0)};\n"
    (out / "_static" / "isce-excerpts.js").write_text(script, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.connect("config-inited", write_scorer)
    app.connect("html-page-context", load_excerpts)
    app.connect("build-finished", write_excerpts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
