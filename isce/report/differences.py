"""Differences between two objectives, over images and over seeds, and the four verdicts that intervals can give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from statsmodels.stats.proportion import confint_proportions_2indep

from isce.evaluation import paired_images, paired_seeds, percent
from isce.report.cells import Cells, accuracies, mean
from isce.report.key import Key

SUPPORTED, CONTRADICTED = "supported", "contradicted"
INCONCLUSIVE, UNTESTABLE = "inconclusive", "not testable"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTABLE)
FLOOR = 0.01  # accuracy up to which a network counts as broken
Interval = tuple[float, float]


def side(interval: Interval, *others: Interval | None, bound: float = 0.0) -> str:
    """Return the verdict on "above the bound": supported or contradicted where all intervals lie wholly on one side.

    Args:
        interval: the first.
        others: further ones; None counts for nothing.
        bound: of the claim.
    """
    lows, highs = zip(interval, *filter(None, others), strict=True)
    return SUPPORTED if min(lows) > bound else CONTRADICTED if max(highs) < bound else INCONCLUSIVE


def every(*verdicts: str) -> str:
    """Return the verdict on a claim with parts: contradicted if one is, supported if all are."""
    return next((v for v in (CONTRADICTED, UNTESTABLE, INCONCLUSIVE) if v in verdicts), SUPPORTED)


@dataclass(frozen=True)
class Difference:
    """Accuracy of one objective minus that of another, in shares.

    Attributes:
        value: mean over the seeds.
        images: 95% interval over images, paired where the records allow it, else Newcombe's for independent images.
        seeds: 95% t interval over seeds, of no width where all seeds give the same; None: of one seed.
        floor: whether both sides are at most ``FLOOR``.
    """

    value: float
    images: Interval
    seeds: Interval | None
    floor: bool

    @property
    def verdict(self) -> str:
        """On "the first is better". One network of each is inconclusive: it says nothing of the next seed."""
        if self.floor:
            return UNTESTABLE
        return INCONCLUSIVE if self.seeds is None else side(self.images, self.seeds)

    def __str__(self) -> str:
        half = None if self.seeds is None else (self.seeds[1] - self.seeds[0]) / 2
        return percent(self.value, self.images, half, unit=" points", sign="+")


def over_seeds(first: list[float], second: list[float]) -> Interval | None:
    """Return the paired 95% t interval of first minus second, one value for each seed; None of one seed."""
    if len(first) < 2:
        return None
    test = paired_seeds(first, second)
    flat = (test.difference, test.difference)
    return flat if test.low is None or test.high is None else (test.low, test.high)


def difference(
    found: Cells, label: str, base: str, key: Key, masks: Mapping[str, Mapping[str, Any]] | None = None, norm: str = ""
) -> Difference | None:
    """Between two objectives at one key, over the seeds that both have; None where there are none.

    Args:
        found: accuracies.
        label: the first objective.
        base: the second.
        key: which accuracy.
        masks: for each run the images robust in the worst case at each threat, of the same images in all runs.
        norm: of the experiment; a threat's name holds it.

    Raises:
        NotEvaluatedError: one of these seeds has no accuracy.
    """
    one, two = ({cell.seed: cell for cell in found.get(name, key)} for name in (label, base))
    shared = sorted(set(one) & set(two))
    if not shared:
        return None
    first, second = ([sides[seed] for seed in shared] for sides in (one, two))
    a, b = mean(first), mean(second)
    threat = key.threat(norm) if key.kind == "worst" else ""
    robust = [[(masks or {}).get(f"{name}-s{seed}", {}).get(threat) for seed in shared] for name in (label, base)]
    flat = [mask for several in robust for mask in several]
    paired = all(mask is not None and len(mask) == cell.n for mask, cell in zip(flat, first + second, strict=True))
    if paired and len({cell.n for cell in first + second}) == 1:
        images = paired_images(*map(np.asarray, robust))
    else:
        paired, n = False, min(cell.n for cell in first + second)
        low, high = confint_proportions_2indep(a * n, n, b * n, n, compare="diff", method="newcomb")
        images = float(low), float(high)
    seeds = over_seeds(accuracies(first), accuracies(second))
    return Difference(a - b, images, seeds, max(a, b) <= FLOOR)
