"""Embeddings of clean images and of their adversarial versions: seen in a plane, and as distances to class means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isce.minmax.region import scatter_ratio


@dataclass(frozen=True)
class Features:
    """Clean and adversarial embeddings.

    Attributes:
        plane: coordinates (2, N, 2) of clean and adversarial embeddings in the plane of the two directions in which the
            clean class means differ most (their principal components), less the mean of these means; units of the
            root mean square distance of the class means from that mean.
        shown: share of the scatter of the class means that the plane shows.
        distances: (2, N, 2), distance to the own class's clean mean and to the nearest other one, as multiples of the
            distance between these two means; below the diagonal the own mean is nearer.
        separation: scatter between over within classes of the clean embeddings (:func:`scatter_ratio`).
        adversarial_separation: the same of the adversarial ones.
        moved: ||h(x') - h(x)|| as a multiple of half the distance between the own class mean and the other mean that is
            nearest to it, (N,).
        nearest: share of clean and of adversarial embeddings whose nearest clean class mean is the own one.
    """

    plane: Tensor
    shown: float
    distances: Tensor
    separation: float
    adversarial_separation: float
    moved: Tensor
    nearest: tuple[float, float]


def embeddings_seen(clean: Tensor, adversarial: Tensor, y: Tensor) -> Features:
    """Measure embeddings against the class means of the clean ones.

    Args:
        clean: (N, D), of at least three classes that occur.
        adversarial: (N, D), of the same images.
        y: (N,) int64 labels.

    Raises:
        ValueError: fewer than three classes.
    """
    classes, place = y.unique(return_inverse=True)
    if len(classes) < 3:
        raise ValueError(f"embeddings of at least 3 classes are needed, got {len(classes)}")
    both = torch.stack([clean, adversarial]).double().cpu()
    place = place.cpu()
    means = torch.stack([both[0, place == c].mean(0) for c in range(len(classes))])
    centre = means.mean(0)
    spread = (means - centre).square().sum(1).mean().sqrt().clamp(min=1e-30)
    _, values, directions = torch.linalg.svd(means - centre, full_matrices=False)
    # The sign of a singular vector is chance: its largest entry is made positive.
    axes = directions[:2] * directions[:2].gather(1, directions[:2].abs().argmax(1, keepdim=True)).sign()
    between = torch.cdist(means, means).fill_diagonal_(torch.inf)
    far = torch.cdist(both, means.expand(2, -1, -1))  # (2, N, classes)
    index = place.expand(2, -1)[..., None]
    own = far.gather(2, index)[..., 0]
    other, rival = far.scatter(2, index, torch.inf).min(2)
    apart = between[place.expand(2, -1), rival].clamp(min=1e-30)
    half = between.amin(1)[place] / 2
    return Features(
        plane=(both - centre) @ axes.T / spread,
        shown=float(values[:2].square().sum() / values.square().sum().clamp(min=1e-30)),
        distances=torch.stack([own / apart, other / apart], -1),
        separation=scatter_ratio(both[0], place),
        adversarial_separation=scatter_ratio(both[1], place),
        moved=(both[1] - both[0]).norm(dim=1) / half.clamp(min=1e-30),
        nearest=(float((own[0] < other[0]).double().mean()), float((own[1] < other[1]).double().mean())),
    )
