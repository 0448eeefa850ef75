"""Sphinx extension: numbers, tables and figures of the book come from a report folder, never from typing.

The folder is named by the environment variable ``ISCE_REPORT`` (default: ``generated`` beside the book's sources) and
holds one folder per experiment: ``numbers.json``, ``tables/<name>.json`` and ``.csv``, ``figures/<name>.json``,
``.svg`` and ``.pdf``. An experiment without ``numbers.json`` has not been run, and shows as such. The records that a
report names are looked up below ``ISCE_RECORDS``; those found there can be downloaded from the page.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<experiment>[a-z0-9][a-z0-9_-]*)/(?P<item>[A-Za-z0-9][A-Za-z0-9_.:@-]*)")
STALE = "The code or the parameters have changed since this was computed; the command below computes it afresh."
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


class RecordRole(SphinxRole):
    """``{record}`digits/sce.clean` ``: one number of a report, with its records as hover title.

    ``@main`` at the end of a key stands for ``@`` and the experiment's main eps.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            return [self._number()], []
        except ReportError as error:
            logger.warning("record %s: %s", self.text, error, location=self.get_location())
            return [nodes.problematic(self.rawtext, self.text)], []

    def _number(self) -> nodes.Node:
        experiment, key = split(self.text)
        path = report_folder(self.config) / experiment / "numbers.json"
        self.env.note_dependency(str(path))
        if not path.is_file():
            hint = f"Run {command_for(experiment)} to fill this in."
            return nodes.abbreviation(NOT_RUN, NOT_RUN, explanation=hint, classes=["isce-not-run"])
        numbers = read_json(path)
        if key.endswith("@main") and "eps_main" in numbers:
            key = key.removesuffix("main") + str(numbers["eps_main"]["text"])
        if key not in numbers:
            close = ", ".join(sorted(numbers)[:12])
            raise ReportError(f"no number {key!r} in experiment {experiment!r}; the first that exist: {close}")
        number = numbers[key]
        source = number["source"]
        names = [source] if isinstance(source, str) else list(source)
        title = "from " + ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        classes = ["isce-number"]
        if number.get("stale"):
            title = f"stale ({STALE.split(';')[0].lower()}); {title}"
            classes.append("isce-stale-number")
        return nodes.abbreviation(number["text"], number["text"], explanation=title, classes=classes)


