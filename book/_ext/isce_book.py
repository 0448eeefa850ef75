"""Sphinx extension: numbers, tables and plots of the book come from a report folder, never from typing.

The folder is named by the environment variable ``ISCE_REPORT`` (default: ``generated`` beside the book's sources) and
holds one folder per experiment: ``numbers.json``, ``tables/<name>.json`` and ``.csv``, ``plots/<name>.json``,
``.svg`` and ``.pdf``, ``charts/chooser.json``. An experiment without ``numbers.json`` has not been run, and shows as
such. The records that a report names are looked up below ``ISCE_RECORDS``; those found there can be downloaded from the
page.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from docutils import nodes
from isce_made import link
from isce_report import (
    NOT_RUN,
    STALE,
    RecordsFigure,
    RecordsTable,
    ReportError,
    command_for,
    read_json,
    report_folder,
    split,
)
from isce_tables import folded, typeset
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from isce.report.key import MAIN, Key

logger = logging.getLogger(__name__)
NAMES = re.compile(r"(I-SCE|L-GM|\bm = -?[\d.]*\d)")
BEFORE, AFTER = re.compile(r"[(\[\u201c]+$"), re.compile(r"^[)\].,;:!?\u2019\u201d]+")


class RecordRole(SphinxRole):
    """``{record}`digits/sce.clean` ``: one number of a report, with its records as title.

    ``isce-previews.js`` shows the title to a pointer, a finger and the keyboard alike, with links to the records.

    ``@main`` at the end of a key stands for ``@`` and the experiment's main eps.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            return [self._number()], []
        except (ReportError, KeyError, ValueError) as error:
            logger.warning("record %s: %s", self.text, error, location=self.get_location())
            self.env.note_reread()  # so that the next build complains again
            return [nodes.problematic(self.rawtext, self.text)], []

    def _number(self) -> nodes.Node:
        experiment, key = split(self.text)
        path = report_folder(self.config) / experiment / "numbers.json"
        self.env.note_dependency(str(path))
        if not path.is_file():
            hint = f"Run {command_for(experiment)} to fill this in."
            return nodes.abbreviation(NOT_RUN, NOT_RUN, explanation=hint, classes=["isce-not-run"])
        numbers = read_json(path)
        if key.endswith(f"@{MAIN}") and "eps_main" in numbers:
            key = str(replace(Key.parse(key), eps=f"{numbers['eps_main']['value']:g}"))
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
        if number["value"] is None:  # not evaluated; the text says why
            classes.append("isce-not-run")
        about = {"explanation": title, "classes": classes, "records": names}
        return nodes.abbreviation(number["text"], typeset(number["text"]), **about)


def list_records(app: Sphinx, doctree: nodes.document) -> None:
    """At the end of a page the records behind its numbers, folded away; the boxes of the numbers link to them."""
    names = sorted({name for number in doctree.findall(nodes.abbreviation) for name in number.get("records", ())})
    if not names:
        return
    items, records = nodes.bullet_list(ids=["page-records"]), Path(app.config.isce_records)
    for name in names:
        known = (records / name).is_file()
        entry = link(app.env, records / name, name) if known else nodes.literal(name, name)
        items += nodes.list_item("", nodes.paragraph("", "", entry))
    summary = f"Records behind the numbers of this page: {len(names)}"
    box = nodes.container(
        "", *folded(summary, items, kind="isce-sources"), classes=["isce-page-records", "isce-evidence"]
    )
    next(iter(doctree.findall(nodes.section))).append(box)


def keep_together(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """A line may break neither within names of losses nor between a formula and the punctuation around it."""
    if app.builder.format != "html":
        return
    for text in list(doctree.findall(nodes.Text)):
        pieces = NAMES.split(text)
        if len(pieces) < 2 or isinstance(text.parent, nodes.literal | nodes.literal_block | nodes.raw):
            continue
        kept = [_kept(nodes.Text(piece)) if number % 2 else nodes.Text(piece) for number, piece in enumerate(pieces)]
        text.parent.replace(text, [node for node in kept if node.astext()])
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        around = [_cut(parent, place - 1, BEFORE), _cut(parent, place + 1, AFTER)]
        if any(around):
            parent.replace(formula, whole := _kept())
            whole += [nodes.Text(around[0]), formula, nodes.Text(around[1])]


def _cut(parent: nodes.Element, place: int, pattern: re.Pattern[str]) -> str:
    """Take what a pattern finds off a text among an element's children; empty where there is no such text."""
    text = parent[place] if 0 <= place < len(parent) else None
    if not isinstance(text, nodes.Text) or not (found := pattern.search(text)):
        return ""
    parent.replace(text, nodes.Text(text[: found.start()] + text[found.end() :]))
    return found[0]


def _kept(*content: nodes.Node) -> nodes.inline:
    return nodes.inline("", "", *content, classes=["isce-name"])


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
    app.connect("doctree-read", list_records, priority=400)  # before downloads are collected
    app.connect("doctree-resolved", keep_together)
    app.add_role("record", RecordRole())
    app.add_directive("records-table", RecordsTable)
    app.add_directive("records-figure", RecordsFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
