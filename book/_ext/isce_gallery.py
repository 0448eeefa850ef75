"""Sphinx extension: images under attack in one table, of which the reader chooses data set, attack or loss.

Without ``isce-gallery.js`` each data set is a table of all losses under its first attack.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from isce_report import ReportDirective
from isce_tables import TIMES, typeset
from sphinx.application import Sphinx

SHOWN = ("title", "classes", "losses", "attacks", "found", "factors")
CAPTION = "Beside each image the change, amplified; below, predicted class and probability, ≠ where wrong."


class gallery(nodes.image):  # noqa: N801
    """The picture of one data set, and what the table says of it."""


class AttackGallery(ReportDirective):
    """``attack-gallery mnist``, with a ``:title:``: the images of one experiment."""

    folder = "charts"
    classes: ClassVar = [*ReportDirective.classes, "isce-gallery"]
    option_spec: ClassVar = {"title": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        self.arguments = [f"{self.arguments[0]}/gallery"]
        return super().run()

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("JSON", path), ("PNG", path.with_suffix(".png"))]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        picture = path.with_suffix(".png")
        self.env.note_dependency(str(picture))
        about["attacks"] = [[name, typeset(threat)] for name, threat in about["attacks"]]
        return gallery(uri=self.relative(picture), about={"title": self.options["title"], **about})


def visit_gallery(self: Any, node: gallery) -> None:
    """Write the table of all losses under the first attack, and the data of the others."""
    about, file = node["about"], self.builder.images[node["uri"]]
    images, attacks = len(about["classes"]), len(about["attacks"])

    def tile(column: int, row: int) -> str:
        picture = f"background-image: url({self.builder.imgpath}/{file}); --isce-column: {column}; --isce-row: {row}"
        return f'<span class="isce-tile" style="{picture}"></span>'

    heads = "".join(f'<th scope="col">{tile(k, 0)}<br>{escape(name)}</th>' for k, name in enumerate(about["classes"]))
    bodies = ""
    for loss, (name, found) in enumerate(zip(about["losses"], about["found"], strict=True)):
        factor = about["factors"][loss][0]
        change = f"change {TIMES} {factor}" if factor else "no change"
        head = f'<th colspan="{images}" scope="rowgroup">{escape(name)} <span>{change}</span></th>'
        cells = ""
        for k, (taken, percent, right) in enumerate(found[1]):
            pair = "".join(tile(column, 1 + loss * attacks) for column in (k, images + k))
            kind, sign = ("", "") if right else (' class="isce-wrong"', " ≠")
            cells += f"<td>{pair}<p{kind}>{escape(taken)} ({percent}%){sign}</p></td>"
        bodies += f"<tbody><tr>{head}</tr><tr>{cells}</tr></tbody>"
    shown = escape(f"{about['title']}, {', '.join(about['attacks'][0])}.")
    data = json.dumps({name: about[name] for name in SHOWN}, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", r"\u003c")
    self.body.append(
        f'<script type="application/json">{data}</script>'
        f'<table class="isce-gallery-table" style="--isce-columns: {2 * images}">'
        f'<caption><b aria-live="polite">{shown}</b> {CAPTION}</caption><thead><tr>{heads}</tr></thead>{bodies}</table>'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register node and directive."""
    app.add_node(gallery, html=(visit_gallery, None))
    app.add_directive("attack-gallery", AttackGallery)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
