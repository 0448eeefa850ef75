"""Reading a report folder, for the extension ``isce_book``, and its two directives."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from isce_repository import launches
from isce_tables import caption_details, captioned, folded, readable, split_caption, table_nodes
from sphinx.addnodes import download_reference
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<experiment>[a-z0-9][a-z0-9_-]*)/(?P<item>[A-Za-z0-9][A-Za-z0-9_.:@-]*)")
STALE = "Parameters, a package or the results of an attack have changed since; the command below computes it afresh."
NONE = "The records hold nothing to show here."
NOT_RUN = "not run yet"


class ReportError(Exception):
    """The page asks for something that a report, though there, doesn't hold, or the report is damaged."""


def report_folder(config: Config) -> Path:
    """The report folder of this build, absolute."""
    return Path(config.isce_report)


def split(target: str) -> tuple[str, str]:
    """``experiment/item`` as a pair; nothing that could climb out of the report folder passes."""
    match = NAME.fullmatch(target.strip())
    if match is None:
        raise ReportError(f"expected <experiment>/<name>, got {target!r}")
    return match["experiment"], match["item"]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"can't read {path.name} of the report: {error}") from None
    if not isinstance(content, dict):
        raise ReportError(f"{path.name} of the report must hold a mapping")
    return content


def command_for(experiment: str) -> str:
    """The command that runs an experiment."""
    return "make reproduce" if experiment == "digits" else f"make reproduce EXPERIMENT={experiment}"


class ReportDirective(SphinxDirective):
    """Common part of ``records-table``, ``records-figure`` and what else shows a file of a report.

    With the flag ``optional`` a report may lack the item; without it that is a warning.
    """

    required_arguments = 1
    option_spec: ClassVar = {"optional": directives.flag}
    folder = ""
    classes: ClassVar = ["isce-record"]

    def run(self) -> list[nodes.Node]:
        try:
            return self._run()
        except ReportError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
        except KeyError as error:
            logger.warning("%s: the report lacks %s", self.name, error, location=self.get_location())
        self.env.note_reread()  # so that the next build complains again
        return []

    def _run(self) -> list[nodes.Node]:
        experiment, name = split(self.arguments[0])
        report = report_folder(self.config) / experiment
        done, path = report / "numbers.json", report / self.folder / f"{name}.json"
        for needed in (done, path):
            self.env.note_dependency(str(needed))
        if not done.is_file():
            return self.not_run(experiment)
        if not path.is_file() and "optional" in self.options:
            return [nodes.paragraph(NONE, NONE, classes=["isce-none"])]
        if not path.is_file():
            raise ReportError(
                f"experiment {experiment!r} has been run, but its report has no {self.folder}/{name}.json"
            )
        about = read_json(path)
        box = nodes.container(classes=list(self.classes))
        box += self.content_nodes(path, about)
        box += caption_details(about.get("caption", ""))
        box += self.evidence(path, about)
        return [box]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        """The table or figure itself."""
        raise NotImplementedError

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        """What can be downloaded: (label, file)."""
        raise NotImplementedError

    def not_run(self, experiment: str) -> list[nodes.Node]:
        """A box that says so, with the command; once for an experiment on a page."""
        told = self.env.temp_data.setdefault("isce_not_run", set())
        if experiment in told:
            return []
        told.add(experiment)
        command = command_for(experiment)
        box = nodes.admonition(classes=["isce-missing"])
        box += nodes.title("Not run yet", "Not run yet")
        box += nodes.paragraph("", "There are no records of this experiment. This command makes them:")
        box += nodes.literal_block(command, command, language="console")
        return [box]

    def evidence(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        """Where it comes from, folded away but for a stale mark: downloads, notebook, command, and the records."""
        summary, content = "Data and source", list[nodes.Node]()
        if about.get("stale"):
            summary += ' <span class="isce-badge">stale</span>'
            content.append(nodes.paragraph(STALE, STALE, classes=["isce-stale"]))
        line = nodes.paragraph(classes=["isce-links"])
        files = nodes.inline(classes=["isce-files"])
        for label, file in self.files(path, about):
            files += [self.download(file.name, path.parent, label), nodes.Text(" · ")]
        notebook = str(about["notebook"])
        line += [files, nodes.Text("made by "), self.download(notebook, Path(self.env.srcdir).parent)]
        address, branch = self.config.isce_repository
        for name, url in launches(address, branch, notebook):
            line += [nodes.Text(" · "), nodes.reference(name, name, refuri=url, internal=False)]
        line += [nodes.Text(" · run again with "), nodes.literal(about["command"], about["command"])]
        content.append(line)
        sources = [str(source) for source in about["sources"]]
        count = f"{len(sources)} record" + ("s" if len(sources) != 1 else "")
        items = nodes.bullet_list()
        for source in sources:
            entry = self.download(source, Path(self.config.isce_records))
            items += nodes.list_item("", nodes.paragraph("", "", entry))
        content += folded(count, items, kind="isce-sources")
        return nodes.container("", *folded(summary, *content, kind="isce-origin"), classes=["isce-evidence"])

    def download(self, name: str, folder: Path, label: str = "") -> nodes.Node:
        """A link to a copy of ``folder/name`` inside the book, or just its name if it isn't there."""
        file = folder / name
        self.env.note_dependency(str(file))
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            return nodes.literal(name, name)
        text = label or name
        return download_reference("", "", nodes.inline(text, text), reftarget=self.relative(file))

    def relative(self, file: Path) -> str:
        """The file as seen from the page: Sphinx copies what lies outside its sources, too."""
        return os.path.relpath(file, Path(self.env.doc2path(self.env.docname)).parent)


class RecordsTable(ReportDirective):
    """``records-table``: a table of a report, in a box that scrolls sideways on a small screen.

    With the flag ``wrap`` its cells are sentences, see :func:`isce_tables.table_nodes`.
    """

    folder = "tables"
    option_spec: ClassVar = {"optional": directives.flag, "wrap": directives.flag}

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("CSV", path.parent / Path(about["csv"]).name)]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        columns, rows = about["columns"], about["rows"]
        if any(len(row) != len(columns) for row in rows):
            raise ReportError(f"{path.name}: every row must have {len(columns)} cells")
        columns, rows = readable(columns, rows)
        return table_nodes(about["caption"], columns, rows, wrap="wrap" in self.options)


class RecordsFigure(ReportDirective):
    """``records-figure``: a figure of a report with caption and alternative text."""

    folder = "plots"

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("SVG", path.with_suffix(".svg")), ("PDF", path.with_suffix(".pdf"))]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        picture = path.with_suffix(".svg")
        if not picture.is_file():
            raise ReportError(f"the report has {path.name} but no {picture.name}")
        drawn = b"<image" not in picture.read_bytes()  # lines and letters alone: the dark theme may invert them
        figure = nodes.figure(classes=["isce-figure", *(["isce-plot"] if drawn else [])])
        figure += nodes.image(uri=self.relative(picture), alt=about["alt"])
        shown, _ = split_caption(about["caption"])
        figure += nodes.caption(shown, "", *captioned(shown))
        return figure
