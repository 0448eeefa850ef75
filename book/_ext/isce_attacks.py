"""Sphinx extension: the reference pages of the attacks, made of the registry, the suites and the reports of records."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from isce_made import evidence, made_by, plain_table, save_csv
from isce_reference import each
from isce_report import RecordsTable, report_folder
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from isce.attacks import about, names
from isce.parameters.attack import load_suite

Note = Callable[[Path], None]
Table = tuple[str, list[str], list[list[str]]]
TARGETED = {"no": "no", "may": "can be", "must": "always"}
OWN = "the experiment's"
SOURCE = "gradients of another network, the row's source"

read = functools.cache(load_suite)  # a build reads each file for many pages


def needs(name: str) -> str:
    """What it must get from the network that it attacks."""
    return "scores alone" if about(name).black_box else SOURCE if about(name).source else "gradients"


def facts(name: str) -> Table:
    """What is fixed about an attack, as the registry has it."""
    known = about(name)
    default, *others = known.objectives
    grid = {"linf", "l2"}.intersection(known.norms)
    budget = "the experiment's, or the row's own with its norm" if grid else "the row's own, with its norm"
    rows = {
        "module": known.module,
        "its loop is run by": known.package or "isce",
        "needs": needs(name),
        "threat models": ", ".join(known.norms),
        "eps": budget if known.eps is None else f"{known.eps:g} where the row names none",
        "ascends": "what its method fixes" if default == "own" else ", ".join([f"{default} (default)", *others]),
        "targeted": TARGETED[known.targeted],
        "restarts": "yes, each with draws of its own" if known.random else "no",
        "steps": "yes" if known.steps else "none",
        "looks for": "the smallest change, which is judged at every eps"
        if known.minimal
        else "a misclassified image within the threat model",
        "further parameters": ", ".join(f"{key} = {value:g}" for key, value in known.params.items()) or "none",
    }
    return f"What is fixed about {name}.", ["fact", name], [list(row) for row in rows.items()]


def suites(name: str, root: Path, note: Note) -> Table:
    """Rows of an attack in the files of suites, included ones expanded; rows of the same suites stand in one line."""
    holders: dict[tuple[str, str], list[str]] = {}
    for path in sorted((root / "experiments" / "suites").glob("*.yaml"), key=lambda path: path.stem):
        note(path)
        for row in read(path.stem, root).rows:
            if row.attack == name:
                threat = row.threat.label if row.threat else OWN
                holders.setdefault((row.label, threat), []).append(path.stem)
    alike: dict[tuple[str, str], list[str]] = {}
    for (label, threat), found in holders.items():
        alike.setdefault((threat, ", ".join(found)), []).append(label)
    caption = f"Rows of {name} by the label that they have in records, and the suites that hold them."
    rows = [[", ".join(labels), *where] for where, labels in alike.items()]
    return caption, ["rows", "threat", "suites"], rows


def records(root: Path, report: Path, note: Note) -> dict[str, tuple[list[str], list[str]]]:
    """For each attack the experiments with records of it, and those that ask for it and have none."""
    found = {name: (list[str](), list[str]()) for name in names()}
    for experiment in each(root, note):
        note(report / experiment.name / "numbers.json")  # which is written after all tables
        wanted = {row.attack for plan in experiment.plans for row in read(plan.suite, root).rows}
        for name, (have, lack) in found.items():
            if (report / experiment.name / "tables" / f"attack-{name}.json").is_file():
                have.append(experiment.name)
            elif name in wanted:
                lack.append(experiment.name)
    return found


def attacks(root: Path, report: Path, note: Note) -> Table:
    """Every attack in one row."""
    rows: list[list[str]] = []
    for name, (have, _) in records(root, report, note).items():
        known = about(name)
        row = [name, known.family, known.package or "isce", needs(name), ", ".join(known.norms)]
        rows.append([*row, TARGETED[known.targeted], ", ".join(have) or "none"])
    columns = ["attack", "family", "package", "needs", "threat models", "targeted", "records of"]
    return "Every attack; the last column names the experiments whose records at hand have a row of it.", columns, rows


class Made(SphinxDirective):
    """A table that is made when the book is built."""

    required_arguments = 0
    source: ClassVar = "book/_ext/isce_attacks.py"

    def note(self, path: Path) -> None:
        """The page is read again when this file changes."""
        self.env.note_dependency(str(path))

    @property
    def root(self) -> Path:
        """The project's folder."""
        return Path(self.env.srcdir).parent

    def show(self, table: Table, name: str, function: str) -> list[nodes.Node]:
        """The table, and below it its file and the function that made it."""
        how = made_by(self.env, function, self.source)
        shown = plain_table(*table)
        shown["classes"].append("isce-compact")
        return [shown, evidence(self.env, [("CSV", save_csv(self.env, name, *table[1:]))], *how)]


class AttackTable(Made):
    """``attack-table``: all attacks, each with a link to its page."""

    def run(self) -> list[nodes.Node]:
        table, line = self.show(attacks(self.root, report_folder(self.config), self.note), "attacks", "attacks")
        for row in next(iter(table.findall(nodes.tbody))).findall(nodes.row):
            (cell,) = next(iter(row.findall(nodes.entry))).children
            assert isinstance(cell, nodes.Element)
            name = cell.astext()
            link = addnodes.pending_xref(
                "", nodes.literal(name, name), refdomain="std", reftype="doc", refexplicit=True, refwarn=True
            )
            link["reftarget"], link["refdoc"] = f"/reference/attacks/{name}", self.env.docname
            cell.children = []
            cell += link
        return [table, line]


class AttackFacts(Made):
    """``attack-facts pgd``: what the registry says of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        return self.show(facts(name), f"attack-facts-{name}", "facts")


class AttackSuites(Made):
    """``attack-suites pgd``: the suites that hold a row of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        table = suites(name, self.root, self.note)
        if not table[2]:
            text = "No suite holds a row of it."
            return [nodes.paragraph(text, text, classes=["isce-none"])]
        return self.show(table, f"attack-suites-{name}", "suites")


class AttackLeft(RecordsTable):
    """``attack-left pgd``: what it left, one table for each experiment whose records have a row of it."""

    def run(self) -> list[nodes.Node]:
        name, root = self.arguments[0], Path(self.env.srcdir).parent
        report = report_folder(self.config)
        have, lack = records(root, report, lambda path: self.env.note_dependency(str(path)))[name]
        found: list[nodes.Node] = []
        for experiment in have:
            self.arguments = [f"{experiment}/attack-{name}"]
            found += super().run()
        texts = [] if have else ["Not run: no record at hand has a row of it."]
        texts += [f"Not run yet, though their suites ask for it: {', '.join(lack)}."] if lack else []
        return [*found, *(nodes.paragraph(text, text, classes=["isce-none"]) for text in texts)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    for name, directive in (
        ("attack-table", AttackTable),
        ("attack-facts", AttackFacts),
        ("attack-suites", AttackSuites),
        ("attack-left", AttackLeft),
    ):
        app.add_directive(name, directive)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
