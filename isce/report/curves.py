"""Plots of training and attack records: accuracy by eps and by steps, training by epoch, example images."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from isce.report.cells import Cell, Cells, NotEvaluatedError, label_of, mean, wilson_of
from isce.report.exhibits import Plot
from isce.report.key import Key, split_run
from isce.report.names import core, reader_name, row_name
from isce.report.plots import runs as plots
from isce.report.plots.runs import eps_text
from isce.report.tables import eps_grid, suites
from isce.runs.experiment import Experiment
from isce.runs.records import Record


def over_seeds(seeds: Collection[object]) -> str:
    """Return what lines and their bands show, as a caption says it."""
    return f"{len(seeds)} training seeds: mean and range" if len(seeds) > 1 else "1 training seed"


def robust(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot the worst case and the strongest attack on the training loss against eps."""
    norm, grid = experiment.plans[0].norm, eps_grid(experiment)
    rows, gaps = list[dict[str, Any]](), list[str]()
    for label in found.labels:
        for eps in [0.0, *grid]:
            worst = found.get(label, Key.at("worst", eps) if eps else Key("clean"))
            if not worst:  # records made before this eps was asked for
                continue
            own = found.get(label, Key.at("own", eps) if eps else Key("clean")) or worst
            where = f"{reader_name(label)} at eps {eps_text(eps)}"
            middle, low, high = _or_gap(worst, f"worst case of {where}", gaps)
            dashed, *_ = _or_gap(own, f"training loss of {where}", gaps)
            rows.append({"label": label, "eps": eps, "worst": middle, "own": dashed, "low": low, "high": high})
    caption = (
        f"Robust accuracy against eps ({norm}){', mean over seeds' if found.seeds > 1 else ''}: worst case (solid), "
        "best attack on the training loss (dashed). Band: Wilson 95% interval over images. Worst case over "
        f"{suites(experiment)}. {evidence}{_gaps(gaps)}"
    )
    frame = pd.DataFrame(rows)
    main = experiment.plans[0].main_eps
    told = "; ".join(
        f"{reader_name(str(label))}: {end(worst)}, {end(own)}"
        for label, worst, own in frame.loc[frame["eps"] == main, ["label", "worst", "own"]].itertuples(index=False)
    )
    alt = (
        f"Line plot of accuracy by eps. At eps {eps_text(main)}, worst case and best attack on the training loss: "
        f"{told}."
    )
    return Plot(figure=plots.robust_accuracy(frame, norm), caption=caption, alt=alt)


