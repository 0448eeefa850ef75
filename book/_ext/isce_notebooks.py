"""Sphinx extension: executed notebooks as pages.

A page of ``notebooks/`` is a stub: a notebook whose first cell is the page's title, and whose second holds
``{executed-notebook} experiment/kind``, the evidence. Where the report has that run's executed notebook, its cells take
the stub's place, but for these two: a title may have changed since.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from isce_report import ReportDirective, report_folder
from sphinx.application import Sphinx

TARGET = re.compile(r"\{executed-notebook\} ([a-z0-9-]+)/([a-z]+)")


class ExecutedNotebook(ReportDirective):
    """``executed-notebook digits/train``: which run the page shows, when and where it ran, and its files."""

    folder = "notebooks"

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("as executed", path.with_suffix(".ipynb"))]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        made = f"{about['created'][:16].replace('T', ' ')} UTC, commit {(about['commit'] or 'none')[:7]}"
        text = f"Run {about['run']} as it was executed: {made}, {about['seconds']:.0f} seconds on {about['device']}."
        return nodes.paragraph(text, text)


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the executed notebook, if there is one, in the place of its stub."""
    match = TARGET.search(source[0]) if docname.startswith("notebooks/") else None
    if match is None:
        return
    path = report_folder(app.config) / match[1] / "notebooks" / f"{match[2]}.ipynb"
    app.env.note_dependency(str(path))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        title, evidence = json.loads(source[0])["cells"][:2]
        first = found["cells"][0]
        first["source"] = re.sub(r"\A# .*", lambda _: title["source"], "".join(first["source"]))
        found["cells"].insert(1, evidence)
        source[0] = json.dumps(found)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directive and step."""
    app.add_directive("executed-notebook", ExecutedNotebook)
    app.connect("source-read", fill)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
