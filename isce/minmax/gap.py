"""The measured inner maximum of softmax cross-entropy over the input ball, against I-SCE at a grid of m."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.attacks.ascent import ascend, slope, unit
from isce.attacks.keys import keyed_noise
from isce.losses.softmax import inference_softmax_cross_entropy
from isce.minmax.checks import check_evaluation, check_radius
from isce.minmax.counterparts import covering_inference, wrong_evidence

Loss = Callable[[Tensor, Tensor], Tensor]
Norm = Literal["linf", "l2"]


def inner_gap(logits: Tensor, attacked: Tensor, y: Tensor, ms: Sequence[float]) -> pd.DataFrame:
    """Compare I-SCE at each m with the inner maximum of softmax cross-entropy that an attack reached.

    The attack's maximum is a lower bound of the true maximum, so ``covered`` is an upper bound of the share that m
    truly covers. An image on which the attack found less than the clean loss counts with the clean loss.

    Args:
        logits: (N, C) float64 logits of the images.
        attacked: (N, C) float64 logits of the attack's points.
        y: (N,) int64 classes.
        ms: values of the scalar inference information, at least one.

    Returns:
        One row per m: ``m``; ``covered``, share of examples with L_m(f(x), y) >= measured maximum; ``mean_bound``,
        mean L_m; ``mean_inner``, mean measured maximum; ``mean_gap``, ``median_gap`` of bound minus measured
        maximum, nats.

    Raises:
        ValueError: no m, or logits and classes that don't fit, see :func:`covering_inference`.
    """
    if not ms:
        raise ValueError("ms must hold at least one value of m")
    needed = covering_inference(logits, attacked, y).clamp(min=0)
    clean, reached = (F.cross_entropy(s, y, reduction="none") for s in (logits, attacked))
    inner = torch.maximum(reached, clean)
    rows: list[dict[str, float]] = []
    for m in ms:
        bound = inference_softmax_cross_entropy(logits, y, float(m), reduction="none")
        gap = bound - inner
        rows.append(
            {
                "m": float(m),
                "covered": float((needed <= m).double().mean()),
                "mean_bound": float(bound.mean()),
                "mean_inner": float(inner.mean()),
                "mean_gap": float(gap.mean()),
                "median_gap": float(gap.quantile(0.5)),
            }
        )
    return pd.DataFrame(rows)


def projected_ascent(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    loss: Loss = wrong_evidence,
    steps: int = 40,
    restarts: int = 3,
    seed: int = 0,
) -> Tensor:
    """Projected gradient ascent with steps falling from eps to 0, keeping each example's best point.

    The default loss is log(exp(SCE) - 1): it has SCE's maximisers, and its gradient does not round to zero on
    confident examples.

    Args:
        classifier: logits for images, in evaluation mode.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) int64 classes.
        eps: the ball's radius, pixel units, >= 0.
        norm: "linf" (sign steps) or "l2" (normalised steps).
        loss: (logits, target) -> (N,), what is ascended.
        steps: per restart.
        restarts: the first starts at x, the others at a random point of the ball, keyed by seed, place and restart.
        seed: of the random starts.

    Returns:
        (N, C, H, W), in the ball and in [0, 1].

    Raises:
        ValueError: if the classifier is in training mode, the norm is unknown or eps is negative.
        RuntimeError: a loss or gradient that is not finite, with which nothing would be ascended.
    """
    check_evaluation(classifier)
    check_radius(eps, "eps")
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; known: linf, l2")
    x, index = x.detach(), torch.arange(len(x))
    best = x.clone()
    with torch.no_grad():
        record = loss(classifier(best), y)

    def step(point: Tensor, gradient: Tensor, number: int) -> Tensor:
        nonlocal record
        _check_finite("gradient", gradient)
        size = eps * (1 - number / steps)
        point = _project(point + size * _direction(gradient, norm), x, eps, norm)
        with torch.no_grad():
            value = loss(classifier(point), y)
        _check_finite("loss", value)
        better = value > record
        record = torch.where(better, value, record)
        best[better] = point[better]
        return point

    for restart in range(restarts):
        start = x
        if restart > 0:
            noise = keyed_noise(seed, index, restart, x.shape[1:], norm, key_bytes=7).to(x)
            start = _project(x + eps * noise, x, eps, norm)
        ascend(start, lambda point: slope(lambda moved: loss(classifier(moved), y), point), step, steps)
    return best


def _check_finite(what: str, values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        wrong = int((~values.isfinite().flatten(1).all(1)).sum() if values.ndim > 1 else (~values.isfinite()).sum())
        raise RuntimeError(f"the {what} is not finite for {wrong} of {len(values)} images: nothing can be ascended")


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    return gradient.sign() if norm == "linf" else unit(gradient, 2)


def _project(point: Tensor, x: Tensor, eps: float, norm: Norm) -> Tensor:
    """Move points into the ball, then into [0, 1], which shortens the way from x.

    ``Threat.project`` rounds otherwise, and in l_2 goes to the nearest point of both: other numbers in the records.
    """
    shift = point - x
    if norm == "linf":
        shift = shift.clamp(-eps, eps)
    else:
        length = shift.flatten(1).norm(dim=1).clamp(min=torch.finfo(shift.dtype).tiny)
        shift = shift * (eps / length).clamp(max=1).view(-1, *[1] * (x.ndim - 1))
    return (x + shift).clamp(0, 1)