def seeds(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot the worst case of each training seed at the main eps, and what attacks on the training loss leave."""
    plan = experiment.plans[0]
    keys = {name: Key.at(name, plan.main_eps) for name in ("own", "worst")}
    rows: list[dict[str, Any]] = []
    for label in found.labels:
        by_seed = {name: {cell.seed: cell.accuracy for cell in found.get(label, key)} for name, key in keys.items()}
        for seed in by_seed["worst"]:
            accuracies = ((name, by_seed[name].get(seed)) for name in keys)
            rows.append({"label": label} | {n: math.nan if a is None else 100 * a for n, a in accuracies})
    caption = (
        f"Accuracy at {plan.norm} eps {eps_text(plan.main_eps)}: best attack on the training loss (hollow), worst "
        f"case of each seed (filled). Worst case over {suites(experiment)}. {evidence}"
    )
    frame = pd.DataFrame(rows)
    told = "; ".join(
        f"{reader_name(str(label))}: {', '.join(map(end, part['worst']))} ({', '.join(map(end, part['own']))})"
        for label, part in frame.groupby("label", sort=False)
    )
    alt = f"A row of dots for each loss. Worst case by seed (best attack on the training loss): {told}."
    return Plot(figure=plots.seeds(frame, "accuracy (%)"), caption=caption, alt=alt)


def _or_gap(several: list[Cell], what: str, gaps: list[str]) -> tuple[float, float, float]:
    """Mean and Wilson interval in per cent; NaN, and a word in ``gaps``, where they were not evaluated."""
    try:
        low, high = wilson_of(several)
        return 100 * mean(several), 100 * low, 100 * high
    except NotEvaluatedError as error:
        gaps.append(f"{what} {error}")
        return math.nan, math.nan, math.nan


def _gaps(gaps: list[str]) -> str:
    """Sentence of a caption about accuracies that a plot can't show."""
    return f" Gaps: {'; '.join(gaps)}." if gaps else ""


def end(percent: float) -> str:
    """Return an accuracy in per cent as a text for readers who don't see the plot."""
    return "not evaluated" if math.isnan(percent) else f"{percent:.0f}%"


def readings(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot :func:`robust` of softmax cross-entropy and the readings of I-SCE alone."""
    names = {o.label: o.name for o in experiment.objectives}
    some = [label for label in found.labels if names[label].startswith(("sce", "isce"))]
    return robust(experiment, Cells(found.all, some), evidence)


def curves(experiment: Experiment, attacked: Iterable[Record], order: list[str]) -> dict[str, Plot]:
    """Plot accuracy under one attack by eps (``sweep``) and by steps (``convergence``); empty where no record has them.

    Args:
        experiment: the experiment.
        attacked: attack records.
        order: labels of the objectives in the order of their colours.
    """
    rows = {"sweep": list[dict[str, Any]](), "convergence": list[dict[str, Any]]()}
    n, plan = {"sweep": 0, "convergence": 0}, next((p.curves for p in experiment.plans if p.curves), None)
    for record in attacked:
        for name, points in record.results.get("curves", {}).items():
            n[name] = max([n[name], *(row["n"] for row in points)])
            rows[name] += [{"label": label_of(record), "run": record.run} | row for row in points]
    if not rows["sweep"] or plan is None:
        return {}
    every = [row for points in rows.values() for row in points]
    gaps = [f"{row['run']} not evaluated: {row['why']}" for row in every if row["accuracy"] is None]
    frames = [pd.DataFrame(points).astype({"accuracy": float}) for points in rows.values()]  # NaN for None: a gap
    by_eps, by_steps = (frame.assign(percent=lambda f: 100 * f["accuracy"]) for frame in frames)
    seeds = f"{over_seeds({split_run(row['run'])[1] for row in rows['sweep']})}.{_gaps(gaps)}"
    text = {name: f"{count:,} test images, {seeds}" for name, count in n.items()}
    norm, steps = experiment.plans[0].norm, ", ".join(f"{s:,}" for s in sorted(set(by_steps["steps"])))
    labels = ", ".join(reader_name(label) for label in order if label in set(by_eps["label"]))
    ends = ", ".join(end(part["percent"].iloc[-1]) for _, part in by_eps.groupby("label", sort=False))
    falls = "; ".join(
        f"{reader_name(str(label))}: {end(float(np.mean(few)))} to {end(float(np.mean(many)))}"
        for label, part in by_steps.groupby("label", sort=False)
        for few, many in [[part["percent"][part["steps"] == s] for s in (part["steps"].min(), part["steps"].max())]]
    )
    swept = (
        f"Share of images without a known adversarial example within {norm} eps. A curve that does not reach 0 means "
        f"that attacks fail. {text['sweep']}"
    )
    converged = (
        f"Accuracy under our adaptive attack with more and more steps, {norm} eps {eps_text(plan.convergence_eps)}. A "
        f"curve that still falls has not converged. Steps: {steps}, each number alone. {text['convergence']}"
    )
    return {
        "sweep": Plot(
            figure=plots.lines(by_eps, "eps", f"eps ({norm}, images in [0, 1])", order),
            caption=swept,
            alt=f"Line plot of accuracy by eps for {labels}; last values: {ends}.",
        ),
        "convergence": Plot(
            figure=plots.lines(by_steps, "steps", "steps of the attack", order, log=True),
            caption=converged,
            alt=f"Line plot of accuracy by number of steps. From the fewest to the most steps: {falls}.",
        ),
    }


def training(trained: Iterable[Record], order: list[str]) -> Plot:
    """Plot loss and validation accuracy by epoch; ``order`` holds the labels in the order of their colours."""
    trained = list(trained)
    histories: dict[str, list[Any]] = {label: [] for label in order if label in set(map(label_of, trained))}
    for record in trained:
        histories.get(label_of(record), []).extend(record.results["history"])
    seeds = {split_run(record.run)[1] for record in trained}
    images, held = (max(r.results[name] for r in trained) for name in ("train_images", "validation_images"))
    caption = (
        f"Training loss, on each loss's own scale, and validation accuracy by epoch. {images:,} training images and "
        f"{held:,} validation images; {over_seeds(seeds)}."
    )
    alt = (
        "Two line plots by epoch, of training loss and of validation accuracy, for "
        + ", ".join(map(reader_name, histories))
        + "."
    )
    return Plot(figure=plots.training_curves(histories), caption=caption, alt=alt, kinds=("train",))


def examples(experiment: Experiment, found: Mapping[str, tuple[Record, Mapping[str, np.ndarray]]]) -> Plot:
    """Plot images that fell to an attack, of each objective the first ones.

    Args:
        experiment: the experiment.
        found: by label, the record of the first seed and the arrays of its side file.
    """
    arrays = {label: found[label][1] for label in core(found)}
    each = max(1, 6 // len(arrays))
    clean, adversarial, predictions = (
        np.concatenate([side[name][:each] for side in arrays.values()])
        for name in ("clean", "adversarial", "predictions")
    )
    titles = [reader_name(label).replace(" (", "\n(") for label, side in arrays.items() for _ in side["clean"][:each]]
    named = dict.fromkeys(row_name(record.results["examples"]) for record, _ in found.values())
    plan = experiment.plans[0]
    caption = (
        f"Test images that were broken at {plan.norm} eps {eps_text(plan.eps[-1])}, with the predicted class and its "
        f"softmax probability. By {', '.join(named)}, of {suites(experiment)}; the first training seed."
    )
    alt = "Three rows: images, their adversarial versions, and the amplified difference."
    return Plot(figure=plots.example_images(clean, adversarial, predictions, titles), caption=caption, alt=alt)
