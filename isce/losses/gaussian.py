"""Losses with one mean per class, logits that fall with the distance to it: L-GM and MMC."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from isce.losses.base import LossOptions, Objective
from isce.losses.checks import check_tensor, class_dim, number
from isce.losses.functional import Reduction, along_classes, expected_cross_entropy, table_rows, true_class, widen

Covariance = Literal["identity", "diagonal"]


class GaussianScores(nn.Module):
    """Logits s_k = -d_k - 1/2 log|S_k| with d_k = 1/2 (h - mu_k)^T S_k^-1 (h - mu_k): log-densities of class Gaussians.

    The constant D/2 log(2 pi) is left out. Means start as Glorot-uniform weights, variances at 1. Memory is N x C x D:
    ||h||^2 - 2 h mu + ||mu||^2 would need N x C, and loses to rounding what is left of a small distance.

    Args:
        embedding_dim: D.
        num_classes: C.
        covariance: ``identity``: S_k = 1; ``diagonal``: S_k is a learnt diagonal for each class.
    """

    def __init__(self, embedding_dim: int, num_classes: int, covariance: Covariance = "identity") -> None:
        super().__init__()
        self.means = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, embedding_dim)))
        self.log_variance: nn.Parameter | None = None
        if covariance == "diagonal":
            self.log_variance = nn.Parameter(torch.zeros(num_classes, embedding_dim))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (N, C) of embeddings (N, D), in float32 at least."""
        check_tensor("embedding", embedding)
        squared = (widen(embedding).unsqueeze(-2) - self.means).square()
        if self.log_variance is None:
            return -squared.sum(-1) / 2
        return -(squared * (-widen(self.log_variance)).exp()).sum(-1) / 2 - self.half_log_determinant()

    def half_log_determinant(self) -> Tensor:
        """1/2 log|S_k| of each class (C,)."""
        if self.log_variance is None:
            return self.means.new_zeros(len(self.means))
        return widen(self.log_variance).sum(-1) / 2


