"""Tables of attack records, by objective, by eps and by row of the suites; differences, state of runs."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean
from typing import Any

from isce.attacks import names
from isce.evaluation import mcnemar, paired_seeds, percent
from isce.report.cells import NOT_RUN, Cell, Cells, NotEvaluatedError, accuracies
from isce.report.exhibits import Table
from isce.report.key import Key, split_run
from isce.report.names import reader_name
from isce.report.plots.runs import eps_text
from isce.runs.experiment import Experiment
from isce.runs.records import Record

NO_DETECTOR = "\N{EN DASH}"
HIT, LEFT, PART = " (target hit)", ", left", ", left of "
STATUS = ["run", "kind", "state", "made (UTC)", "commit", "device", "seconds", "torch", "red flags"]
KINDS = ("train", "attack", "minmax", "explain")


def suites(experiment: Experiment) -> str:
    """Return the names of the experiment's suites, as a caption says them: how many networks met which of several."""
    counts = Counter(experiment.plan(training).suite for _, training in experiment.runs())
    (common, _), *others = counts.most_common()
    named = (f"{count} of {counts.total()} networks: suite '{name}'" for name, count in others)
    return f"suite '{common}'" + (f" ({'; '.join(named)})" if others else "")


def eps_grid(experiment: Experiment) -> list[float]:
    """Return every eps of the experiment's attack plans, rising."""
    return sorted({eps for plan in experiment.plans for eps in plan.eps})


