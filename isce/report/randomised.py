"""Classifiers that draw at random when they are tested: what is left by who attacks one draw, and who knows better."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from isce.evaluation import mean_interval, percent
from isce.report.exhibits import Table
from isce.report.names import reader_name
from isce.report.plots.runs import eps_text
from isce.runs.records import Record

COLUMNS = ["network", "eps", "clean", "attack on one draw", "attack on the mean over draws"]


def table(attacked: Iterable[tuple[str, str, Record]], evidence: str) -> Table | None:
    """Tabulate mean accuracies over draws by network and threat; None: no record holds any.

    Args:
        attacked: path, label and record of each attack run of an experiment.
        evidence: for the caption.
    """
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, label, record in attacked:
        if "randomised" in record.results:
            found.setdefault(label, []).append((name, record.results["randomised"]))
    if not found:
        return None
    every = [one for several in found.values() for one in several]
    rows = list[list[str]]()
    for label, several in found.items():
        for threat in several[0][1]["threats"]:
            shares = [[one["clean"], *(one["threats"][threat][a] for a in ("naive", "knowing"))] for _, one in several]
            norm, _, eps = threat.partition("@")
            texts = [_mean(column) for column in zip(*shares, strict=True)]
            rows.append([reader_name(label), f"{norm} {eps_text(float(eps))}", *texts])
    budgets = {tuple(sorted(one["draws"].items())) for _, one in every}
    how = "; ".join(
        f"{b['attack']} draws and two ascents of {b['steps']} steps to attack, {b['judge']} fresh draws to judge"
        for b in map(dict, sorted(budgets))
    )
    caption = (
        "Accuracy (%) of networks that draw at random, mean over images and fresh draws, with its 95% interval over "
        "both; of several training seeds the mean, widest of their intervals, and ± the 95% t interval over seeds. One "
        f"draw: PGD-50 on the training loss of the network with one draw held fixed. Mean over draws: {how}. {evidence}"
    )
    return Table(columns=COLUMNS, rows=rows, caption=caption, sources=[name for name, _ in every])


def _mean(shares: Iterable[dict[str, Any]]) -> str:
    """Mean over seeds, with the widest of their intervals around it, and the t interval over seeds."""
    shares = list(shares)
    mean = fmean(share["accuracy"] for share in shares)
    below = max(share["accuracy"] - share["low"] for share in shares)
    above = max(share["high"] - share["accuracy"] for share in shares)
    interval = (max(0.0, mean - below), min(1.0, mean + above))
    half = None
    if len(shares) > 1:
        low, high = mean_interval([share["accuracy"] for share in shares])
        half = (high - low) / 2
    return percent(mean, interval, half)
