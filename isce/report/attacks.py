"""Tables of the reference pages of attacks: what registry, suites and reports say of each."""

from __future__ import annotations

import functools

from isce.attacks import about, names
from isce.parameters.attack import load_suite
from isce.report.exhibits import Table
from isce.report.reference import Files, each

TARGETED = {"no": "no", "may": "can be", "must": "always"}
OWN = "the experiment's"
SOURCE = "gradients of another network, the row's source"

read = functools.cache(load_suite)  # a build reads each file for many pages


def needs(name: str) -> str:
    """Return what it must get from the network that it attacks."""
    return "logits alone" if about(name).black_box else SOURCE if about(name).source else "gradients"


def facts(files: Files, name: str) -> Table:
    """Return what is fixed about an attack, as the registry has it."""
    del files
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
    cells = [list(row) for row in rows.items()]
    return Table(columns=["fact", name], rows=cells, caption=f"What is fixed about {name}.")


def suites(files: Files, name: str) -> Table:
    """Return the rows of an attack in the suites, included ones expanded; rows of the same suites in one line."""
    holders: dict[tuple[str, str], list[str]] = {}
    for path in sorted((files.root / "experiments" / "suites").glob("*.yaml"), key=lambda path: path.stem):
        files.note(path)
        for row in read(path.stem, files.root).rows:
            if row.attack == name:
                threat = row.threat.label if row.threat else OWN
                holders.setdefault((row.label, threat), []).append(path.stem)
    alike: dict[tuple[str, str], list[str]] = {}
    for (label, threat), found in holders.items():
        alike.setdefault((threat, ", ".join(found)), []).append(label)
    caption = f"Rows of {name} by the label that they have in records, and the suites that hold them."
    rows = [[", ".join(labels), *where] for where, labels in alike.items()]
    caption = caption if rows else "No suite holds a row of it."
    return Table(columns=["rows", "threat", "suites"], rows=rows, caption=caption)


def records(files: Files) -> dict[str, tuple[list[str], list[str]]]:
    """Return for each attack the experiments with records of it, and those that ask for it and have none."""
    found = {name: (list[str](), list[str]()) for name in names()}
    for experiment in each(files):
        files.note(files.report / experiment.name / "numbers.json")  # which is written after all tables
        wanted = {row.attack for plan in experiment.plans for row in read(plan.suite, files.root).rows}
        for name, (have, lack) in found.items():
            if (files.report / experiment.name / "tables" / f"attack-{name}.json").is_file():
                have.append(experiment.name)
            elif name in wanted:
                lack.append(experiment.name)
    return found


def attacks(files: Files) -> Table:
    """Return every attack in one row."""
    rows: list[list[str]] = []
    for name, (have, _) in records(files).items():
        known = about(name)
        row = [name, known.family, known.package or "isce", needs(name), ", ".join(known.norms)]
        rows.append([*row, TARGETED[known.targeted], ", ".join(have) or "none"])
    columns = ["attack", "family", "package", "needs", "threat models", "targeted", "records of"]
    caption = "Every attack; the last column names the experiments whose records have a row of it."
    return Table(columns=columns, rows=rows, caption=caption)
