"""Sphinx extension: tables of the benchmarks, as their scripts wrote them into ``benchmarks/results``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from isce_made import evidence, save_csv
from isce_report import ReportError, read_json
from isce_tables import caption_details, table_nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

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
            caption, columns, rows, joined = (shown[key] for key in ("caption", "columns", "rows", "joined"))
        except (ReportError, KeyError) as error:
            logger.warning("benchmark-table: %s lacks %s", path.name, error, location=self.get_location())
            return []
        files = [("CSV", save_csv(self.env, f"benchmark-{name or file}", columns, rows))]
        files += [(made.relative_to(root).as_posix(), made) for made in (path, script)]
        line = evidence(self.env, files, nodes.Text("run again with "), nodes.literal(command, command))
        table = table_nodes(caption, columns, rows, joined=joined)
        return [nodes.container("", table, *caption_details(caption), line, classes=["isce-record"])]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
