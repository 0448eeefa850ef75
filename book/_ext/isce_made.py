"""Sphinx extension: what the build makes itself, theory figures and plain tables, with their files and their code.

The figures are drawn into ``figures`` beside the book's sources, tables saved as CSV beside the doctrees; a line below
each offers the file and says what made it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from isce_report import RecordsTable, report_folder
from isce_tables import caption_details, folded, table_nodes
from matplotlib.figure import Figure
from sphinx import addnodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from isce.files import write_atomic
from isce.report import worked
from isce.report.attacks import records
from isce.report.exhibits import Table
from isce.report.plots import theory as theory_figures
from isce.report.plots.runs import as_bytes
from isce.report.reference import Files

logger = logging.getLogger(__name__)
FIGURES = "figures"


def link(env: BuildEnvironment, file: Path, text: str) -> nodes.Node:
    """A link of the page that is read to a copy of a file; Sphinx copies what lies outside its sources, too."""
    place = os.path.relpath(file, Path(env.doc2path(env.docname)).parent)
    return download_reference("", "", nodes.inline(text, text), reftarget=place)


def evidence(env: BuildEnvironment, files: Iterable[tuple[str, Path]], *rest: nodes.Node) -> nodes.container:
    """What is folded below a table or figure: links to its files by their labels, and what else there is to say."""
    line = nodes.paragraph(classes=["isce-links"])
    for label, file in files:
        line += [link(env, file, label), nodes.Text(" · ")]
    line += rest
    return nodes.container("", *folded("Data and source", line, kind="isce-origin"), classes=["isce-evidence"])


def made_by(env: BuildEnvironment, function: str, source: str) -> list[nodes.Node]:
    """The function that makes it at each build, and a link to its file, which is named from the repository's root."""
    return [
        nodes.Text("made when the book is built, by "),
        nodes.literal(function, f"{function}()"),
        nodes.Text(" of "),
        link(env, Path(env.srcdir).parent / source, source),
    ]


def save_csv(env: BuildEnvironment, name: str, columns: list[str], rows: list[list[str]]) -> Path:
    """The table as a file; one whose content stays the same is left alone, so that its pages needn't be read again."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path = Path(env.doctreedir) / "tables" / f"{name}.csv"
    _write(path, text.getvalue())
    return path


def draw(env: BuildEnvironment, name: str, figure: Figure) -> Path:
    """The figure as a file beside the book's sources; one whose content stays the same is left alone."""
    path = Path(env.srcdir) / FIGURES / f"{name}.svg"
    _write(path, as_bytes(figure, "svg").decode())
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def files_of(directive: SphinxDirective) -> Files:
    """Return the files of the build that a directive is in."""
    root, env = Path(directive.env.srcdir).parent, directive.env
    return Files(root, report_folder(directive.config), lambda path: env.note_dependency(str(path)))


class MadeTable(SphinxDirective):
    """``made-table reference.effort``, ``made-table attacks.facts pgd``: a table of ``isce.report``.

    The function takes :class:`Files` and the further arguments. A class of the table may be given, ``:kind:``, the
    folder of the pages that the names in its first column lead to, ``:links:``, ``:wrap:``: its cells are sentences.
    """

    required_arguments = 1
    optional_arguments = 1
    option_spec: ClassVar = {"kind": directives.unchanged, "links": directives.unchanged, "wrap": directives.flag}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(".")
        made: Table = getattr(import_module(f"isce.report.{module}"), name)(files_of(self), *self.arguments[1:])
        if not made.rows:
            return [nodes.paragraph(made.caption, made.caption, classes=["isce-none"])]
        kind, wrap = self.options.get("kind", "isce-prose"), "wrap" in self.options
        table = table_nodes(made.caption, made.columns, made.rows, kind=kind, wrap=wrap)
        file = save_csv(self.env, "-".join((name, *self.arguments[1:])), made.columns, made.rows)
        line = evidence(self.env, [("CSV", file)], *made_by(self.env, name, f"isce/report/{module}.py"))
        if folder := self.options.get("links"):
            for row in next(iter(table.findall(nodes.tbody))).findall(nodes.row):
                self.link(next(iter(row.findall(nodes.paragraph))), folder)
        content = [table, *caption_details(made.caption), line]
        return content if "kind" in self.options else [nodes.container("", *content, classes=["isce-record"])]

    def link(self, cell: nodes.paragraph, folder: str) -> None:
        """Let the name in a cell lead to the page of this name."""
        name = cell.astext()
        about = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True}
        about |= {"reftarget": f"{folder}/{name}", "refdoc": self.env.docname}
        cell.children = []
        cell += addnodes.pending_xref("", nodes.literal(name, name), **about)


class WorkedRole(SphinxRole):
    """``{worked}`isce.loss` ``: one number of the example of the first page, computed by ``isce.report.worked``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = worked.numbers()
        if text := known.get(self.text):
            return [nodes.inline(text, text)], []
        logger.warning("worked %s: one of %s", self.text, ", ".join(known), location=self.get_location())
        return [nodes.problematic(self.rawtext, self.text)], []


class AttackLeft(RecordsTable):
    """``attack-left pgd``: what it left, one table for each experiment whose records have a row of it."""

    def run(self) -> list[nodes.Node]:
        name, files = self.arguments[0], files_of(self)
        have, lack = records(files)[name]
        found: list[nodes.Node] = []
        for experiment in have:
            self.arguments = [f"{experiment}/attack-{name}"]
            found += super().run()
        texts = [] if have else ["Not run: no record has a row of it."]
        texts += [f"Not run yet, though their suites ask for it: {', '.join(lack)}."] if lack else []
        return [*found, *(nodes.paragraph(text, text, classes=["isce-none"]) for text in texts)]


class ExperimentFiles(SphinxDirective):
    """``experiment-files``: every experiment file as it stands."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for path in sorted((Path(self.env.srcdir).parent / "experiments").glob("*.yaml")):
            self.env.note_dependency(str(path))
            name, text = f"experiments/{path.name}", path.read_text(encoding="utf-8")
            found += [nodes.rubric(name, name), nodes.literal_block(text, text, language="yaml")]
        return found


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
    app.add_directive("made-table", MadeTable)
    app.add_role("worked", WorkedRole())
    app.add_directive("attack-left", AttackLeft)
    app.add_directive("experiment-files", ExperimentFiles)
    app.connect("builder-inited", draw_figures)
    app.connect("doctree-read", show_evidence, priority=400)  # before downloads are collected
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
