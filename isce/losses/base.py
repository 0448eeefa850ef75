"""What every objective shares: the contract, checked input, weights, reduction, and the margin that attacks ascend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, TypedDict, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.checks import check, class_dim, explain_labels, number, numbers

Reduction = Literal["none", "mean", "sum"]


class Common(TypedDict, total=False):
    """Parameters that every objective takes; :class:`Objective` says what they mean."""

    weight: Tensor | Sequence[float] | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: float


class Objective(nn.Module):
    """A training loss with its decision rule and its matched attack; called like :class:`torch.nn.CrossEntropyLoss`.

    The prediction is always the arg-max of the raw scores: an objective changes what is trained, not what is decided.
    An objective that needs another map from embedding to scores than a linear layer gives it in :meth:`score_map`.

    Args:
        weight: (C,) non-negative weight of each class; an example's whole loss is multiplied by the weight of its
            class, and a mean is divided by the sum of the weights, as in torch. Saved in the state dict.
        ignore_index: label of examples that don't count: their loss is 0 and a mean leaves them out.
        reduction: ``none``, ``mean`` or ``sum``. As in torch the mean over ignored examples alone is NaN.
        label_smoothing: in [0, 1]; the share of the target that is spread evenly over all C classes. It acts on the
            cross-entropy part of the objective, after the objective has changed the scores.

    Raises:
        ValueError: a parameter is out of range, or is one that the objective declares itself exempt from.
        TypeError: a parameter has the wrong type.
    """

    name: ClassVar[str]
    """Name in the registry."""
    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What can't hold for this objective (``vmap``, ``trailing``, ``label_smoothing``), each with its reason."""
    needs_embedding: ClassVar[bool] = False
    """Whether a call needs the embedding beside the scores."""

    weight: Tensor | None

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__()
        reduction = common.get("reduction", "mean")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
        ignore_index = common.get("ignore_index", -100)
        if type(ignore_index) is not int:
            raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}")
        smoothing = number("label_smoothing", common.get("label_smoothing", 0.0), at_least=0, at_most=1)
        if smoothing and "label_smoothing" in self.exempt:
            raise ValueError(f"{self.name} takes no label_smoothing: {self.exempt['label_smoothing']}")
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = smoothing
        weight = common.get("weight")
        if weight is not None:
            weight = numbers("weight", weight)
            if weight.dim() != 1 or bool((weight < 0).any()):
                raise ValueError(f"weight must be (C,) and non-negative, got {weight.tolist()}")
        self.register_buffer("weight", weight)

    def forward(self, scores: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Training loss.

        Args:
            scores: raw decision scores (N, C), (N, C, ...) or (C,), floating point; half precision is computed in
                float32.
            target: int64 class labels, shaped as ``scores`` without the class dimension, in [0, C) or ``ignore_index``.
            embedding: (N, D) the embedding that the scores were made from; needed where :attr:`needs_embedding`.

        Returns:
            A scalar, or the shape of ``target`` where ``reduction`` is ``none``.

        Raises:
            ValueError: shapes that don't fit, an empty batch, labels out of range (where they can be read without a
                wait for the device; elsewhere torch's own device-side assertion fires), or a missing embedding.
            TypeError: scores that aren't floating point or labels that aren't int64.
        """
        return self._loss(scores, target, embedding, self.reduction)

    def per_example(self, scores: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Training loss of each example, shaped as ``target``, whatever ``reduction`` is; 0 for an ignored example."""
        return self._loss(scores, target, embedding, "none")

    def matched(self, scores: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """What an adaptive adversary ascends: max_{k != y} s_k - s_y of the raw scores, positive once y has lost.

        It is the decision itself, so nothing that a loss does to the scores on the way (a term, a norm, a clip) can
        hide a direction from the attack.

        Args:
            scores: as in :meth:`forward`.
            target: as in :meth:`forward`.
            embedding: as in :meth:`forward`; not used unless the objective says so.

        Returns:
            Shaped as ``target``; 0 for an ignored example.
        """
        return negative_margin(scores, target, self.ignore_index)

    def score_map(self, embedding_dim: int, num_classes: int) -> nn.Module:
        """A new map from embeddings (N, embedding_dim) to raw scores (N, num_classes); here a linear layer."""
        return nn.Linear(embedding_dim, num_classes)

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        raise NotImplementedError

    def _cross_entropy(self, logits: Tensor, target: Tensor, reduction: Reduction) -> Tensor:
        """Softmax cross-entropy of ``logits`` with this objective's weight, ignored label and smoothing."""
        return cross_entropy(
            logits,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )


def widen(values: Tensor) -> Tensor:
    """``values`` in float32 if they are in half precision, else as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """:func:`torch.nn.functional.cross_entropy`, in float32 at least, with the errors of :meth:`Objective.forward`."""
    check(logits, target, weight)
    logits = widen(logits)
    try:
        return F.cross_entropy(
            logits,
            target,
            weight=None if weight is None else weight.to(logits),
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    except (IndexError, RuntimeError):
        explain_labels(target, logits.shape[class_dim(logits)], ignore_index)
        raise


def true_score(scores: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """The score of the true class, in float32 at least, shaped as ``target``; of class 0 for an ignored example."""
    check(scores, target)
    dim = class_dim(scores)
    index = target.masked_fill(target == ignore_index, 0).unsqueeze(dim)
    try:
        return widen(scores).gather(dim, index).squeeze(dim)
    except (IndexError, RuntimeError):
        explain_labels(target, scores.shape[dim], ignore_index)
        raise


def negative_margin(scores: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """max_{k != y} s_k - s_y, shaped as ``target``: above 0 where y has lost, 0 for an ignored example.

    Where several wrong classes share the maximum its gradient is split between them evenly.
    """
    true = true_score(scores, target, ignore_index)
    dim = class_dim(scores)
    ignored = target == ignore_index
    wrong = widen(scores).scatter(dim, target.masked_fill(ignored, 0).unsqueeze(dim), -math.inf)
    return (wrong.amax(dim) - true).masked_fill(ignored, 0.0)


def example_weight(like: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """Weight of each example, in the type of ``like``: that of its class (1 without weights), 0 if it is ignored."""
    kept = (target != ignore_index).to(like.dtype)
    if weight is None:
        return kept
    return kept * rows(weight.to(like), target.masked_fill(target == ignore_index, 0))


def rows(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``; inside nested transforms torch would read the value of an index without dimensions."""
    return table[index.unsqueeze(0)].squeeze(0)


def reduce(loss: Tensor, weight: Tensor, reduction: Reduction) -> Tensor:
    """Reduce losses that already hold their ``weight`` (both shaped as the labels) as torch's cross-entropy does."""
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / weight.sum()


def unit(values: Tensor, dim: int = -1) -> Tensor:
    """``values`` divided by their l_2 norm along ``dim``; a zero vector stays zero, and has the identity's gradient."""
    norm = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return values / norm.masked_fill(norm == 0, 1.0)


def root(values: Tensor) -> Tensor:
    """Square root of non-negative ``values`` whose derivatives of every order are finite at 0 (the first is 1/2)."""
    zero = (values == 0).to(values.dtype)
    return (values + zero).sqrt() - zero
