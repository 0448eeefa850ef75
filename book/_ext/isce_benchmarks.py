"""Sphinx extension: tables, pictures and numbers of the benchmarks, of what their scripts wrote into
``benchmarks/results``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from isce_made import draw, evidence, save_csv
from isce_report import ReportError, read_json
from isce_tables import caption_details, table_nodes, typeset
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from isce.report.plots import tables

BRACKETS = re.compile(r"\([^()]{,12}\)")  # short ones; a line breaks before them
logger = logging.getLogger(__name__)


class BenchmarkTable(SphinxDirective):
    """``benchmark-table attacks/steps``: a file of results and a table in the file, or the command that makes it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        file, _, name = self.arguments[0].partition("/")
        root = Path(self.env.srcdir).parent
        path = root / "benchmarks" / "results" / f"{file}.json"
        script = root / "benchmarks" / f"{file}.py"
        self.env.note_dependency(str(path))
        command = f"python benchmarks/{script.name} --out benchmarks/results/{path.name}"
        if not path.is_file():
            return [nodes.admonition("", nodes.title("", "Not run yet"), nodes.literal_block(command, command))]
        try:
            shown = read_json(path)["shown"][name or file]
            exhibit, files = self.exhibit(f"benchmark-{name or file}", shown)
        except (ReportError, KeyError) as error:
            logger.warning("%s: %s lacks %s", self.name, path.name, error, location=self.get_location())
            return []
        files += [(made.relative_to(root).as_posix(), made) for made in (path, script)]
        line = evidence(self.env, files, nodes.Text("run again with "), nodes.literal(command, command))
        return [nodes.container("", exhibit, *self.details(shown), line, classes=["isce-record"])]

    def details(self, shown: dict[str, Any]) -> list[nodes.Node]:
        """What the caption leaves out."""
        return caption_details(shown["caption"])

    def exhibit(self, name: str, shown: dict[str, Any]) -> tuple[nodes.Node, list[tuple[str, Path]]]:
        """What stands on the page, and its own file with a label."""
        caption, columns, rows, joined = (shown[key] for key in ("caption", "columns", "rows", "joined"))
        file = save_csv(self.env, name, columns, rows)
        rows = [
            [BRACKETS.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), c) for c in row] for row in rows
        ]
        return table_nodes(caption, columns, rows, kind="isce-prose", joined=joined), [("CSV", file)]


class BenchmarkFigure(BenchmarkTable):
    """``benchmark-figure gap/mechanisms``: a table drawn by the function of that name in ``isce.report.plots.tables``.

    The directive's text is the caption, ``:alt:`` what it shows in words.
    """

    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def details(self, shown: dict[str, Any]) -> list[nodes.Node]:
        return []

    def exhibit(self, name: str, shown: dict[str, Any]) -> tuple[nodes.Node, list[tuple[str, Path]]]:
        file = draw(self.env, name, getattr(tables, name.removeprefix("benchmark-"))(shown["columns"], shown["rows"]))
        figure = nodes.figure(classes=["isce-figure", "isce-plot"])
        place = os.path.relpath(file, Path(self.env.doc2path(self.env.docname)).parent)
        caption = " ".join(self.content)
        figure += nodes.image(uri=place, alt=self.options["alt"])
        figure += nodes.caption(caption, caption)
        return figure, [("SVG", file)]


class BenchmarkNumber(SphinxRole):
    """``{benchmark}`gap/tried` ``: a file of results and one of its ``numbers``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        file, _, name = self.text.partition("/")
        path = Path(self.env.srcdir).parent / "benchmarks" / "results" / f"{file}.json"
        self.env.note_dependency(str(path))
        try:
            text = typeset(read_json(path)["shown"]["numbers"][name])
        except (ReportError, KeyError) as error:
            logger.warning("benchmark: %s lacks %s", path.name, error, location=self.get_location())
            return [nodes.problematic(self.rawtext, self.text)], []
        return [nodes.inline(text, text)], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmark-figure", BenchmarkFigure)
    app.add_role("benchmark", BenchmarkNumber())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
