"""The measured inner maximum of softmax cross-entropy over the input ball, against I-SCE at a grid of m."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.softmax import inference_softmax_cross_entropy
from isce.minmax.checks import check_attacked, check_batch_size, check_evaluation, check_radius
from isce.minmax.counterparts import covering_inference, wrong_evidence

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Norm = Literal["linf", "l2"]

_ROUNDING = 1e-5


def inner_gap(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    ms: Sequence[float],
    *,
    norm: Norm = "linf",
    attack: Attack | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Compare I-SCE at each m with the inner maximum that an attack reaches.

    The attack's maximum is a lower bound of the true one, so ``covered`` is an upper bound of the share that m
    truly covers.

    Args:
        classifier: scores for images, in evaluation mode.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) int64 classes.
        eps: the ball's radius, pixel units, >= 0.
        ms: values of the scalar inference information, at least one.
        norm: of the ball, "linf" or "l2".
        attack: (classifier, x, y) -> adversarial images in the ball and in [0, 1]; default ``projected_ascent``. An
            example on which it finds less than the clean loss counts with the clean loss.
        batch_size: images per forward pass and call of the attack; None: all at once.

    Returns:
        One row per m: ``m``; ``covered``, share of examples with L_m(f(x), y) >= measured maximum; ``mean_bound``,
        mean L_m; ``mean_inner``, mean measured maximum; ``mean_gap``, ``median_gap`` of bound minus measured
        maximum, nats.

    Raises:
        ValueError: if an input is not as stated, or the attack leaves the ball or the box.
    """
    if not ms:
        raise ValueError("ms must hold at least one value of m")
    check_evaluation(classifier)
    check_radius(eps, "eps")
    size = len(x) if batch_size is None else batch_size
    check_batch_size(size)
    parts: list[tuple[Tensor, Tensor]] = []
    for rows in torch.arange(len(x), device=x.device).split(size):
        images, labels = x[rows], y[rows]
        if attack is None:
            moved = projected_ascent(classifier, images, labels, eps=eps, norm=norm, index=rows)
        else:
            moved = attack(classifier, images, labels)
            _check_inside(images, moved, eps, norm)
        with torch.no_grad():
            parts.append((classifier(images).double(), classifier(moved).double()))
    scores, attacked = (torch.cat(part) for part in zip(*parts, strict=True))
    return _gap_by_m(scores, attacked, y, ms)


def _gap_by_m(scores: Tensor, attacked: Tensor, y: Tensor, ms: Sequence[float]) -> pd.DataFrame:
    needed = covering_inference(scores, attacked, y).clamp(min=0)
    clean, reached = (F.cross_entropy(s, y, reduction="none") for s in (scores, attacked))
    inner = torch.maximum(reached, clean)
    rows: list[dict[str, float]] = []
    for m in ms:
        bound = inference_softmax_cross_entropy(scores, y, float(m), reduction="none")
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
    index: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent with steps falling from eps to 0, keeping each example's best point.

    The default loss is log(exp(SCE) - 1): it has SCE's maximisers, and its gradient does not round to zero on
    confident examples.

    Args:
        classifier: scores for images, in evaluation mode.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) int64 classes.
        eps: the ball's radius, pixel units, >= 0.
        norm: "linf" (sign steps) or "l2" (normalised steps).
        loss: (scores, target) -> (N,), what is ascended.
        steps: per restart.
        restarts: the first starts at x, the others at a random point of the ball, keyed by (seed, index, restart).
        seed: of the random starts.
        index: (N,) positions of the images in their data set; default 0 to N - 1.

    Returns:
        (N, C, H, W), in the ball and in [0, 1].

    Raises:
        ValueError: if the classifier is in training mode, the norm is unknown or eps is negative.
    """
    check_evaluation(classifier)
    check_radius(eps, "eps")
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; known: linf, l2")
    positions = list(range(len(x))) if index is None else index.tolist()
    best = x.detach().clone()
    with torch.no_grad():
        record = loss(classifier(best), y)
    for restart in range(restarts):
        point = x.detach()
        if restart > 0:
            point = _project(x + eps * _noise(x, norm, [f"{seed}/{i}/{restart}" for i in positions]), x, eps, norm)
        for step in range(steps):
            point.requires_grad_(True)
            (slope,) = torch.autograd.grad(loss(classifier(point), y).sum(), point)
            size = eps * (1 - step / steps)
            point = _project(point.detach() + size * _direction(slope, norm), x, eps, norm)
            with torch.no_grad():
                value = loss(classifier(point), y)
            better = value > record
            record = torch.where(better, value, record)
            best[better] = point[better]
    return best


def _direction(slope: Tensor, norm: Norm) -> Tensor:
    if norm == "linf":
        return slope.sign()
    length = slope.flatten(1).norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
    return slope / length.view(-1, *[1] * (slope.ndim - 1))


def _project(point: Tensor, x: Tensor, eps: float, norm: Norm) -> Tensor:
    """Into the ball, then into [0, 1]; the second step shortens the way from x, so the point stays in the ball."""
    shift = point - x
    if norm == "linf":
        shift = shift.clamp(-eps, eps)
    else:
        length = shift.flatten(1).norm(dim=1).clamp(min=torch.finfo(shift.dtype).tiny)
        shift = shift * (eps / length).clamp(max=1).view(-1, *[1] * (x.ndim - 1))
    return (x + shift).clamp(0, 1)


def _noise(x: Tensor, norm: Norm, keys: Sequence[str]) -> Tensor:
    """Uniform in the unit ball, one stream per image so that the batch around it does not matter."""
    noise = torch.empty(x.shape)
    for i, key in enumerate(keys):
        digest = hashlib.blake2b(key.encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        if norm == "linf":
            noise[i] = torch.rand(x.shape[1:], generator=generator) * 2 - 1
        else:
            direction = torch.randn(x.shape[1:], generator=generator)
            radius = torch.rand((), generator=generator) ** (1 / direction.numel())
            noise[i] = direction / direction.norm() * radius
    return noise.to(x)


def _check_inside(x: Tensor, moved: Tensor, eps: float, norm: Norm) -> None:
    check_attacked(x, moved)
    shift = (moved - x).flatten(1)
    length = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
    furthest, low, high = float(length.max()), float(moved.min()), float(moved.max())
    if furthest > eps + _ROUNDING or low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(f"the attack left the ball or the box: {norm} distance {furthest} > {eps}, or not in [0, 1]")
