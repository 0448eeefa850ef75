"""Tables and figures of attack records: what :mod:`isce.report.write` writes of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from isce.evaluation import mcnemar, paired_seeds
from isce.report.cells import Cell, Cells, NotEvaluatedError, accuracies, label_of, mean, wilson_of
from isce.report.plots import runs as figures
from isce.report.plots.runs import eps_text
from isce.report.rows import Table, count_range, in_full, left_of, of_all, short, suites
from isce.runs.experiment import Experiment
from isce.runs.records import Record

Drawn = tuple[Figure, str, str]
#: Kinds of figures in the book's interactive figure: the heading that the attack stands under, and what is said of it.
KINDS = {
    "worst": (
        "Over several attacks",
        "An image is robust if it is classified right and no attack, at this eps or a smaller one, changes that.",
    ),
    "own": ("Over several attacks", "The lowest of the attacks on the objective's own loss, for each network."),
    "attack": ("By itself", "The attack's own figure, whatever the others find."),
    "left": (
        "On what was left",
        "It attacked only what the attacks before it in the suite had left; its figure is what remains after them all.",
    ),
}
FLAGS_HEADER = ["run", "flag", "detail"]


def eps_grid(experiment: Experiment) -> list[float]:
    """Every eps of the experiment's attack plans, rising."""
    return sorted({eps for plan in experiment.plans for eps in plan.eps})


def over_seeds(seeds: Collection[object]) -> str:
    """What lines and their bands show, as a caption says it."""
    return f"{len(seeds)} training seeds: mean and range" if len(seeds) > 1 else "1 training seed"