class ReportDirective(SphinxDirective):
    """Common part of ``records-table`` and ``records-figure``."""

    required_arguments = 1
    folder = ""

    def run(self) -> list[nodes.Node]:
        try:
            return self._run()
        except ReportError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location())
            return []

    def _run(self) -> list[nodes.Node]:
        experiment, name = split(self.arguments[0])
        report = report_folder(self.config) / experiment
        done, path = report / "numbers.json", report / self.folder / f"{name}.json"
        for needed in (done, path):
            self.env.note_dependency(str(needed))
        if not done.is_file() or (not path.is_file() and "optional" in self.options):
            return [self.not_run(experiment)]
        if not path.is_file():
            raise ReportError(f"experiment {experiment!r} has been run, but its report has no {self.folder}/{name}.json")
        about = read_json(path)
        box = nodes.container(classes=["isce-record"])
        box += self.content_nodes(path, about)
        box += self.evidence(path, about)
        return [box]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        """The table or figure itself."""
        raise NotImplementedError

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        """What can be downloaded: (label, file)."""
        raise NotImplementedError

    def not_run(self, experiment: str) -> nodes.Node:
        """A box that says so, with the command."""
        command = command_for(experiment)
        box = nodes.admonition(classes=["isce-missing"])
        box += nodes.title("Not run yet", "Not run yet")
        box += nodes.paragraph("", "No records of this experiment are at hand. This command makes them:")
        box += nodes.literal_block(command, command, language="console")
        return box

    def evidence(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        """Where it comes from: stale mark, downloads, notebook, command, and the records, folded away."""
        box = nodes.container(classes=["isce-evidence"])
        if about.get("stale"):
            badge = nodes.inline("stale", "stale", classes=["isce-badge"])
            box += nodes.paragraph("", "", badge, nodes.Text(" " + STALE), classes=["isce-stale"])
        line = nodes.paragraph(classes=["isce-links"])
        for label, file in self.files(path, about):
            line += [self.download(label, file), nodes.Text(" · ")]
        notebook = str(about["notebook"])
        line += [nodes.Text("made by "), self.download(notebook, Path(self.env.srcdir).parent / notebook)]
        line += [nodes.Text(" · run again with "), nodes.literal(about["command"], about["command"])]
        box += line
        sources = [str(source) for source in about["sources"]]
        count = f"{len(sources)} record" + ("s" if len(sources) != 1 else "")
        box += nodes.raw("", f'<details class="isce-sources"><summary>{count}</summary>', format="html")
        items = nodes.bullet_list()
        for source in sources:
            entry = self.download(source, Path(self.config.isce_records) / source)
            items += nodes.list_item("", nodes.paragraph("", "", entry))
        box += items
        box += nodes.raw("", "</details>", format="html")
        return box

    def download(self, label: str, file: Path) -> nodes.Node:
        """A link to a copy of the file inside the book, or just its name if it isn't at hand."""
        self.env.note_dependency(str(file))
        if not file.is_file():
            return nodes.literal(label, label)
        link = download_reference("", "", reftarget=self.relative(file))
        link += nodes.literal(label, label)
        return link

    def relative(self, file: Path) -> str:
        """The file as seen from the page: Sphinx copies what lies outside its sources, too."""
        return os.path.relpath(file, Path(self.env.doc2path(self.env.docname)).parent)


class RecordsTable(ReportDirective):
    """``records-table``: a table of a report, in a box that scrolls sideways on a small screen."""

    folder = "tables"

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("CSV", path.parent / Path(about["csv"]).name)]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        columns, rows = about["columns"], about["rows"]
        if any(len(row) != len(columns) for row in rows):
            raise ReportError(f"{path.name}: every row must have {len(columns)} cells")
        table = nodes.table(classes=["isce-table"])
        table += nodes.title(about["caption"], about["caption"])
        group = nodes.tgroup(cols=len(columns))
        group += [nodes.colspec(colwidth=1, stub=(number == 0)) for number in range(len(columns))]
        group += nodes.thead("", self.row(columns))
        group += nodes.tbody("", *(self.row(row) for row in rows))
        table += group
        return table

    def row(self, cells: list[Any]) -> nodes.row:
        """One row; what comes from the file is text, never markup."""
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", str(cell))) for cell in cells))


class RecordsFigure(ReportDirective):
    """``records-figure``: a figure of a report with caption and alternative text."""

    folder = "figures"

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("SVG", path.with_suffix(".svg")), ("PDF", path.with_suffix(".pdf"))]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        picture = path.with_suffix(".svg")
        if not picture.is_file():
            raise ReportError(f"the report has {path.name} but no {picture.name}")
        figure = nodes.figure(classes=["isce-figure"])
        figure += nodes.image(uri=self.relative(picture), alt=about["alt"])
        figure += nodes.caption(about["caption"], about["caption"])
        return figure


def _from_environment(variable: str, default: str) -> str:
    return str(Path(os.environ.get(variable, default)).absolute())


def read_environment(app: Sphinx, config: Config) -> None:
    """Take both folders from the environment; another folder than last time renders every page anew."""
    book = Path(app.srcdir)
    config.isce_report = _from_environment("ISCE_REPORT", str(book / "generated"))
    config.isce_records = _from_environment("ISCE_RECORDS", str(book.parent / "results"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register role and directives."""
    app.add_config_value("isce_report", "", "env", types=[str])
    app.add_config_value("isce_records", "", "env", types=[str])
    app.connect("config-inited", read_environment)
    app.add_role("record", RecordRole())
    app.add_directive("records-table", RecordsTable)
    app.add_directive("records-figure", RecordsFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
