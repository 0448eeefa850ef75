"""Everything of the min-max view, measured on one trained model: what the min-max notebook runs and records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from isce.attacks import Threat
from isce.attacks.rejection import rejects
from isce.minmax.bounds import certified_radius, input_bound
from isce.minmax.gap import inner_gap, projected_ascent
from isce.minmax.lipschitz import network_constants
from isce.minmax.region import InferenceRegion, inference_region
from isce.models import Classifier
from isce.parameters.analysis import MinmaxParameters


@dataclass(frozen=True)
class Ball:
    """What was measured on one ball around every image.

    Attributes:
        eps: its radius, pixel units.
        summary: ``mean_loss``, ``mean_inner`` (softmax cross-entropy at the images, and the largest that the ascent
            reached), ``mean_bound`` (I-SCE at m = K eps, a proved upper bound; None without constants), ``violations``
            (images whose measured maximum exceeds the bound; must be 0), ``certified`` and ``robust`` (shares whose
            prediction is proved, or was not broken by the ascent), ``clean``, ``n``.
        gap: see :func:`isce.minmax.inner_gap`.
        region: see :func:`isce.minmax.inference_region`.
    """

    eps: float
    summary: dict[str, Any]
    gap: pd.DataFrame
    region: InferenceRegion


@dataclass(frozen=True)
class Analysis:
    """The min-max analysis of one model.

    Attributes:
        constant: largest pairwise constant K, or None.
        without: why there is no constant (a layer without a known bound), or None.
        norm: of the balls.
        balls: one for each eps.
    """

    constant: float | None
    without: str | None
    norm: str
    balls: list[Ball]

    def results(self) -> dict[str, Any]:
        """Everything as plain JSON values; NaN (a class with one image has no covariance) becomes None."""
        threats: dict[str, Any] = {}
        for ball in self.balls:
            classes = {str(name): _finite(row.to_dict()) for name, row in ball.region.classes.iterrows()}
            gap = [_finite(row.to_dict()) for _, row in ball.gap.iterrows()]
            threats[f"{self.norm}@{ball.eps:g}"] = {**ball.summary, "gap": gap, "region": classes}
        return {"constant": self.constant, "threats": threats}


def _finite(row: dict[Any, Any]) -> dict[str, float | None]:
    return {str(name): float(value) if math.isfinite(value) else None for name, value in row.items()}


def analyse(
    classifier: Classifier, x: Tensor, y: Tensor, parameters: MinmaxParameters, progress: bool = True
) -> Analysis:
    """Bounds, certificates, inner gap and inference region of a trained model, for each eps.

    One ascent for each eps, on softmax cross-entropy of the raw logits, serves all of them.

    Args:
        classifier: in evaluation mode, with fixed normalisation statistics.
        x: (N, C, H, W) images in [0, 1], on the classifier's device.
        y: (N,) int64 classes.
        parameters: norm, grid of eps and of m, budget of the ascent.
        progress: show a bar over the grid of eps.

    Raises:
        ValueError: training mode, batch statistics, a network that may reject, or images and classes that don't fit.
    """
    if rejects(classifier):
        raise ValueError("the network may reject images, which this analysis does not know of: give it its `unguarded`")
    constants, without = None, None
    try:
        constants = network_constants(classifier, parameters.norm).to(x.device)
    except ValueError as error:
        without = str(error)
    with torch.no_grad():
        clean = classifier(x, return_embedding=True)
    logits = clean[0].double()
    balls: list[Ball] = []
    for eps in tqdm(parameters.eps, disable=not progress, unit="eps"):
        moved = projected_ascent(
            classifier,
            x,
            y,
            eps=eps,
            norm=parameters.norm,
            steps=parameters.steps,
            restarts=parameters.restarts,
            seed=parameters.seed,
        )
        if not bool(Threat(parameters.norm, eps).inside(moved, x).all()):
            raise RuntimeError(f"the ascent left the {parameters.norm} ball of radius {eps}, or the box [0, 1]")
        with torch.no_grad():
            attacked = classifier(moved, return_embedding=True)
        other = attacked[0].double()
        summary = _summary(logits, other, y, constants, eps)
        gap = inner_gap(logits, other, y, parameters.inference)
        balls.append(Ball(eps, summary, gap, inference_region(clean, attacked, y)))
    constant = None if constants is None else float(constants.max())
    return Analysis(constant, without, parameters.norm, balls)


def _summary(logits: Tensor, attacked: Tensor, y: Tensor, constants: Tensor | None, eps: float) -> dict[str, Any]:
    clean = F.cross_entropy(logits, y, reduction="none")
    inner = torch.maximum(clean, F.cross_entropy(attacked, y, reduction="none"))
    right = logits.argmax(1) == y
    found: dict[str, Any] = {
        "eps": eps,
        "n": len(y),
        "mean_loss": float(clean.mean()),
        "mean_inner": float(inner.mean()),
    }
    found |= {"clean": float(right.double().mean()), "mean_bound": None, "violations": 0, "certified": None}
    found["robust"] = float((right & (attacked.argmax(1) == y)).double().mean())
    if constants is not None:
        bound = input_bound(logits, y, constants, eps)
        found["mean_bound"] = float(bound.mean())
        found["violations"] = int((inner > bound * (1 + 1e-6) + 1e-6).sum())
        found["certified"] = float((certified_radius(logits, y, constants) > eps).double().mean())
    return found
