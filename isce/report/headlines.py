"""Headline numbers of two sets of records: clean and worst-case accuracy of each loss at the main eps.

Own and committed means over the shared training seeds are compared as draws of seeds. The scatter is the committed
records' own: that of the loss or, if larger, the one pooled over the losses, in units of p (1 - p). Where no loss has
two seeds it is taken from the other committed experiments. P values are corrected for their number (Holm).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t
from statsmodels.stats.multitest import multipletests

from isce.evaluation import percent
from isce.files import ROOT
from isce.report.cells import Cell, Cells, NotEvaluatedError, accuracies
from isce.report.key import Key
from isce.report.names import reader_name
from isce.report.plots.runs import eps_text
from isce.report.source import Source
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs

LEVEL = 0.01  # how often a faithful reproduction fails in some number, if the scatter is alike in all losses
Scatter = tuple[float, int]


@dataclass(frozen=True)
class Headline:
    """One headline number of both sides.

    Attributes:
        name: as a sentence says it.
        own: mean over the shared seeds; None where a side has none.
        committed: likewise.
        p: probability of a difference as large by the scatter over seeds; None where it can't be judged.
        agrees: after the correction for the number of comparisons.
        fault: why it can't agree; empty where it was compared.
    """

    name: str
    own: float | None
    committed: float | None
    p: float | None = None
    agrees: bool = False
    fault: str = ""


def headlines(ours: Source, theirs: Source, folder: Path) -> list[Headline]:
    """Return clean and worst-case accuracy at the main eps of every loss that the committed records have.

    Args:
        ours: own records.
        theirs: the committed ones.
        folder: the committed records of all experiments, for the scatter where this one has one seed.
    """
    found: list[Headline] = []
    for kind, words in (("clean", "clean accuracy of {}"), ("worst", "worst-case accuracy of {} at eps {}")):
        key = _key(theirs, kind)
        pooled = scatter([(theirs.cells, key)]) or scatter(_others(folder, theirs.experiment.name, kind))
        for label in theirs.cells.labels:
            one, two = ({cell.seed: cell for cell in side.cells.get(label, key)} for side in (ours, theirs))
            name = words.format(reader_name(label), key.eps and eps_text(float(key.eps)))
            seeds = [seed for seed in two if seed in one]
            if two:
                found.append(_headline(name, [one[seed] for seed in seeds], [two[seed] for seed in seeds], pooled))
    places = [place for place, one in enumerate(found) if one.p is not None]
    if places:
        corrected = np.asarray(multipletests([found[place].p for place in places], LEVEL, "holm")[1])
        for place, p in zip(places, corrected, strict=True):
            found[place] = replace(found[place], p=float(p), agrees=bool(p > LEVEL))
    return found


def _headline(name: str, own: list[Cell], committed: list[Cell], pooled: Scatter | None) -> Headline:
    """Compare one number over the seeds that both sides have; the correction comes later."""
    if not own:
        return Headline(name, None, None, fault="has no seed of the committed records")
    try:
        a, b = accuracies(own), accuracies(committed)
    except NotEvaluatedError as error:
        return Headline(name, None, None, fault=f"can't be compared: {error}")
    values = Headline(name, float(np.mean(a)), float(np.mean(b)))
    images = [cell.n for cell in (*own, *committed)]
    if len(set(images)) > 1:
        return replace(values, fault=f"is of {min(images)} images on one side and of {max(images)} on the other")
    p = p_value(a, b, images[0], pooled)
    return replace(values, p=p, fault="" if p is not None else f"{apart(values)}; no scatter over seeds is known")


def _key(source: Source, kind: str) -> Key:
    return Key("clean") if kind == "clean" else Key.at("worst", source.experiment.plans[0].main_eps)


def apart(one: Headline) -> str:
    """What is said of a number that differs."""
    assert one.own is not None
    assert one.committed is not None
    p = "" if one.p is None else f" (p = {one.p:.2g} after Holm's correction)"
    return f"is {percent(one.own, unit='%')}, committed {percent(one.committed, unit='%')}{p}"


def _others(folder: Path, name: str, kind: str) -> Iterator[tuple[Cells, Key]]:
    """Yield the accuracies of the other committed experiments, and their key of a kind of headline number."""
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        if path.stem != name and (folder / path.stem).is_dir():
            experiment = load_experiment(path.stem)
            runs = {(run.kind, run.name): run.key for run in planned_runs(experiment)}
            other = Source(experiment, folder, runs)
            yield other.cells, _key(other, kind)


def p_value(own: list[float], committed: list[float], n: int, pooled: Scatter | None) -> float | None:
    """Return how probable a difference of the means as large is, if both are draws of seeds; None: no scatter known.

    Args:
        own: accuracy of each seed, in [0, 1].
        committed: likewise, of the same seeds.
        n: number of images; the standard deviation is taken to be at least one image.
        pooled: variance over seeds in units of p (1 - p), and its degrees of freedom.
    """
    difference = abs(float(np.mean(own)) - float(np.mean(committed)))
    if difference == 0:
        return 1.0
    if pooled is None:
        return None
    middle, (units, freedom) = (float(np.mean(own)) + float(np.mean(committed))) / 2, pooled
    alone = float(np.var(committed, ddof=1)) if len(committed) > 1 else 0.0
    variance = max(units * middle * (1 - middle), alone, n**-2)
    return float(2 * t.sf(difference / (variance * (1 / len(own) + 1 / len(committed))) ** 0.5, freedom))


def scatter(every: Iterable[tuple[Cells, Key]]) -> Scatter | None:
    """Return the variance over training seeds of a number, in units of p (1 - p), pooled over losses and experiments.

    Returns:
        The variance and its degrees of freedom; None where no loss has two seeds.
    """
    spread, room, freedom = 0.0, 0.0, 0
    for found, key in every:
        for label in found.labels:
            several = [cell.accuracy for cell in found.get(label, key) if cell.accuracy is not None]
            if len(several) > 1:
                middle = float(np.mean(several))
                spread += float(np.var(several)) * len(several)
                room += middle * (1 - middle) * (len(several) - 1)
                freedom += len(several) - 1
    return (spread / room, freedom) if room else None
