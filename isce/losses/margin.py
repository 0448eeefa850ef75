"""Losses that a user would compare with I-SCE: CosFace, ArcFace and logit squeezing."""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.base import LossOptions, Objective
from isce.losses.checks import check_tensor, class_dim, number
from isce.losses.functional import Reduction, expected_cross_entropy, safe_sqrt, true_class, unit_vectors, widen


class CosineScores(nn.Module):
    """Logits s_k = scale * cos(h, w_k), without bias; a zero embedding has logits 0.

    Args:
        embedding_dim: D.
        num_classes: C.
        scale: factor of the cosine.
    """

    def __init__(self, embedding_dim: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_classes, embedding_dim)))
        self.scale = scale

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (N, C) in [-scale, scale] of embeddings (N, D), in float32 at least."""
        check_tensor("embedding", embedding)
        with torch.autocast(embedding.device.type, enabled=False):
            return self.scale * F.linear(unit_vectors(widen(embedding)), unit_vectors(widen(self.weight)))


class _Cosine(Objective):
    """Softmax cross-entropy of scaled cosines with a margin on the true class's."""

    def __init__(self, scale: float, margin: float, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.scale = number("scale", scale, above=0)
        self.margin = number("margin", margin, at_least=0, at_most=math.pi / 2)

    def score_map(self, embedding_dim: int, num_classes: int) -> CosineScores:
        """A new map with random class directions."""
        return CosineScores(embedding_dim, num_classes, self.scale)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        if target.is_floating_point():
            true_logits = logits + self._change(logits)
            return expected_cross_entropy(logits, true_logits, target, **self._options(reduction))
        dim = class_dim(logits)
        index = true_class(target, self.ignore_index).unsqueeze(dim)
        change = self._change(logits.gather(dim, index))
        return self._cross_entropy(logits.scatter_add(dim, index, change), target, reduction)

    def _change(self, true: Tensor) -> Tensor:
        """What the margin adds to a logit of the true class."""
        cosine = true / self.scale
        return self.scale * (self._with_margin(cosine) - cosine)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        raise NotImplementedError


class CosFace(_Cosine):
    """CosFace of Wang et al. (CVPR 2018): softmax cross-entropy of s cos(theta_k), with s (cos(theta_y) - m) for y.

    Matched attack: the margin of the raw logits, s (cos(theta_k) - cos(theta_y)), without the m.

    Args:
        scale: s, above 0, also of the map from embedding to logits. The paper's is 64, for thousands of classes; 10 is
            taken here, for ten: above the paper's lower bound (C-1)/C log((C-1) P / (1-P)), 8.2 at P = 0.999. A
            larger scale wants a smaller step size, in proportion.
        margin: m, in [0, pi/2], in units of the cosine; the paper's is 0.35.
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "cosface"

    def __init__(self, scale: float = 10.0, margin: float = 0.35, **options: Unpack[LossOptions]) -> None:
        super().__init__(scale, margin, **options)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


class ArcFace(_Cosine):
    """ArcFace of Deng et al. (CVPR 2019): softmax cross-entropy of s cos(theta_k), with s cos(theta_y + m) for y.

    cos(theta + m) falls only as long as theta + m <= pi, and the paper's text stops there. Taken here, as its code
    does: beyond that it is cos(theta) - m sin(m), which goes on falling. A score outside [-s, s], which the map
    never gives, is treated as an angle whose sine is 0.

    Matched attack: the margin of the raw logits, s (cos(theta_k) - cos(theta_y)), without the m.

    Args:
        scale: s, above 0, also of the map from embedding to logits. The paper's is 64; 10 is taken here, as for
            :class:`CosFace`.
        margin: m, an angle in [0, pi/2], in radians; the paper's is 0.5.
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "arcface"

    def __init__(self, scale: float = 10.0, margin: float = 0.5, **options: Unpack[LossOptions]) -> None:
        super().__init__(scale, margin, **options)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        cos, sin = math.cos(self.margin), math.sin(self.margin)
        turned = cosine * cos - safe_sqrt((1 - cosine.square()).clamp_min(0)) * sin
        return torch.where(cosine > -cos, turned, cosine - self.margin * sin)


class LogitSqueezing(Objective):
    """Softmax cross-entropy plus lam ||z||_2 on the logits: logit squeezing of Kannan et al. (2018).

    Taken here: the norm itself, not its square, and lam 0.5, as in the public code of Mosbach et al. (2018) that
    attacked it. The Gaussian noise on the images that goes with it there belongs to training, not to the loss. At
    z = 0 the norm's gradient is taken as 0.

    Matched attack: the margin of the raw logits. The norm is no part of the decision, and its pull on the loss surface
    is what made attacks on the loss stop early.

    Args:
        lam: weight of the norm, at least 0.
        **options: see :class:`~isce.losses.base.Objective`; smoothing acts on the cross-entropy alone.
    """

    name = "logit-squeezing"

    def __init__(self, lam: float = 0.5, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.lam = number("lam", lam, at_least=0)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        entropy = self._cross_entropy(logits, target, "none")
        weights = self._example_weights(logits, target)
        norm = safe_sqrt(logits.square().sum(class_dim(logits)))
        return self._reduce(entropy + self.lam * weights * norm, weights, target, reduction)
