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
from sphinx.addnodes import download_reference
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

NAME = re.compile(r"(?P<experiment>[a-z0-9][a-z0-9_-]*)/(?P<item>[A-Za-z0-9][A-Za-z0-9_.:@-]*)")
FIGURE = re.compile(r"(?P<value>\S+) (?P<images>\[[^]]*\])(?: (?P<seeds>±\S+))?")
STALE = "Parameters, a package or the results of an attack have changed since; the command below computes it afresh."
NONE = "The records at hand hold nothing to show here."
NOT_RUN = "not run yet"
LONG = 48
LONG_NAME = 26
Spans = dict[tuple[int, int], int]
VERDICTS = {
    "holds": "isce-holds",
    "holds only under the paper's attack": "isce-only",
    "does not hold": "isce-not",
    "can't be tested here": "isce-open",
}


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


TIMES = "\N{MULTIPLICATION SIGN}"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PRINTED = {
    r"(?<![\w.)\]-])-(?=\d)": "\N{MINUS SIGN}",
    r"(?<=\d) x (?=\d)": f" {TIMES} ",
    r"\bl_(inf|1)\b": lambda norm: "\N{SCRIPT SMALL L}" + {"inf": "\N{INFINITY}", "1": "\N{SUBSCRIPT ONE}"}[norm[1]],
    r"(?<=[a-z])/(?=[a-z])": "/\N{ZERO WIDTH SPACE}",
}


def typeset(text: str) -> str:
    """A text as a book prints it: minus signs, powers of ten, norms, and products of numbers.

    A path may break after its slashes.
    """
    for pattern, printed in PRINTED.items():
        text = re.sub(pattern, printed, text)
    return re.sub(r"(?<=\d)e([+-]\d+)\b", lambda power: f"{TIMES}10{str(int(power[1])).translate(RAISED)}", text)


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
        box += nodes.paragraph("", "No records of this experiment are at hand. This command makes them:")
        box += nodes.literal_block(command, command, language="console")
        return [box]

    def evidence(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        """Where it comes from: stale mark, downloads, notebook, command, and the records, folded away."""
        box = nodes.container(classes=["isce-evidence"])
        if about.get("stale"):
            badge = nodes.inline("stale", "stale", classes=["isce-badge"])
            box += nodes.paragraph("", "", badge, nodes.Text(" " + STALE), classes=["isce-stale"])
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
        box += line
        sources = [str(source) for source in about["sources"]]
        count = f"{len(sources)} record" + ("s" if len(sources) != 1 else "")
        box += nodes.raw("", f'<details class="isce-sources"><summary>{count}</summary>', format="html")
        items = nodes.bullet_list()
        for source in sources:
            entry = self.download(source, Path(self.config.isce_records))
            items += nodes.list_item("", nodes.paragraph("", "", entry))
        box += items
        box += nodes.raw("", "</details>", format="html")
        return box

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

    With the flag ``wrap`` its cells are sentences: they wrap, and what repeats from row to row stands once. On a small
    screen each row is a card then, whose cells say their column.
    """

    folder = "tables"
    option_spec: ClassVar = {"optional": directives.flag, "wrap": directives.flag}

    def files(self, path: Path, about: dict[str, Any]) -> list[tuple[str, Path]]:
        return [("CSV", path.parent / Path(about["csv"]).name)]

    def content_nodes(self, path: Path, about: dict[str, Any]) -> nodes.Node:
        columns, rows = about["columns"], about["rows"]
        if any(len(row) != len(columns) for row in rows):
            raise ReportError(f"{path.name}: every row must have {len(columns)} cells")
        table = nodes.table(classes=["isce-table", *(["isce-wrap"] if "wrap" in self.options else [])])
        if "wrap" not in self.options and any(len(str(row[0])) > LONG_NAME for row in rows):
            table["classes"].append("isce-names")  # which may wrap
        table += nodes.title(about["caption"], typeset(about["caption"]))
        group = nodes.tgroup(cols=len(columns))
        stub = "wrap" not in self.options  # the first cell of a row below a spanning one is no heading
        group += [nodes.colspec(colwidth=1, stub=stub and number == 0) for number in range(len(columns))]
        group += nodes.thead("", self.row(columns))
        spans = _spans(rows, len(columns)) if "wrap" in self.options else {}
        labels = columns if "wrap" in self.options else []
        group += nodes.tbody("", *(self.row(row, labels, spans, number) for number, row in enumerate(rows)))
        table += group
        return table

    def row(
        self, cells: list[Any], labels: list[str] | None = None, spans: Spans | None = None, number: int = 0
    ) -> nodes.row:
        """One row; what comes from the file is text, never markup."""
        row = nodes.row()
        for column, cell in enumerate(cells):
            rows = (spans or {}).get((number, column), 1)
            if rows:
                text = str(cell)  # a sentence may wrap, a figure may not
                classes = ["isce-head"] * (column == 0) + ["isce-long"] * (len(text) > LONG)
                shown = self.cell(text)
                if column and labels:
                    shown.insert(0, nodes.inline(labels[column], labels[column], classes=["isce-label"]))
                entry = nodes.entry("", shown, classes=classes)
                if rows > 1:
                    entry["morerows"] = rows - 1
                row += entry
        return row

    def cell(self, text: str) -> nodes.paragraph:
        """One cell; the intervals of a figure are set apart, so that they can stand below it."""
        match = FIGURE.fullmatch(text)
        if text in VERDICTS:
            return nodes.paragraph("", "", nodes.inline(text, text, classes=["isce-verdict", VERDICTS[text]]))
        if match is None:
            return nodes.paragraph(text, typeset(text))
        parts: list[nodes.Node] = [nodes.Text(typeset(match["value"]))]
        for interval in filter(None, (match["images"], match["seeds"])):
            parts += [nodes.Text(" "), nodes.inline(interval, typeset(interval), classes=["isce-interval"])]
        return nodes.paragraph("", "", *parts)


def _spans(rows: list[list[Any]], columns: int) -> Spans:
    """How many rows a cell spans that repeats while the first does, too, but for verdicts; 0: a cell above spans it."""
    spans: Spans = {}
    for column in range(columns):
        first = 0
        for number, row in enumerate(rows):
            same = (row[0], row[column]) == (rows[first][0], rows[first][column])
            if number and same and row[column] not in VERDICTS:
                spans[first, column] += 1
                spans[number, column] = 0
            else:
                first = number
                spans[number, column] = 1
    return spans


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
        figure += nodes.caption(about["caption"], typeset(about["caption"]))
        return figure
