"""Tables of attack records by row of their suite: all rows of an experiment, and those of each attack."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from isce.attacks import names
from isce.report.cells import NOT_RUN, Cell, Cells
from isce.report.plots.runs import eps_text
from isce.runs.experiment import Experiment

Table = tuple[list[str], list[list[str]], str]
HIT, LEFT, PART = " (target hit)", ", left", ", left of "


def suites(experiment: Experiment) -> str:
    """The names of the experiment's suites, as a caption says them."""
    names = list(dict.fromkeys(f"'{plan.suite}'" for plan in experiment.plans))
    return f"suite {names[0]}" if len(names) == 1 else f"suites {', '.join(names)} (by run)"


def attacks(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """One row for each attack and threat model, one column for each objective: all that was run at the main eps."""
    plan = experiment.plans[0]
    where = f"@{plan.main_eps:g}"
    rows = _rows(experiment, found)
    worst = [found.text(label, f"worst{where}") for label in found.labels]
    rows.append(["worst case", short(f"{plan.norm}{where}"), _images(found, f"worst{where}"), *worst])
    caption = f"{_caption('Every attack', experiment, found, rows)} {evidence}"
    return ["attack", "threat", "images", *found.labels], rows, caption


def by_attack(experiment: Experiment, found: Cells, evidence: str) -> dict[str, Table]:
    """For each attack that has rows, by its name: its rows of :func:`attacks`, and the objectives that have figures."""
    tables: dict[str, Table] = {}
    every, columns = _rows(experiment, found), ["row", "threat", "images", *found.labels]
    for name in names():
        rows = [row for row in every if is_row_of(name, row[0].removesuffix(HIT))]
        if not rows:
            continue
        keep = [any(cell != NOT_RUN for cell in column) for column in zip(*rows, strict=True)]
        rows = [list(itertools.compress(row, keep)) for row in rows]
        what = f"Every row of {name} in the records of '{experiment.name}',"
        caption = f"{_caption(what, experiment, found, rows)} At most {evidence}"
        tables[name] = list(itertools.compress(columns, keep)), rows, caption
    return tables


def is_row_of(attack: str, row: str) -> bool:
    """Whether a row's label, as :attr:`isce.attacks.spec.AttackSpec.label` makes it, is one of this attack."""
    return re.fullmatch(rf"{attack}\d*(x\d+)?(-.+)?", row) is not None


def _rows(experiment: Experiment, found: Cells) -> list[list[str]]:
    """Row, threat, images and the accuracies of all objectives, for what was run at the main eps or elsewhere."""
    plan = experiment.plans[0]
    where = f"@{plan.main_eps:g}"
    rows: list[list[str]] = []
    for key in found.keys:
        kind, _, rest = key.partition(":")
        name, _, threat = rest.partition("@")
        if kind not in ("attack", "hit") or not (key.endswith(where) or _elsewhere(threat)):
            continue
        row = f"{name}{HIT}" if kind == "hit" else name
        accuracies = [found.text(label, key) for label in found.labels]
        rows.append([row, short(in_full(threat, plan.norm)), _images(found, key), *accuracies])
    return rows


def _caption(what: str, experiment: Experiment, found: Cells, rows: list[list[str]]) -> str:
    """What the figures of such rows mean; nothing of what none of them is."""
    plan = experiment.plans[0]
    caption = (
        f"{what} of {suites(experiment)}: accuracy in per cent at {plan.norm} eps {eps_text(plan.main_eps)}, or "
        "in the threat model that is named."
    )
    if any(LEFT in row[2] for row in rows):
        caption += (
            " Where 'left' stands beside the number of images the row attacked what the rows before it in the suite "
            "had left, and its figure is what remains of all images after them all; elsewhere it is the row's own."
        )
    if parts := sorted({row[2].partition(PART)[2] for row in rows if PART in row[2]}):
        caption += (
            f" 'left of {parts[0]}': of the images left it was given only those among {parts[0]} of all, so that its "
            "figure, and with it the worst case, may be a little too high."
        )
    if any(row[0].endswith(HIT) for row in rows):
        caption += " 'target hit' is the share of images brought to the random wrong class that was asked for."
    return caption + (" A figure without ± is of one training seed." if found.seeds > 1 else "")


def _images(found: Cells, key: str) -> str:
    """How many images a row's figure is about, and whether, and of how many of these, it attacked survivors alone."""
    cells = of_all(found, key)
    return count_range(cell.n for cell in cells) + (LEFT + left_of(cells) if any(cell.left for cell in cells) else "")


def left_of(cells: Iterable[Cell]) -> str:
    """Such as " of 200", where a row on survivors was given what was left of so many of the images; else nothing."""
    parts = [cell.part or cell.n for cell in cells if cell.left and (cell.part or cell.n) < cell.n]
    return f" of {count_range(parts)}" if parts else ""


def of_all(found: Cells, key: str) -> list[Cell]:
    """The cells of one key, of all objectives and seeds."""
    return [cell for label in found.labels for cell in found.get(label, key)]


def count_range(counts: Iterable[int]) -> str:
    """One number, or the lowest and the highest."""
    every = sorted(set(counts))
    return f"{every[0]:,}" if len(every) == 1 else f"{every[0]:,} to {every[-1]:,}"


def in_full(threat: str, norm: str) -> str:
    """A key's threat with its norm."""
    return threat if _elsewhere(threat) else f"{norm}@{threat}"


def short(text: str) -> str:
    """A text that names threats, with an eps that is k/255 as that alone: ``linf@8/255``."""
    return re.sub(r"@(0\.\d{5,})", lambda eps: f"@{eps_text(float(eps[1])).partition(' (')[0]}", text)


def _elsewhere(threat: str) -> bool:
    """Whether a key's threat is another model than the experiment's norm."""
    return not threat.replace(".", "").replace("e-", "").isdigit()
