"""What every objective shares: the contract, checked input, weights, reduction, and the margin that attacks ascend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, TypedDict, Unpack, get_args

from torch import Tensor, nn

from isce.losses.checks import check_tensor, class_dim, integer, number, numbers
from isce.losses.functional import (
    CallOptions,
    Reduction,
    along_classes,
    cross_entropy,
    loss_of_checked,
    negative_margin,
    reduce_losses,
    table_rows,
    true_class,
)


class LossOptions(TypedDict, total=False):
    """Parameters that every objective takes; :class:`Objective` says what they mean."""

    weight: Tensor | Sequence[float] | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: float


class Objective(nn.Module):
    """A training loss with its decision rule and its matched attack; called like :class:`torch.nn.CrossEntropyLoss`.

    The prediction is always the arg-max of the raw logits: an objective changes what is trained, not what is decided.
    An objective that needs another map from embedding to logits than a linear layer gives it in :meth:`score_map`.

    Args:
        weight: (C,) non-negative weight of each class; an example's whole loss is multiplied by the weight of its
            class, and a mean is divided by the sum of the weights, as in torch. Saved in the state dict.
        ignore_index: label of examples that don't count: their loss and gradient are 0, whatever their logits and
            embedding hold, and a mean leaves them out. As in torch, probabilities go with a negative one only.
        reduction: ``none``, ``mean`` or ``sum``. As in torch the mean over ignored examples alone is NaN.
        label_smoothing: in [0, 1]; the share of the target that is spread evenly over all C classes. It acts on the
            cross-entropy part of the objective, after the objective has changed the logits.

    Raises:
        ValueError: a parameter is out of range, or is one that the objective declares itself exempt from.
        TypeError: a parameter has the wrong type.
    """

    name: ClassVar[str]
    """Name in the registry."""
    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What can't hold for this objective, with the reasons: ``vmap``, ``trailing``, ``label_smoothing``, ``soft``."""
    needs_embedding: ClassVar[bool] = False
    """Whether a call needs the embedding beside the logits."""
    needs_bounds: ClassVar[bool] = False
    """Whether training needs bounds over the input ball."""

    weight: Tensor | None

    def __init__(self, **options: Unpack[LossOptions]) -> None:
        super().__init__()
        reduction = options.get("reduction", "mean")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}")
        smoothing = number("label_smoothing", options.get("label_smoothing", 0.0), at_least=0, at_most=1)
        if smoothing and "label_smoothing" in self.exempt:
            raise ValueError(f"{self.name} takes no label_smoothing: {self.exempt['label_smoothing']}")
        self.reduction: Reduction = reduction
        self.ignore_index = integer("ignore_index", options.get("ignore_index", -100))
        self.label_smoothing = smoothing
        weight = options.get("weight")
        if weight is not None:
            weight = numbers("weight", weight)
            if weight.dim() != 1 or bool((weight < 0).any()):
                raise ValueError(f"weight must be (C,) and non-negative, got {weight.tolist()}")
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Compute the training loss.

        Args:
            logits: raw decision logits (N, C), (N, C, ...) or (C,), floating point; half precision is computed in
                float32.
            target: int64 class labels, shaped as ``logits`` without the class dimension, in [0, C) or ``ignore_index``.
                Or soft: floating-point probabilities of the classes, shaped as ``logits``, as mixup makes them (that
                they sum to 1 isn't checked). The loss is then sum_k p_k L(logits, k), what a label drawn from p costs
                on average, and a mean is divided by the number of examples, as in torch.
            embedding: (N, D) the embedding that the logits were made from; needed where :attr:`needs_embedding`.

        Returns:
            A scalar, or the shape of labels where ``reduction`` is ``none``.

        Raises:
            ValueError: shapes that don't fit, an empty batch, labels out of range (where they can be read without a
                wait for the device; elsewhere torch's own device-side assertion fires), or a missing embedding.
            TypeError: not tensors, logits that aren't floating point, labels that aren't int64, or probabilities where
                :attr:`exempt` has ``soft``.
        """
        return self._checked_loss(logits, target, embedding, self.reduction)

    def per_example(self, logits: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Compute each example's loss, shaped as labels, whatever ``reduction`` is; 0 for an ignored example."""
        return self._checked_loss(logits, target, embedding, "none")

    def matched(self, logits: Tensor, target: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Compute what an adaptive adversary ascends: max_{k != y} s_k - s_y of the raw logits.

        The value is positive once y has lost. It is the decision itself, so nothing that a loss does to the logits on
        the way (a term, a norm, a clip) can hide a direction from the attack.

        Args:
            logits: as in :meth:`forward`.
            target: int64 labels as in :meth:`forward`; an attack needs one true class.
            embedding: as in :meth:`forward`; not used unless the objective says so.

        Returns:
            Shaped as ``target``; 0 for an ignored example.
        """
        if embedding is not None:
            check_tensor("embedding", embedding)
        return negative_margin(logits, target, self.ignore_index)

    def score_map(self, embedding_dim: int, num_classes: int) -> nn.Module:
        """Make a map from embeddings (N, embedding_dim) to raw logits (N, num_classes); here a linear layer."""
        return nn.Linear(embedding_dim, num_classes)

    def _checked_loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        check_tensor("target", target)
        if "soft" in self.exempt and target.is_floating_point():
            raise TypeError(f"{self.name} takes int64 labels only, got {target.dtype}: {self.exempt['soft']}")
        if embedding is not None:
            check_tensor("embedding", embedding)

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            return self._loss(logits, target, embedding, reduction)

        return loss_of_checked(loss, logits, target, self.weight, self.ignore_index)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        """Compute the loss of checked logits, in float32 at least, 0 for ignored ones; ``target`` may be soft."""
        raise NotImplementedError

    def _options(self, reduction: Reduction) -> CallOptions:
        return CallOptions(
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )

    def _cross_entropy(self, logits: Tensor, target: Tensor, reduction: Reduction) -> Tensor:
        """Softmax cross-entropy of ``logits`` with this objective's weight, ignored label and smoothing."""
        return cross_entropy(logits, target, **self._options(reduction))

    def _example_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weight of each example, in the type of ``logits``: that of its class (1 without weights), 0 if ignored."""
        if target.is_floating_point():
            return self._weighted(target, logits).sum(class_dim(logits))
        kept = (target != self.ignore_index).to(logits.dtype)
        if self.weight is None:
            return kept
        return kept * table_rows(self.weight.to(logits), true_class(target, self.ignore_index))

    def _weighted(self, probabilities: Tensor, logits: Tensor) -> Tensor:
        """Probabilities times class weights, shaped as ``logits``."""
        return probabilities if self.weight is None else probabilities * along_classes(self.weight.to(logits), logits)

    def _reduce(self, losses: Tensor, weights: Tensor, target: Tensor, reduction: Reduction) -> Tensor:
        """Reduce losses that hold their weights; as in torch a mean over soft targets is divided by their number."""
        return reduce_losses(losses, reduction, None if target.is_floating_point() else weights)