class LargeMarginGaussianMixture(Objective):
    """L-GM loss of Wan et al. (CVPR 2018): classification with a margin plus the likelihood of the embedding.

    With the logits of :class:`GaussianScores` (equal class priors) this is softmax cross-entropy of the values
    -(1 + alpha [k = y]) d_k - 1/2 log|S_k|, plus lam (d_y + 1/2 log|S_y|). Prediction has alpha = 0. Taken here: the
    identity covariance unless asked for; alpha constant (the paper's code raises it from 0.1 to 0.3 while training).

    With the identity the logits are all it needs. With a learnt diagonal it reads 1/2 log|S_y| from the map that
    :meth:`score_map` made last, which the classifier owns: make the map first, and copy the two together.

    Matched attack: the margin of the raw logits, d_y - d_k for the nearest wrong class. It is linear in the embedding
    for the identity, so it never fades.

    Args:
        alpha: margin factor, at least 0.
        lam: weight of the likelihood, at least 0.
        covariance: ``identity`` or ``diagonal``.
        **options: see :class:`~isce.losses.base.Objective`; smoothing acts on the cross-entropy alone.
    """

    name = "lgm"

    def __init__(
        self, alpha: float = 0.3, lam: float = 0.1, covariance: Covariance = "identity", **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        if covariance not in get_args(Covariance):
            raise ValueError(f"covariance must be one of {', '.join(get_args(Covariance))}, got {covariance!r}")
        self.alpha = number("alpha", alpha, at_least=0)
        self.lam = number("lam", lam, at_least=0)
        self.covariance: Covariance = covariance
        # In a tuple, so that it isn't a submodule: the classifier owns it.
        self._map: tuple[GaussianScores] | None = None

    def score_map(self, embedding_dim: int, num_classes: int) -> GaussianScores:
        """A new map with random means."""
        logits = GaussianScores(embedding_dim, num_classes, self.covariance)
        self._map = (logits,)
        return logits

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        dim = class_dim(logits)
        half_log_det = self._half_log_determinant()
        weights = self._example_weights(logits, target)
        if target.is_floating_point():
            distance = -logits
            if half_log_det is not None:
                distance = distance - along_classes(half_log_det, logits)
            changed = logits - self.alpha * distance
            entropy = expected_cross_entropy(logits, changed, target, **self._options("none"))
            losses = entropy - self.lam * (self._weighted(target, logits) * logits).sum(dim)
            return self._reduce(losses, weights, target, reduction)
        label = true_class(target, self.ignore_index)
        true = logits.gather(dim, label.unsqueeze(dim)).squeeze(dim)
        distance = -true
        if half_log_det is not None:
            distance = distance - table_rows(half_log_det, label)
        changed = logits.scatter_add(dim, label.unsqueeze(dim), -self.alpha * distance.unsqueeze(dim))
        losses = self._cross_entropy(changed, target, "none") - self.lam * weights * true
        return self._reduce(losses, weights, target, reduction)

    def _half_log_determinant(self) -> Tensor | None:
        """1/2 log|S_k| of each class (C,) by the map; None where it is 0."""
        if self.covariance == "identity":
            return None
        if self._map is None:
            raise RuntimeError("lgm with a learnt diagonal has no map yet: call score_map(...) first")
        return self._map[0].half_log_determinant()


def simplex(num_classes: int, embedding_dim: int) -> Tensor:
    """C unit vectors in R^D with all pairwise dot products -1/(C-1): the vertices of a regular simplex.

    In closed form what the recursion of Pang et al. (2020, algorithm 1) gives: vertex i has a_i on the diagonal and b_j
    in every column j < i, with a_j = sqrt(C (C-j) / ((C-1) (C-j+1))) and b_j = -a_j / (C-j), j from 1.

    Args:
        num_classes: C, at least 2.
        embedding_dim: D, at least C - 1.

    Returns:
        (C, D), float64.

    Raises:
        ValueError: C below 2, or D below C - 1.
    """
    if num_classes < 2 or embedding_dim < num_classes - 1:
        raise ValueError(
            f"{num_classes} equally spread centres need at least 2 classes and {num_classes - 1} dimensions, "
            f"got {embedding_dim}"
        )
    left = num_classes - torch.arange(1, num_classes, dtype=torch.float64)  # C - j
    diagonal = (num_classes * left / ((num_classes - 1) * (left + 1))).sqrt()
    vertices = torch.zeros(num_classes, embedding_dim, dtype=torch.float64)
    vertices[:, : num_classes - 1] = (-diagonal / left).expand(num_classes, -1).tril(-1)
    vertices.diagonal()[: num_classes - 1] += diagonal
    return vertices


class SimplexScores(nn.Module):
    """Logits s_k = -||h - mu_k||^2 to fixed centres: a regular simplex of radius ``c_mm`` (memory N x C x D).

    Args:
        embedding_dim: D, at least C - 1.
        num_classes: C.
        c_mm: norm of the centres.
    """

    centres: Tensor

    def __init__(self, embedding_dim: int, num_classes: int, c_mm: float = 10.0) -> None:
        super().__init__()
        centres = c_mm * simplex(num_classes, embedding_dim)
        self.register_buffer("centres", centres.to(torch.get_default_dtype()))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (N, C) of embeddings (N, D), in float32 at least."""
        check_tensor("embedding", embedding)
        return -(widen(embedding).unsqueeze(-2) - self.centres).square().sum(-1)


class MaxMahalanobisCenter(Objective):
    """MMC loss of Pang et al. (ICLR 2020): 1/2 ||h - mu_y||^2 to fixed centres, prediction by the nearest centre.

    From the logits of :class:`SimplexScores` it is -s_y / 2.

    Matched attack: the margin of the raw logits, ||h - mu_y||^2 - ||h - mu_k||^2 for the nearest wrong centre. It is
    linear in the embedding, while the loss itself, a distance, can be ascended without nearing any other class.

    Args:
        c_mm: norm of the centres, above 0; 10 is the paper's, 100 its larger one. The gradient grows with it, so a
            larger one wants a smaller step size.
        **options: see :class:`~isce.losses.base.Objective`; ``label_smoothing`` is refused.
    """

    name = "mmc"
    exempt = MappingProxyType({"label_smoothing": "the loss is a distance to one centre, without a softmax to smooth"})

    def __init__(self, c_mm: float = 10.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.c_mm = number("c_mm", c_mm, above=0)

    def score_map(self, embedding_dim: int, num_classes: int) -> SimplexScores:
        """A new map; it has nothing to learn."""
        return SimplexScores(embedding_dim, num_classes, self.c_mm)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        weights = self._example_weights(logits, target)
        dim = class_dim(logits)
        if target.is_floating_point():
            losses = (self._weighted(target, logits) * (-logits / 2)).sum(dim)
        else:
            index = true_class(target, self.ignore_index).unsqueeze(dim)
            losses = -logits.gather(dim, index).squeeze(dim) / 2 * weights
        return self._reduce(losses, weights, target, reduction)
