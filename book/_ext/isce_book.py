"""Sphinx extension: numbers, tables and plots of the book come from a report folder, never from typing.

The folder is named by the environment variable ``ISCE_REPORT`` (default: ``generated`` beside the book's sources) and
holds one folder per experiment: ``numbers.json``, ``tables/<name>.json`` and ``.csv``, ``plots/<name>.json``,
``.svg`` and ``.pdf``, ``charts/chooser.json``. An experiment without ``numbers.json`` has not been run, and shows as
such. The records that a report names are looked up below ``ISCE_RECORDS``; those found there can be downloaded from the
page.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from docutils import nodes
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
from isce_tables import typeset
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from isce.report.key import MAIN, Key

logger = logging.getLogger(__name__)
LOSS = "I-SCE"


class RecordRole(SphinxRole):
    """``{record}`digits/sce.clean` ``: one number of a report, with its records as title.

    ``isce-previews.js`` shows the title to a pointer, a finger and the keyboard alike.

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
        return nodes.abbreviation(number["text"], typeset(number["text"]), explanation=title, classes=classes)


def keep_together(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """A line may not break within the loss's name."""
    if app.builder.format != "html":
        return
    for text in list(doctree.findall(nodes.Text)):
        if LOSS not in text or isinstance(text.parent, nodes.literal | nodes.literal_block | nodes.raw | nodes.title):
            continue
        pieces: list[nodes.Node] = []
        for number, piece in enumerate(text.split(LOSS)):
            pieces += [nodes.inline(LOSS, LOSS, classes=["isce-name"])] if number else []
            pieces += [nodes.Text(piece)] if piece else []
        text.parent.replace(text, pieces)


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
    app.connect("doctree-resolved", keep_together)
    app.add_role("record", RecordRole())
    app.add_directive("records-table", RecordsTable)
    app.add_directive("records-figure", RecordsFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
