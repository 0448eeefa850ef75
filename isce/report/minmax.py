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
        "Cross-entropy (nats, mean over images) at the images, the largest that an attack reached in the ball, and its "
        "proved bound. What the attack reached is a lower bound of the inner maximum; I-SCE at m = K eps is the upper "
        "one. Then the shares of images whose prediction is certified, and that the ascent did not break. "
        f"{_evidence(records)}"
    )
    return Table(columns=["loss", "eps", *_SUMMARY.values()], rows=rows, caption=caption, kinds=KINDS)


def region(records: list[tuple[str, Record]]) -> Table:
    """Return the inference region over all images, at each eps."""
    rows = [
        [label, plots.eps_text(found["eps"]), *(_text(name, found["region"]["all"].get(name)) for name in _REGION)]
        for label, _, found in _rows(records)
    ]
    caption = (
        "The inference region: how far an attack on cross-entropy moves logits and embeddings, as means over "
        "images. Safe by its margin: the clean margin exceeds twice the logit shift. Feature shift: of a class "
        "mean, as a multiple of the class's own spread, mean over classes. Scatter: trace between classes over "
        "trace within. Logits of different losses have different scales: compare shares, ratios and signs, not "
        f"heights. {_evidence(records)}"
    )
    return Table(columns=["loss", "eps", *_REGION.values()], rows=rows, caption=caption, kinds=KINDS)


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
        "Share of images that m covers: their I-SCE loss is at least the highest cross-entropy that an attack "
        f"found. An upper bound, as the attack may have missed more. {_evidence(records)}"
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
