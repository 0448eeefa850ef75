"""Sphinx extension: a figure in which the reader chooses attack, eps and objectives.

The page carries its figures as JSON, and ``isce-chooser.js`` draws them. Without the script nothing of it shows; the
tables of the page hold the same records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from isce_report import ReportDirective
from isce_tables import captioned, split_caption
from sphinx.application import Sphinx

SHOWN = ("start", "kinds", "objectives", "attacks")


class AttackChooser(ReportDirective):
    """``attack-chooser mnist``: the figure of one experiment."""

    folder = "charts"
    classes: ClassVar = [*ReportDirective.classes, "isce-chooser"]

    def run(self) -> list[nodes.Node]:
        self.arguments = [f"{self.arguments[0]}/chooser"]
        return super().run()

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("JSON", path)]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        data = json.dumps({name: about[name] for name in SHOWN}, separators=(",", ":")).replace("<", r"\u003c")
        script = f'<script type="application/json">{data}</script>'
        shown, _ = split_caption(about["caption"])
        caption = nodes.paragraph(shown, "", *captioned(shown), classes=["isce-chooser-caption"])
        return nodes.container("", nodes.raw("", script, format="html"), caption)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("attack-chooser", AttackChooser)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
