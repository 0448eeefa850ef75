"""Sphinx extension: what the build makes itself, theory figures and plain tables, with their files and their code.

The figures are drawn into ``figures`` beside the book's sources, tables saved as CSV beside the doctrees; a line below
each offers the file and says what made it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

from docutils import nodes
from isce_report import LONG, typeset
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from isce.files import write_atomic
from isce.report.plots import theory as theory_figures

FIGURES = "figures"
SHORT = 14  #: letters of a cell that never wraps


def link(env: BuildEnvironment, file: Path, text: str) -> nodes.Node:
    """A link of the page that is read to a copy of a file; Sphinx copies what lies outside its sources, too."""
    place = os.path.relpath(file, Path(env.doc2path(env.docname)).parent)
    return download_reference("", "", nodes.inline(text, text), reftarget=place)


def evidence(env: BuildEnvironment, files: Iterable[tuple[str, Path]], *rest: nodes.Node) -> nodes.container:
    """The line below a table or figure: links to its files by their labels, and what else there is to say."""
    line = nodes.paragraph(classes=["isce-links"])
    for label, file in files:
        line += [link(env, file, label), nodes.Text(" · ")]
    line += rest
    return nodes.container("", line, classes=["isce-evidence"])


def made_by(env: BuildEnvironment, function: str, source: str) -> list[nodes.Node]:
    """The function that makes it at each build, and a link to its file, which is named from the repository's root."""
    return [
        nodes.Text("made when the book is built, by "),
        nodes.literal(function, f"{function}()"),
        nodes.Text(" of "),
        link(env, Path(env.srcdir).parent / source, source),
    ]


def plain_table(
    caption: str, columns: list[str], rows: list[list[str]], joined: int = 0, prose: bool = False
) -> nodes.table:
    """A table of texts; the first column names the rows.

    Args:
        caption: above it.
        columns: their headings.
        rows: their cells.
        joined: in so many leading columns an empty cell goes on with the one above it.
        prose: cells may wrap, but for short ones.
    """
    kind = ["isce-prose"] if prose else []
    table = nodes.table("", nodes.title(caption, typeset(caption)), classes=["isce-table", *kind])
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1, stub=(number == 0 and not joined)) for number in range(len(columns))]
    for kind, lines in ((nodes.thead, [columns]), (nodes.tbody, rows)):
        part = kind()
        for number, cells in enumerate(lines):
            part += nodes.row("", *_entries(lines, number, joined if lines is rows else 0, cells))
        group += part
    table += group
    return table


def _entries(lines: list[list[str]], number: int, joined: int, cells: list[str]) -> Iterable[nodes.entry]:
    for column, cell in enumerate(cells):
        if column < joined and number and not cell:
            continue
        entry = nodes.entry("", nodes.paragraph(cell, typeset(cell)))
        entry["classes"] += ["isce-short"] * (len(cell) <= SHORT) + ["isce-long"] * (len(cell) > LONG)
        entry["classes"] += ["isce-head"] * (column == 0 and joined > 0)
        if column < joined:
            more = len(list(takewhile(lambda line: not line[column], lines[number + 1 :])))  # noqa: B023
            entry.attributes |= {"morerows": more} if more else {}
        yield entry


def save_csv(env: BuildEnvironment, name: str, columns: list[str], rows: list[list[str]]) -> Path:
    """The table as a file; one whose content stays the same is left alone, so that its pages needn't be read again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path = Path(env.doctreedir) / "tables" / f"{name}.csv"
    _write(path, text.getvalue())
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def draw_figures(app: Sphinx) -> None:
    """Draw the theory figures; files whose content stays the same are left alone."""
    theory_figures.write_all(Path(app.srcdir) / FIGURES)


def show_evidence(app: Sphinx, doctree: nodes.document) -> None:
    """Below each theory figure its file and the code that drew it."""
    drawn = {draw.__name__ for draw in theory_figures.FIGURES}
    page = Path(app.env.doc2path(app.env.docname)).parent
    for figure in list(doctree.findall(nodes.figure)):
        for picture in figure.findall(nodes.image):
            file = (page / picture["uri"]).resolve()
            if file.parent == Path(app.srcdir).resolve() / FIGURES and file.stem in drawn:
                figure["classes"].append("isce-plot")
                how = made_by(app.env, file.stem, "isce/report/plots/theory.py")
                figure.parent.insert(figure.parent.index(figure) + 1, evidence(app.env, [("SVG", file)], *how))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.connect("builder-inited", draw_figures)
    app.connect("doctree-read", show_evidence, priority=400)  # before downloads are collected
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
