"""Clean, per-attack and worst-case robust accuracy of one classifier under a suite, with intervals.

An image is *robust* at an eps only if it is classified right and no attack of the suite, at this eps or a smaller one
of the grid, found a verified point inside ball and box that is misclassified.
"""

from __future__ import annotations

from isce.evaluation.corruptions import corruptions
from isce.evaluation.curves import convergence, curves, sweep
from isce.evaluation.drawn import Randomised
from isce.evaluation.examples import Examples, examples
from isce.evaluation.flags import curve_flags, outcome_flags, red_flags
from isce.evaluation.intervals import (
    Paired,
    PairedSeeds,
    mcnemar,
    mean_interval,
    paired_images,
    paired_seeds,
    percent,
    wilson,
)
from isce.evaluation.memory import batch_size
from isce.evaluation.outcome import Evaluation, Outcome
from isce.evaluation.run import evaluate

__all__ = [
    "Evaluation",
    "Examples",
    "Outcome",
    "Paired",
    "PairedSeeds",
    "Randomised",
    "batch_size",
    "convergence",
    "corruptions",
    "curve_flags",
    "curves",
    "evaluate",
    "examples",
    "mcnemar",
    "mean_interval",
    "outcome_flags",
    "paired_images",
    "paired_seeds",
    "percent",
    "red_flags",
    "sweep",
    "wilson",
]
