"""Intervals: Wilson over images, t over training seeds, a bootstrap over images and draws of randomised classifiers.

There is no bootstrap over seeds: with the few seeds of an experiment it is too narrow. Of three normal values the 95%
percentile bootstrap holds the true mean in about three quarters of all cases, of five in about five sixths, where the t
interval holds it in 95% (``tests/evaluation/test_intervals.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm, ttest_rel
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

#: Differences between seeds up to this share of the values are float rounding, not spread.
SPREAD = 1e-12
RESAMPLED = 1000


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
    # Rounding leaves the bounds of none and of all next to 0 and 1, for about a quarter of all n.
    return 0.0 if correct == 0 else max(0.0, low), 1.0 if correct == n else min(1.0, high)


def wilson_and_draws(right: Any) -> tuple[float, float]:
    """95% interval of the mean accuracy of a randomised classifier, over images and draws.

    The draws are the same for all images, so both are resampled: rows and columns, independently (the pigeonhole
    bootstrap, Owen 2007, on the safe side; ``RESAMPLED`` times, percentiles). The interval holds that one and Wilson's
    of the mean over as many images, so that it has a width where every draw of every image is right.

    Args:
        right: bool (N, D), which images are classified right by which draws.

    Raises:
        ValueError: no mask of at least one image and one draw.
    """
    mask = np.asarray(right)
    if mask.dtype != bool or mask.ndim != 2 or not mask.size:
        raise ValueError(f"need a bool mask, images by draws, got {mask.dtype} {mask.shape}")
    n, draws = mask.shape
    generator = np.random.default_rng(0)
    images = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLED)
    columns = generator.multinomial(draws, np.full(draws, 1 / draws), size=RESAMPLED)
    means = ((images @ mask.astype(float)) * columns).sum(1) / (n * draws)
    low, high = (float(bound) for bound in np.quantile(means, [0.025, 0.975]))
    least, most = wilson(float(mask.mean()) * n, n)
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def percent(
    share: float,
    interval: tuple[float, float] | None = None,
    half: float | None = None,
    *,
    unit: str = "",
    sign: str = "",
) -> str:
    """Return a share as text in per cent with one decimal, such as ``43.1 [40.2, 46.0] ±1.2``.

    Args:
        share: usually in [0, 1]; a difference of shares may be negative.
        interval: bounds, as shares.
        half: half-width of a second interval, as a share.
        unit: text right behind the value.
        sign: ``+`` to write the sign of positive numbers, too.
    """
    text = f"{100 * share:{sign}.1f}{unit}"
    if interval is not None:
        text += f" [{100 * interval[0]:{sign}.1f}, {100 * interval[1]:{sign}.1f}]"
    return text if half is None else f"{text} ±{100 * half:.1f}"


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


def paired_images(first: Any, second: Any) -> tuple[float, float]:
    """95% interval over images of the difference in robust accuracy, first minus second, on the same images.

    Each image gives the mean over seeds of its differences; their normal interval gets two pseudo-images, half of each
    outcome of a pair (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions",
    whose interval it is for one seed), so that it has a width where no image differs.

    Args:
        first: bool (S, N), one row for each seed: which images are robust with the first objective.
        second: bool (S, N), with the second; same seeds and images in the same order.

    Raises:
        ValueError: masks of different or no size, or not bool.
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.shape != two.shape or one.ndim != 2 or not one.size or one.dtype != bool or two.dtype != bool:
        got = f"{one.dtype} {one.shape} and {two.dtype} {two.shape}"
        raise ValueError(f"need two bool masks, seeds by images, of the same images, got {got}")
    differences = (one.astype(float) - two).mean(axis=0)
    weights = np.append(np.ones(len(differences)), [0.5, 0.5, 1.0])
    values = np.append(differences, [1.0, -1.0, 0.0])
    mean = float(np.average(values, weights=weights))
    half = float(norm.ppf(0.975)) * float(np.average((values - mean) ** 2, weights=weights) / weights.sum()) ** 0.5
    return max(-1.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True)
class PairedSeeds:
    """Two objectives trained with the same seeds.

    Attributes:
        difference: mean over the seeds of first minus second.
        low: lower bound of its 95% t interval; None where the seeds' differences have no spread.
        high: upper bound; None likewise.
        p_value: two-sided paired t test that the mean difference is 0; None likewise.
        n: number of seeds.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int


def paired_seeds(first: Any, second: Any) -> PairedSeeds:
    """Paired t test between two objectives over training seeds, assuming roughly normal differences.

    Differences that are all equal (two objectives at 0%, say) hold no estimate of how much seeds vary. A t test would
    then claim certainty from a handful of runs, so it is left out: bounds and p value are None.

    Args:
        first: one finite number for each seed, at least two, such as worst-case accuracies of one objective.
        second: of the other objective, same seeds in the same order.

    Raises:
        ValueError: fewer than two pairs, different numbers of seeds, or a value that isn't finite.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != two.shape or one.ndim != 1 or len(one) < 2 or not np.isfinite([one, two]).all():
        got = f"{one.tolist()} and {two.tolist()}"
        raise ValueError(f"need at least two finite values of each objective, one for each seed, got {got}")
    differences = one - two
    difference, n = float(differences.mean()), len(differences)
    if np.ptp(differences) <= SPREAD * max(np.abs(one).max(), np.abs(two).max()):
        return PairedSeeds(difference, None, None, None, n)
    test = ttest_rel(one, two)
    interval = test.confidence_interval(0.95)
    return PairedSeeds(difference, float(interval.low), float(interval.high), float(test.pvalue), n)


def share(mask: np.ndarray[Any, np.dtype[np.bool_]], why: str = "") -> dict[str, Any]:
    """Share of a mask's images; no figure but their number where there is a reason ``why`` it is not known."""
    correct, n = int(mask.sum()), len(mask)
    if why:
        return {"accuracy": None, "correct": None, "n": n, "low": None, "high": None, "why": why}
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "correct": correct, "n": n, "low": low, "high": high}


def in_percent(share: dict[str, Any], *, interval: bool = False) -> str:
    """An accuracy as :func:`share` gives it, in words, or that it was not evaluated and why.

    Args:
        share: the accuracy.
        interval: with its Wilson interval, as tables have it: without the sign of per cent.
    """
    if share["accuracy"] is None:
        return f"not evaluated: {share['why']}"
    if not interval:
        return percent(share["accuracy"], unit="%")
    return percent(share["accuracy"], (share["low"], share["high"]))
