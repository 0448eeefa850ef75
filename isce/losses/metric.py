"""Softmax cross-entropy plus a term on the embedding: contrastive, triplet and center loss."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.base import LossOptions, Objective
from isce.losses.checks import number
from isce.losses.functional import Reduction, safe_sqrt, table_rows, true_class, unit_vectors, widen

_TRAILING = "the term compares embeddings, one for each example: logits are (N, C)"
_PAIRS = "the term compares the examples of a batch with each other, so an example alone has no loss of its own"
_SOFT = "the term asks whether two examples are of one class, which probabilities don't say"


class _Embedded(Objective):
    """Softmax cross-entropy plus ``lam`` times a term on each example's embedding."""

    needs_embedding = True

    def __init__(self, lam: float, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.lam = number("lam", lam, at_least=0)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        entropy = self._cross_entropy(logits, target, "none")
        ignored = (target == self.ignore_index).unsqueeze(-1)
        # What an ignored example holds must reach no gradient either: 0 times NaN is NaN.
        embedding = torch.where(ignored, 0.0, self._checked(embedding, target))
        weights = self._example_weights(logits, target)
        return self._reduce(entropy + self.lam * weights * self._term(embedding, target), weights, target, reduction)

    def _checked(self, embedding: Tensor | None, target: Tensor) -> Tensor:
        """The embedding in float32 at least."""
        if target.dim() > 1:
            raise ValueError(f"{self.name}: labels must be (N,), got {tuple(target.shape)}; {_TRAILING}")
        if embedding is None:
            raise ValueError(f"{self.name} needs the embedding: objective(logits, target, embedding)")
        if not embedding.is_floating_point():
            raise TypeError(f"embedding must be floating point, got {embedding.dtype}")
        if embedding.dim() != target.dim() + 1 or embedding.shape[:-1] != target.shape:
            raise ValueError(f"embedding must be {(*target.shape, 'D')}, got {tuple(embedding.shape)}")
        return widen(embedding)

    def _term(self, embedding: Tensor, target: Tensor) -> Tensor:
        """The term of each example (N,); what it gives for an ignored one doesn't matter."""
        raise NotImplementedError

    def _pairs(self, embedding: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared distances (N, N), a mask of pairs of one class, and a mask of pairs i != j whose j isn't ignored."""
        if target.dim() != 1:
            raise ValueError(f"{self.name}: labels must be (N,), got {tuple(target.shape)}; {_PAIRS}")
        squared = (embedding.unsqueeze(1) - embedding.unsqueeze(0)).square().sum(-1)
        kept = target != self.ignore_index
        others = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
        return squared, target.unsqueeze(1) == target, others & kept


class ContrastiveLoss(_Embedded):
    """Softmax cross-entropy plus the pairwise verification loss of Sun et al. (NeurIPS 2014).

    The term of a pair (their equation for the l_2 norm) is 1/2 ||h_i - h_j||^2 for examples of one class and
    1/2 max(0, margin - ||h_i - h_j||)^2 for two classes. Taken here, where the paper leaves it open: all pairs of the
    batch; an example's term is the mean over its partners, so the batch's is the mean over all pairs; the margin is
    constant (the paper moves it along with the best verification threshold, outside of the gradient). Memory is
    N x N x D.

    Matched attack: the margin of the raw logits.

    Args:
        margin: distance that embeddings of two classes should keep, above 0.
        lam: weight of the term, at least 0; the paper's is 0.05.
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "contrastive"
    exempt = MappingProxyType({"vmap": _PAIRS, "trailing": _TRAILING, "soft": _SOFT})

    def __init__(self, margin: float = 1.0, lam: float = 0.05, **options: Unpack[LossOptions]) -> None:
        super().__init__(lam, **options)
        self.margin = number("margin", margin, above=0)

    def _term(self, embedding: Tensor, target: Tensor) -> Tensor:
        squared, same, pair = self._pairs(embedding, target)
        apart = F.relu(self.margin - safe_sqrt(squared)).square()
        loss = torch.where(same, squared, apart).masked_fill(~pair, 0.0) / 2
        return loss.sum(1) / pair.sum(1).clamp_min(1)


class TripletLoss(_Embedded):
    """Softmax cross-entropy plus the triplet loss of Schroff et al. (CVPR 2015) with semi-hard negatives.

    On unit embeddings u a triplet's term is max(0, ||u_a - u_p||^2 - ||u_a - u_n||^2 + margin). Taken here, where the
    paper leaves it open: every pair of anchor and positive in the batch; its negative is the nearest one that is
    farther than the positive, and where none is farther the farthest of all; an anchor's term is the mean over its
    positives, 0 if it has no positive or no negative. The cross-entropy is added to train the logits. Memory is
    N x N x D.

    Matched attack: the margin of the raw logits.

    Args:
        margin: in squared distance on the unit sphere, above 0; the paper's is 0.2.
        lam: weight of the term, at least 0; 1 is ours (the paper trains the term alone).
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "triplet"
    exempt = MappingProxyType({"vmap": _PAIRS, "trailing": _TRAILING, "soft": _SOFT})

    def __init__(self, margin: float = 0.2, lam: float = 1.0, **options: Unpack[LossOptions]) -> None:
        super().__init__(lam, **options)
        self.margin = number("margin", margin, above=0)

    def _term(self, embedding: Tensor, target: Tensor) -> Tensor:
        squared, same, pair = self._pairs(unit_vectors(embedding), target)
        negative = pair & ~same
        count = negative.sum(1, keepdim=True)
        ordered = squared.masked_fill(~negative, torch.inf).sort(1).values
        farther = torch.searchsorted(ordered.detach(), squared.detach(), right=True)
        chosen = ordered.gather(1, farther.minimum(count - 1).clamp_min(0))
        triplet = pair & same & (count > 0)
        loss = F.relu(squared - chosen + self.margin).masked_fill(~triplet, 0.0)
        return loss.sum(1) / triplet.sum(1).clamp_min(1)


class CenterLoss(_Embedded):
    """Softmax cross-entropy plus the center loss of Wen et al. (ECCV 2016): lam/2 ||h - c_y||^2.

    The centres are a buffer that moves by the paper's own rule (its equation 4), not by gradient: after each call in
    training mode with gradients on, c_j loses alpha sum_i [y_i = j] (c_j - h_i) / (1 + sum_i [y_i = j]). So
    :meth:`per_example`, :meth:`matched` and evaluation never move them, and ``vmap`` is for :meth:`per_example` or
    evaluation mode. Ignored examples and examples whose embedding isn't finite (an overflow in half precision, which a
    gradient scaler skips) move no centre. The centres start at 0 (the paper doesn't say where). :meth:`score_map` makes
    them, anew at each call, and comes before the first use or the loading of a state dict.

    Matched attack: the margin of the raw logits.

    Args:
        lam: weight of the term, at least 0; the paper's are 0.003 (faces) to 0.01.
        alpha: rate of the centres in [0, 1].
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "center"
    exempt = MappingProxyType(
        {"trailing": _TRAILING, "soft": "the centres are of one class each, and move by the count of its examples"}
    )
    centres: Tensor | None

    def __init__(self, lam: float = 0.003, alpha: float = 0.5, **options: Unpack[LossOptions]) -> None:
        super().__init__(lam, **options)
        self.alpha = number("alpha", alpha, at_least=0, at_most=1)
        self.register_buffer("centres", None)

    def score_map(self, embedding_dim: int, num_classes: int) -> nn.Module:
        """A new linear layer; makes the centres as well."""
        self.centres = torch.zeros(num_classes, embedding_dim)
        return super().score_map(embedding_dim, num_classes)

    def forward(self, logits: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Training loss, as for every objective; in training mode with gradients on the centres move afterwards."""
        loss = super().forward(logits, target, embedding)
        if self.training and torch.is_grad_enabled():
            self._move(self._checked(embedding, target), target)
        return loss

    def _offset(self, embedding: Tensor, target: Tensor) -> Tensor:
        """H - c_y (N, D)."""
        if self.centres is None:
            raise RuntimeError("center has no centres yet: call score_map(embedding_dim, num_classes) first")
        if self.centres.shape[1] != embedding.shape[-1]:
            raise ValueError(f"embedding must be (N, {self.centres.shape[1]}), got {tuple(embedding.shape)}")
        return embedding - table_rows(self.centres, true_class(target, self.ignore_index))

    def _term(self, embedding: Tensor, target: Tensor) -> Tensor:
        return self._offset(embedding, target).square().sum(-1) / 2

    @torch.no_grad()
    def _move(self, embedding: Tensor, target: Tensor) -> None:
        """Move the centres; leave out ignored examples and those whose embedding isn't finite, as after an overflow."""
        offset = self._offset(embedding, target).reshape(-1, embedding.shape[-1])
        if self.centres is not None:
            counted = (target.reshape(-1) != self.ignore_index) & offset.isfinite().all(1)
            offset = torch.where(counted.unsqueeze(1), offset, 0.0)  # 0 times inf would reach every centre
            member = target.reshape(1, -1) == torch.arange(len(self.centres), device=target.device).unsqueeze(1)
            member = (member & counted).to(offset.dtype)
            with torch.autocast(target.device.type, enabled=False):
                step = self.alpha * (member @ offset) / (1 + member.sum(1, keepdim=True))
            self.centres.add_(torch.where(step.isfinite(), step, 0.0))  # a sum of finite values can overflow as well
