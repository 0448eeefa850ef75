"""Tables and plot of min-max records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from isce.evaluation import percent
from isce.report.exhibits import Plot, Table
from isce.report.key import split_run
from isce.report.plots import runs as plots
from isce.runs.records import Record

KINDS = ("minmax",)

_SUMMARY = {
    "mean_loss": "SCE",
    "mean_inner": "inner maximum reached",
    "mean_bound": "proved bound",
    "certified": "certified (%)",
    "robust": "not broken (%)",
}
_REGION = {
    "margin_drop": "margin drop",
    "logit_shift": "logit shift",
    "covered": "safe by its margin (%)",
    "kl_clean_adversarial": "KL(p(x), p(x'))",
    "kl_truth_clean": "KL(truth, p(x))",
    "kl_truth_adversarial": "KL(truth, p(x'))",
    "relative_shift": "feature shift / spread",
    "separation": "between / within scatter",
    "adversarial_separation": "the same, adversarial",
    "frechet_distance": "Frechet distance",
}
_SHARES = {"certified", "robust", "covered"}


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    return percent(value) if name in _SHARES else plots.three(value)


def _rows(records: Iterable[tuple[str, Record]]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(label, threat, found) for label, record in records for threat, found in record.results["threats"].items()]


def bounds(records: list[tuple[str, Record]]) -> Table:
    """Return cross-entropy at the images, the inner maximum that ascent reached, and its proved bound, by eps."""
    rows = [
        [label, plots.eps_text(found["eps"]), *(_text(name, found[name]) for name in _SUMMARY)]
        for label, _, found in _rows(records)
    ]
    caption = (
        "Softmax cross-entropy of the raw logits (nats, mean over images): at the images; the largest that projected "
        "ascent reached in the ball, a lower bound of the inner maximum; I-SCE at m = K eps, its proved upper bound. "
        "Then the shares of images whose prediction is certified, and that the ascent did not break. "
        f"{_evidence(records)}"
    )
    return Table(columns=["objective", "eps", *_SUMMARY.values()], rows=rows, caption=caption, kinds=KINDS)


def region(records: list[tuple[str, Record]]) -> Table:
    """Return the inference region over all images, at each eps."""
    rows = [
        [label, plots.eps_text(found["eps"]), *(_text(name, found["region"]["all"].get(name)) for name in _REGION)]
        for label, _, found in _rows(records)
    ]
    caption = (
        "The inference region: means over images of what the ascent on softmax cross-entropy changes (logits, nats), "
        "and how far it moves the embeddings. Safe by its margin: the clean margin exceeds twice the logit shift. "
        "Feature shift: of a class mean, as a multiple of the class's own spread, mean over classes. Scatter: trace "
        "between classes over trace within. Logits of different objectives have different scales: compare shares, "
        f"ratios and signs, not heights. {_evidence(records)}"
    )
    return Table(columns=["objective", "eps", *_REGION.values()], rows=rows, caption=caption, kinds=KINDS)


def coverage(records: list[tuple[str, Record]]) -> Plot:
    """Plot which m covers which share of images."""
    rows = [
        {"label": label, "eps": found["eps"], "m": row["m"], "covered": 100 * row["covered"]}
        for label, _, found in _rows(records)
        for row in found["gap"]
    ]
    frame = pd.DataFrame(rows)
    norm = records[0][1].parameters["norm"]
    caption = (
        "Share of images whose I-SCE loss at m is at least the largest softmax cross-entropy that the ascent reached "
        f"in the ball: the share that this m covers, at most. {_evidence(records)}"
    )
    alt = "Line plots, one for each eps, of the covered share against m; it rises with m and falls with eps."
    return Plot(figure=plots.coverage(frame, norm), caption=caption, alt=alt, kinds=KINDS)


def _evidence(records: list[tuple[str, Record]]) -> str:
    parameters = records[0][1].parameters
    seeds = sorted({split_run(record.run)[1] for _, record in records})
    n = max(found["n"] for _, _, found in _rows(records))
    return (
        f"{n:,} test images, training seed {', '.join(seeds)}; {parameters['norm']} ball, {parameters['restarts']} x "
        f"{parameters['steps']} steps."
    )
