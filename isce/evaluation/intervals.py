"""Intervals: Wilson over images, t over training seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW


def wilson(correct: float, n: int) -> tuple[float, float]:
    """Wilson 95% interval of a share.

    Args:
        correct: number of images that count, 0 to ``n``; may be a mean over seeds.
        n: number of images, at least 1.

    Returns:
        Lower and upper bound in [0, 1].

    Raises:
        ValueError: ``n`` below 1, or ``correct`` outside [0, n].
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"need n >= 1 and 0 <= correct <= n, got correct={correct}, n={n}")
    low, high = (np.asarray(bound).item() for bound in proportion_confint(correct, n, alpha=0.05, method="wilson"))
    return max(0.0, float(low)), min(1.0, float(high))


def mean_interval(values: Any) -> tuple[float, float]:
    """95% t interval of a mean over training seeds, assuming roughly normal values.

    Args:
        values: one finite number for each seed, at least two.

    Raises:
        ValueError: fewer than two values, or a value that isn't finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError(f"need at least two finite values, got {array.tolist()}")
    low, high = DescrStatsW(array).tconfint_mean(alpha=0.05)
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Two objectives on the same images.

    Attributes:
        only_first: images robust under the first alone.
        only_second: images robust under the second alone.
        p_value: exact two-sided McNemar test that both are equally often robust.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Any, second: Any) -> Paired:
    """Exact McNemar test between two masks over the same images.

    Args:
        first: bool (N,), such as ``Evaluation.robust`` of one objective.
        second: bool (N,), of the other, same images in the same order.

    Raises:
        ValueError: masks of different or no length, or not bool.
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.shape != two.shape or one.ndim != 1 or not len(one) or one.dtype != bool or two.dtype != bool:
        got = f"{one.dtype} {one.shape} and {two.dtype} {two.shape}"
        raise ValueError(f"need two bool masks over the same images, got {got}")
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    differ = only_first + only_second
    p_value = float(binomtest(only_first, differ).pvalue) if differ else 1.0
    return Paired(only_first, only_second, p_value)