def results(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """Return one row for each objective: clean, best attack on the training loss and worst case at the main eps."""
    plan = experiment.plans[0]
    keys = _clean(found) | {
        "training loss": Key.at("own", plan.main_eps),
        "worst case": Key.at("worst", plan.main_eps),
    }
    caption = (
        f"Accuracy (%): clean, under the best attack on the training loss, and in the worst case; {plan.norm}, eps "
        f"{eps_text(plan.main_eps)}. Worst case over {suites(experiment)}. {_handled(found)}{evidence}"
    )
    return _by_objective(found, keys, caption)


def sweep(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """Return the worst case by eps."""
    keys = _clean(found) | {f"eps {eps_text(eps)}": Key.at("worst", eps) for eps in eps_grid(experiment)}
    caption = (
        f"Robust accuracy (%) in the worst case, by eps ({experiment.plans[0].norm}). Over {suites(experiment)}. "
        f"{_handled(found)}{evidence}"
    )
    return _by_objective(found, keys, caption)


def _clean(found: Cells) -> dict[str, Key]:
    """Columns about clean images: accuracy, and what is rejected where a network may reject."""
    keys = {"clean": Key("clean"), "clean, rejected": Key("rejected")}
    return {column: key for column, key in keys.items() if key.kind == "clean" or found.of_all(key)}


def _handled(found: Cells) -> str:
    """What a caption says where a network may reject; else nothing."""
    if not found.of_all(Key("rejected")):
        return ""
    return (
        "An image that a network rejects counts as handled, a clean one too, which lifts every accuracy: 'clean, "
        "rejected' is the share of clean images that it rejects, with a dash where it can't. "
    )


def _by_objective(found: Cells, keys: dict[str, Key], caption: str) -> Table:
    rows = [[label, *(found.text(label, key) for key in keys.values())] for label in found.labels]
    if "clean, rejected" in keys:
        place = 1 + list(keys).index("clean, rejected")
        for row in rows:
            row[place] = NO_DETECTOR if row[place] == NOT_RUN else row[place]
    return Table(columns=["loss", *keys], rows=rows, caption=caption)


def attacks(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """Return one row for each attack and threat model, one column for each objective: all that the main eps has."""
    plan = experiment.plans[0]
    rows, worst = _rows(experiment, found), Key.at("worst", plan.main_eps)
    texts = [found.text(label, worst) for label in found.labels]
    rows.append(["worst case", short(worst.threat(plan.norm)), _images(found, worst), *texts])
    caption = f"{_caption('Every attack', experiment, found, rows)} {evidence}"
    return Table(columns=["attack", "threat", "images", *found.labels], rows=rows, caption=caption)


def by_attack(experiment: Experiment, found: Cells, evidence: str) -> dict[str, Table]:
    """Return for each attack that has rows, by its name, its rows of :func:`attacks`, without empty columns."""
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
        tables[name] = Table(columns=list(itertools.compress(columns, keep)), rows=rows, caption=caption)
    return tables


def is_row_of(attack: str, row: str) -> bool:
    """Whether a row's label, as :attr:`isce.attacks.spec.AttackSpec.label` makes it, is one of this attack."""
    return re.fullmatch(rf"{attack}\d*(x\d+)?(-.+)?", row) is not None


def _rows(experiment: Experiment, found: Cells) -> list[list[str]]:
    """Row, threat, images and the accuracies of all objectives, at the main eps or in another threat model."""
    plan = experiment.plans[0]
    main = Key.at("", plan.main_eps).eps
    rows: list[list[str]] = []
    for key in found.keys:
        if key.kind in ("attack", "hit") and (key.norm or key.eps == main):
            row = f"{key.row}{HIT}" if key.kind == "hit" else key.row
            texts = [found.text(label, key) for label in found.labels]
            rows.append([row, short(key.threat(plan.norm)), _images(found, key), *texts])
    return rows


def _caption(what: str, experiment: Experiment, found: Cells, rows: list[list[str]]) -> str:
    """Caption for these rows; mentions only the kinds of row that occur."""
    plan = experiment.plans[0]
    caption = (
        f"{what}: accuracy (%) at {plan.norm} eps {eps_text(plan.main_eps)}, or in the threat model that is named. Of "
        f"{suites(experiment)}."
    )
    if any(LEFT in row[2] for row in rows):
        caption += (
            " Where 'left' stands beside the number of images the row attacked what the rows before it in the suite "
            "had left, and its number is what remains of all images after them all; elsewhere it is the row's own."
        )
    if parts := sorted({row[2].partition(PART)[2] for row in rows if PART in row[2]}):
        caption += (
            f" 'left of {parts[0]}': of the images left it was given only those among {parts[0]} of all, so that its "
            "number, and with it the worst case, may be a little too high."
        )
    if any(row[0].endswith(HIT) for row in rows):
        caption += " 'target hit' is the share of images brought to the random wrong class that was asked for."
    return caption + (" A number without ± is of one training seed." if found.seeds > 1 else "")


def _images(found: Cells, key: Key) -> str:
    """Number of images behind a row, with a mark where the row attacked survivors, and of how many images these."""
    cells = found.of_all(key)
    return count_range(cell.n for cell in cells) + (LEFT + left_of(cells) if any(cell.left for cell in cells) else "")


def left_of(cells: Iterable[Cell]) -> str:
    """Return " of 200" where a row on survivors was given those left among 200 images; else nothing."""
    parts = [cell.part or cell.n for cell in cells if cell.left and (cell.part or cell.n) < cell.n]
    return f" of {count_range(parts)}" if parts else ""


def count_range(counts: Iterable[int]) -> str:
    """Return one number, or the lowest and the highest."""
    every = sorted(set(counts))
    return f"{every[0]:,}" if len(every) == 1 else f"{every[0]:,} to {every[-1]:,}"


def short(text: str) -> str:
    """Return a text that names threats, with an eps that is k/255 as that alone: ``linf@8/255``."""
    return re.sub(r"@(0\.\d{5,})", lambda eps: f"@{eps_text(float(eps[1])).partition(' (')[0]}", text)


def pairs(experiment: Experiment, masks: dict[str, dict[str, Any]], found: Cells, evidence: str) -> Table | None:
    """Return every objective against the first, in the worst case at the main eps: over images, and over seeds.

    Args:
        experiment: the experiment.
        masks: for each run (``sce-s0``) which images are robust at each threat, as its side file says.
        found: the cells.
        evidence: for the caption.
    """
    plan = experiment.plans[0]
    worst = Key.at("worst", plan.main_eps)
    threat = worst.threat(plan.norm)
    base, *others = found.labels or [""]
    rows: list[list[str]] = []
    for label in others:
        runs = map(split_run, masks)
        seeds = sorted({seed for objective, seed in runs if objective in (base, label)})
        both = [(masks.get(f"{label}-s{s}", {}).get(threat), masks.get(f"{base}-s{s}", {}).get(threat)) for s in seeds]
        tests = [mcnemar(one, two) for one, two in both if one is not None and two is not None and len(one) == len(two)]
        try:
            sides = [found.get(name, worst) for name in (label, base)]
            one, two = ({c.seed: a for c, a in zip(side, accuracies(side), strict=True)} for side in sides)
        except NotEvaluatedError as error:
            rows.append([label, str(error), "", ""])
            continue
        if not tests:
            continue
        only = f"{sum(t.only_first for t in tests)} : {sum(t.only_second for t in tests)}"
        p_values = ", ".join("< 0.0001" if t.p_value < 1e-4 else f"{t.p_value:#.2g}" for t in tests)
        shared = sorted(set(one) & set(two))
        over_seeds = "one seed"
        if len(shared) > 1:
            test = paired_seeds([one[s] for s in shared], [two[s] for s in shared])
            interval = None if test.low is None or test.high is None else (test.low, test.high)
            over_seeds = percent(test.difference, interval, sign="+")
        rows.append([label, only, p_values, over_seeds])
    if not rows:
        return None
    name = reader_name(base)
    caption = (
        f"Each loss against {name} on the same images, in the worst case at {plan.norm} eps "
        f"{eps_text(plan.main_eps)}. Images robust with it alone, and with {name} alone (sum over the seeds that "
        "both have). Exact McNemar p value for each seed. Mean difference in percentage points with its 95% t "
        f"interval over seeds, where there are several. Over {suites(experiment)}. {evidence}"
    )
    columns = ["loss", f"robust alone : {name} alone", "p by seed", "difference"]
    return Table(columns=columns, rows=rows, caption=caption)


def status(
    name: str, wanted: Iterable[tuple[str, str]], records: Iterable[Record], stale: Collection[tuple[str, str]]
) -> Table:
    """Return one row for each run of the experiment.

    Args:
        name: of the experiment.
        wanted: kind and name of every run that the experiment file asks for.
        records: those that there are.
        stale: kind and name of those whose key has changed since.
    """
    records = list(records)
    known = {(record.kind, record.run): record for record in records}
    rows: list[list[str]] = []
    for kind, run in sorted(wanted, key=lambda one: (one[1], KINDS.index(one[0]))):
        record = known.get((kind, run))
        if record is None:
            rows.append([run, kind, "not run yet", *[""] * (len(STATUS) - 3)])
            continue
        made = record.provenance
        commit = (made.commit or "none")[:7] + (" (modified)" if made.modified else "")
        state = "stale" if (kind, run) in stale else "current"
        date = made.created[:16].replace("T", " ")
        torch, flags = made.packages.get("torch", "unknown"), ", ".join(record.flags)
        rows.append([run, kind, state, date, commit, made.device, f"{made.seconds:.0f}", torch, flags])
    done = sum(row[2] == "current" for row in rows)
    caption = (
        f"{done} of the {len(rows)} runs of '{name}' are current. Seconds are by the clock, with whatever else ran "
        "beside them."
    )
    kinds = tuple(sorted({record.kind for record in records}))
    return Table(columns=STATUS, rows=rows, caption=caption, kinds=kinds)


def costs(records: Sequence[Record]) -> Table | None:
    """Return what each row of the suites cost in each threat model, mean over the networks; None: nothing is known.

    Args:
        records: of one experiment; attack records made before costs were kept say nothing.
    """
    spent: dict[tuple[str, str], list[list[float]]] = {}
    known = {record.run: record.provenance.rows for record in records if record.provenance.rows}
    for record in records:
        for threat, rows in known.get(record.run, {}).items():
            for row, cost in rows.items():
                cell = record.results["threats"][threat]["attacks"][row]
                counts = [cell["attacked"], cell.get("spared", 0), cost.gradients, cost.forwards, cost.seconds]
                spent.setdefault((row, threat), []).append(counts)
    if not spent:
        return None
    table: list[list[str]] = []
    for (row, threat), every in spent.items():
        images, spared, gradients, forwards, seconds = (fmean(column) for column in zip(*every, strict=True))
        each = [f"{count / images:,.0f}" if images else "" for count in (gradients, forwards)]
        table.append([row, short(threat), f"{images:.0f}", f"{spared:.0f}", *each, f"{seconds:.1f}"])
    caption = (
        f"What each attack cost, mean over {len(known)} networks. Spared: known to stand in a larger ball. Passes are "
        "for each image attacked; seconds by the clock, with whatever else ran beside them."
    )
    columns = ["attack", "threat", "attacked", "spared", "gradients", "forward passes", "seconds"]
    return Table(columns=columns, rows=table, caption=caption)
