"""Losses that a user would compare with I-SCE: CosFace, ArcFace, label smoothing and logit squeezing."""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.base import Common, Objective, Reduction, example_weight, reduce, root, true_score, unit, widen
from isce.losses.checks import class_dim, number


class CosineScores(nn.Module):
    """Scores s_k = scale * cos(h, w_k), without bias; a zero embedding has scores 0.

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
        """Scores (N, C) in [-scale, scale] of embeddings (N, D), in float32 at least."""
        with torch.autocast(embedding.device.type, enabled=False):
            return self.scale * F.linear(unit(widen(embedding)), unit(self.weight))


class _Cosine(Objective):
    """Softmax cross-entropy of scaled cosines with a margin on the true class's."""

    def __init__(self, scale: float, margin: float, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.scale = number("scale", scale, above=0)
        self.margin = number("margin", margin, at_least=0, at_most=math.pi / 2)

    def score_map(self, embedding_dim: int, num_classes: int) -> CosineScores:
        """A new map with random class directions."""
        return CosineScores(embedding_dim, num_classes, self.scale)

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        cosine = true_score(scores, target, self.ignore_index) / self.scale
        dim = class_dim(scores)
        row = target.masked_fill(target == self.ignore_index, 0).unsqueeze(dim)
        change = self.scale * (self._with_margin(cosine) - cosine).unsqueeze(dim)
        return self._cross_entropy(widen(scores).scatter_add(dim, row, change), target, reduction)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        raise NotImplementedError


class CosFace(_Cosine):
    """CosFace of Wang et al. (CVPR 2018): softmax cross-entropy of s cos(theta_k), with s (cos(theta_y) - m) for y.

    Matched attack: the margin of the raw scores, s (cos(theta_k) - cos(theta_y)), without the m.

    Args:
        scale: s, above 0, also of the map from embedding to scores. The paper's is 64, for thousands of classes; 10 is
            taken here, for ten: above the paper's lower bound (C-1)/C log((C-1) P / (1-P)), 8.2 at P = 0.999. A
            larger scale wants a smaller step size, in proportion.
        margin: m, in [0, pi/2], in units of the cosine; the paper's is 0.35.
        **common: see :class:`~isce.losses.base.Objective`.
    """

    name = "cosface"

    def __init__(self, scale: float = 10.0, margin: float = 0.35, **common: Unpack[Common]) -> None:
        super().__init__(scale, margin, **common)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin


class ArcFace(_Cosine):
    """ArcFace of Deng et al. (CVPR 2019): softmax cross-entropy of s cos(theta_k), with s cos(theta_y + m) for y.

    cos(theta + m) falls only as long as theta + m <= pi, and the paper's text stops there. Taken here, as its code
    does: beyond that it is cos(theta) - m sin(m), which goes on falling. A score outside [-s, s], which the map
    never gives, is treated as an angle whose sine is 0.

    Matched attack: the margin of the raw scores, s (cos(theta_k) - cos(theta_y)), without the m.

    Args:
        scale: s, above 0, also of the map from embedding to scores. The paper's is 64; 10 is taken here, as for
            :class:`CosFace`.
        margin: m, an angle in [0, pi/2], in radians; the paper's is 0.5.
        **common: see :class:`~isce.losses.base.Objective`.
    """

    name = "arcface"

    def __init__(self, scale: float = 10.0, margin: float = 0.5, **common: Unpack[Common]) -> None:
        super().__init__(scale, margin, **common)

    def _with_margin(self, cosine: Tensor) -> Tensor:
        cos, sin = math.cos(self.margin), math.sin(self.margin)
        turned = cosine * cos - root((1 - cosine.square()).clamp_min(0)) * sin
        return torch.where(cosine > -cos, turned, cosine - self.margin * sin)


class LabelSmoothingCrossEntropy(Objective):
    """Softmax cross-entropy against labels smoothed as by Szegedy et al. (CVPR 2016, section 7).

    The target is (1 - label_smoothing) onehot(y) + label_smoothing / C.

    Matched attack: the margin of the raw scores.

    Args:
        label_smoothing: in [0, 1]; the paper's is 0.1.
        **common: the others, see :class:`~isce.losses.base.Objective`.
    """

    name = "label-smoothing"

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**(Common(label_smoothing=0.1) | common))

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        return self._cross_entropy(scores, target, reduction)


class LogitSqueezing(Objective):
    """Softmax cross-entropy plus lam ||z||_2 on the logits: logit squeezing of Kannan et al. (2018).

    Taken here: the norm itself, not its square, and lam 0.5, as in the public code of Mosbach et al. (2018) that
    attacked it. The Gaussian noise on the images that goes with it there belongs to training, not to the loss. At
    z = 0 the norm's gradient is taken as 0.

    Matched attack: the margin of the raw scores. The norm is no part of the decision, and its pull on the loss surface
    is what made attacks on the loss stop early.

    Args:
        lam: weight of the norm, at least 0.
        **common: see :class:`~isce.losses.base.Objective`; smoothing acts on the cross-entropy alone.
    """

    name = "logit-squeezing"

    def __init__(self, lam: float = 0.5, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.lam = number("lam", lam, at_least=0)

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        entropy = self._cross_entropy(scores, target, "none")
        weight = example_weight(entropy, target, self.weight, self.ignore_index)
        norm = root(widen(scores).square().sum(class_dim(scores)))
        return reduce(entropy + self.lam * weight * norm, weight, reduction)