def results(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """One row for each objective: clean, strongest attack on the own loss and worst case at the main eps."""
    plan = experiment.plans[0]
    where = f"@{plan.main_eps:g}"
    names = {"clean": "clean", f"own{where}": "own loss", f"worst{where}": "worst case"}
    rows = [[label, *(found.text(label, key) for key in names)] for label in found.labels]
    caption = (
        f"Accuracy in per cent: clean, under the strongest single attack on the objective's own training loss, and in "
        f"the worst case over {suites(experiment)}; {plan.norm}, eps {eps_text(plan.main_eps)}."
    )
    return ["objective", *names.values()], rows, f"{caption} {evidence}"


def sweep(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """Worst case by eps."""
    grid = eps_grid(experiment)
    keys = ["clean", *(f"worst@{eps:g}" for eps in grid)]
    rows = [[label, *(found.text(label, key) for key in keys)] for label in found.labels]
    caption = f"Worst-case robust accuracy in per cent over {suites(experiment)}, {experiment.plans[0].norm}, by eps."
    return ["objective", "clean", *(f"eps {eps_text(eps)}" for eps in grid)], rows, f"{caption} {evidence}"


def robust(experiment: Experiment, found: Cells, evidence: str) -> Drawn:
    """Worst case and strongest attack on the own loss against eps."""
    norm, grid = experiment.plans[0].norm, eps_grid(experiment)
    rows, gaps = list[dict[str, Any]](), list[str]()
    for label in found.labels:
        for eps in [0.0, *grid]:
            worst = found.get(label, f"worst@{eps:g}" if eps else "clean")
            if not worst:  # records made before this eps was asked for
                continue
            own = found.get(label, f"own@{eps:g}" if eps else "clean") or worst
            where = f"{label} at eps {eps_text(eps)}"
            middle, low, high = _or_gap(worst, f"worst case of {where}", gaps)
            dashed, *_ = _or_gap(own, f"own loss of {where}", gaps)
            rows.append({"label": label, "eps": eps, "worst": middle, "own": dashed, "low": low, "high": high})
    caption = (
        f"Robust accuracy against eps ({norm}){', mean over seeds' if found.seeds > 1 else ''}. Solid: worst case over "
        f"{suites(experiment)}, with the Wilson 95% interval over images as band. Dashed: the strongest single attack "
        f"on the objective's own training loss. {evidence}{_gaps(gaps)}"
    )
    frame = pd.DataFrame(rows)
    ends = "; ".join(
        f"{label}: {_end(part['worst'].iloc[0])} at eps 0, {_end(part['worst'].iloc[-1])} at eps {eps_text(grid[-1])}"
        for label, part in frame.groupby("label", sort=False)
    )
    return figures.robust_accuracy(frame, norm), caption, f"Line plot of accuracy by eps. Worst case: {ends}."


def _or_gap(several: list[Cell], what: str, gaps: list[str]) -> tuple[float, float, float]:
    """Mean and Wilson interval in per cent; NaN, and a word in ``gaps``, where they were not evaluated."""
    try:
        low, high = wilson_of(several)
        return 100 * mean(several), 100 * low, 100 * high
    except NotEvaluatedError as error:
        gaps.append(f"{what} {error}")
        return math.nan, math.nan, math.nan


def _gaps(gaps: list[str]) -> str:
    """What a caption says of accuracies that a figure can't show."""
    return f" Gaps: {'; '.join(gaps)}." if gaps else ""


def _end(percent: float) -> str:
    return "not evaluated" if math.isnan(percent) else f"{percent:.0f}%"


def chooser(experiment: Experiment, found: Cells, evidence: str) -> dict[str, Any]:
    """What the book's interactive figure draws: every accuracy, by attack and threat model; see ``isce-chooser.js``.

    Returns:
        ``caption``; ``start``, the threat that is shown first; ``objectives`` with their colour and marker in the
        figures; ``kinds`` of attacks, what is said of them; ``attacks``: for each the threats it was run in, with the
        figures of each objective as :meth:`Cells.percents` returns them, of one decimal; a text where they were not
        evaluated.
    """
    plan = experiment.plans[0]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("worst case", "own loss")}
    for key in found.keys:
        row, _, threat = key.partition("@")
        if not threat or row.startswith("hit:"):
            continue
        cells = of_all(found, key)
        kind = "left" if any(cell.left for cell in cells) else row.partition(":")[0]
        about = {"threat": _in_words(threat, plan.norm), "kind": kind, "on": _counts(cells)}
        figures_of = [_figures(found, label, key) for label in found.labels]
        name = {"worst": "worst case", "own": "own loss"}.get(row, row.removeprefix("attack:"))
        rows.setdefault(name, []).append(about | {"figures": figures_of})
    caption = (
        f"Accuracy in per cent under one attack of {suites(experiment)}, or in the worst case over them, in one threat "
        "model at one eps: mean (marker) and Wilson 95% interval (bar); the upright line is clean accuracy. Images and "
        f"seeds of what is chosen stand above; they are at most {evidence}"
    )
    objectives = [
        {"label": label, "clean": round(found.percents(label, "clean")[0], 1), **look}
        for label, look in zip(found.labels, figures.looks(len(found.labels)), strict=True)
    ]
    attacks = [{"name": name, "at": at} for name, at in rows.items() if at]
    start = _in_words(f"{plan.main_eps:g}", plan.norm)
    return {"caption": caption, "start": start, "kinds": KINDS, "objectives": objectives, "attacks": attacks}


def _figures(found: Cells, label: str, key: str) -> list[float] | str:
    try:
        return [round(value, 1) for value in found.percents(label, key)]
    except NotEvaluatedError as error:
        return str(error)


def _in_words(threat: str, norm: str) -> str:
    """A key's threat as readers choose it."""
    name, _, eps = in_full(threat, norm).partition("@")
    return f"{name}, eps {eps_text(float(eps))}" if eps else name


def _counts(cells: list[Cell]) -> str:
    """How many images and training seeds are behind the cells of one key."""
    seeds = [sum(cell.label == label for cell in cells) for label in dict.fromkeys(cell.label for cell in cells)]
    ending, given = "s" if max(seeds) > 1 else "", left_of(cells)
    images = f"{count_range(cell.n for cell in cells)} test images{f', given what was left{given}' if given else ''}"
    return f"{images}, {count_range(seeds)} training seed{ending}"


def readings(experiment: Experiment, found: Cells, evidence: str) -> Drawn:
    """As :func:`robust`, of softmax cross-entropy and the readings of I-SCE alone."""
    names = {o.label: o.name for o in experiment.objectives}
    some = [label for label in found.labels if names[label].startswith(("sce", "isce"))]
    return robust(experiment, Cells(found.all, some), evidence)


def curves(experiment: Experiment, named: Iterable[Record], order: list[str]) -> tuple[Drawn, Drawn] | None:
    """Accuracy under one attack until it is 0, by eps, and by number of steps; None where no record has them."""
    rows = {"sweep": list[dict[str, Any]](), "convergence": list[dict[str, Any]]()}
    n, plan = 0, next((p.curves for p in experiment.plans if p.curves), None)
    for record in named:
        for name, found in record.figures.get("curves", {}).items():
            for row in found:
                n = max(n, row["n"])
                rows[name].append({"label": label_of(record), "run": record.run} | row)
    if not rows["sweep"] or plan is None:
        return None
    every = [row for found in rows.values() for row in found]
    gaps = [f"{row['run']} not evaluated: {row['why']}" for row in every if row["accuracy"] is None]
    frames = [pd.DataFrame(found).astype({"accuracy": float}) for found in rows.values()]  # NaN for None: a gap
    by_eps, by_steps = (frame.assign(percent=lambda f: 100 * f["accuracy"]) for frame in frames)
    text = f"{n} test images, {over_seeds({row['run'].rsplit('-s', 1)[1] for row in rows['sweep']})}.{_gaps(gaps)}"
    norm, steps = experiment.plans[0].norm, ", ".join(f"{s:,}" for s in sorted(set(by_steps["steps"])))
    labels = ", ".join(label for label in order if label in set(by_eps["label"]))
    ends = ", ".join(_end(part["percent"].iloc[-1]) for _, part in by_eps.groupby("label", sort=False))
    swept = (
        f"Accuracy under the matched attack on the margin ({plan.sweep_steps} steps) at growing {norm} eps, until "
        f"none is left: if a curve does not reach 0, attacks fail rather than the network holds. {text}"
    )
    converged = (
        f"Accuracy under the matched attack on the margin at {norm} eps {eps_text(plan.convergence_eps)} with more and "
        f"more steps ({steps}), each budget alone: a curve that still falls has not converged. {text}"
    )
    eps_axis = figures.lines(by_eps, "eps", f"eps ({norm}, images in [0, 1])", order)
    step_axis = figures.lines(by_steps, "steps", "steps of the attack", order, log=True)
    return (
        (eps_axis, swept, f"Line plot of accuracy by eps for {labels}; last values: {ends}."),
        (step_axis, converged, f"Line plot of accuracy by number of steps for {labels}."),
    )


def flags(experiment: Experiment, records: Iterable[Record]) -> Table:
    """Every red flag of the records."""
    rows = [
        [f"{record.kind} {record.run}", name, short(detail)]
        for record in records
        for name, detail in sorted(record.flags.items())
    ]
    caption = (
        f"Every red flag of the records of '{experiment.name}'; what each means, and what raises it, is said on the "
        "page of red flags."
    )
    return FLAGS_HEADER, rows, caption


def pairs(experiment: Experiment, masks: dict[str, dict[str, Any]], found: Cells, evidence: str) -> Table | None:
    """Every objective against the first, in the worst case at the main eps: over images, and over seeds.

    Args:
        experiment: the experiment.
        masks: for each run (``sce-s0``) which images are robust at each threat, as its side file says.
        found: the cells.
        evidence: for the caption.
    """
    plan = experiment.plans[0]
    threat, where = f"{plan.norm}@{plan.main_eps:g}", f"@{plan.main_eps:g}"
    base, *others = found.labels or [""]
    rows: list[list[str]] = []
    for label in others:
        seeds = sorted({run.rsplit("-s", 1)[1] for run in masks if run.rsplit("-s", 1)[0] in (base, label)})
        both = [(masks.get(f"{label}-s{s}", {}).get(threat), masks.get(f"{base}-s{s}", {}).get(threat)) for s in seeds]
        tests = [mcnemar(one, two) for one, two in both if one is not None and two is not None and len(one) == len(two)]
        try:
            sides = [found.get(name, f"worst{where}") for name in (label, base)]
            one, two = ({c.seed: a for c, a in zip(side, accuracies(side), strict=True)} for side in sides)
        except NotEvaluatedError as error:
            rows.append([label, str(error), "", ""])
            continue
        if not tests:
            continue
        only = f"{sum(t.only_first for t in tests)} : {sum(t.only_second for t in tests)}"
        p_values = ", ".join(f"{t.p_value:#.2g}" for t in tests)
        shared = sorted(set(one) & set(two))
        over_seeds = "one seed"
        if len(shared) > 1:
            test = paired_seeds([one[s] for s in shared], [two[s] for s in shared])
            over_seeds = f"{100 * test.difference:+.1f}"
            if test.low is not None and test.high is not None:
                over_seeds += f" [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
        rows.append([label, only, p_values, over_seeds])
    if not rows:
        return None
    caption = (
        f"Each objective against {base} in the worst case over {suites(experiment)} at {plan.norm} eps "
        f"{eps_text(plan.main_eps)}: images robust with it alone, and with {base} alone (sum over the seeds that both "
        "have); exact McNemar p value for each seed; mean difference in percentage points with its 95% t interval over "
        "seeds, where there are several."
    )
    return ["objective", f"robust alone : {base} alone", "p by seed", "difference"], rows, f"{caption} {evidence}"
