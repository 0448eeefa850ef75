"""The released reading of I-SCE: the authors' script puts a term on the *predicted* class of normalised logits."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from isce.losses.base import LossOptions, Objective
from isce.losses.checks import check_tensor, class_dim, number
from isce.losses.functional import CallOptions, Reduction, cross_entropy, loss_of_checked, unit_vectors, widen


def released_outputs(logits: Tensor, inference: float = 0.1, scale: float = 1.0, clip: bool = True) -> Tensor:
    """The outputs that the released script trains, evaluates and attacks.

    With t = z / ||z||_2 and p = argmax_k z_k (the first of equal ones): out_k = t_k for k != p, and
    out_p = clip(scale (t_p + inference), -1, 1).

    Args:
        logits: raw outputs (N, C), (N, C, ...) or (C,), floating point; half precision is computed in float32. A zero
            vector is left zero. Norms must be within float32's reach when squared (about 1e-19 to 1e19).
        inference: m, in units of the normalised logit.
        scale: s.
        clip: whether the term is clipped to [-1, 1].

    Returns:
        Shaped as ``logits``, with the same arg-max where ``inference`` >= 0 and ``scale`` >= 1 (unless the clip makes a
        tie, which needs t_p = 1).
    """
    check_tensor("logits", logits)
    dim = class_dim(logits)
    t = unit_vectors(widen(logits), dim)
    predicted = logits.argmax(dim, keepdim=True)
    term = scale * (t.gather(dim, predicted) + inference)
    return t.scatter(dim, predicted, term.clamp(-1, 1) if clip else term)


def released_inference_softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    inference: float = 0.1,
    scale: float = 1.0,
    clip: bool = True,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """I-SCE, released reading: softmax cross-entropy of :func:`released_outputs` against the true label.

    The loss is bounded and jumps where the predicted class changes. With the clip it has a kink at t_y = 1/scale -
    inference, beyond which its gradient pulls away from the decision boundary (derived here).

    Args:
        logits: as in :func:`released_outputs`.
        target: int64 labels, shaped as ``logits`` without the class dimension; or probabilities, shaped as ``logits``,
            which the softmax of the outputs (these don't depend on the label) is compared with, as in torch.
        inference: as in :func:`released_outputs`.
        scale: as in :func:`released_outputs`.
        clip: as in :func:`released_outputs`.
        weight: (C,) weight of each class, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: label of examples that don't count.
        reduction: ``none``, ``mean`` or ``sum``.
        label_smoothing: in [0, 1]; the smoothed label is compared with the softmax of the outputs.

    Returns:
        A scalar, or the shape of ``target`` where ``reduction`` is ``none``; float32 for half-precision logits.

    Raises:
        ValueError: shapes that don't fit, labels out of range, or an empty batch.
        TypeError: not tensors, logits not floating point, or labels not int64.
    """
    options = CallOptions(
        weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(released_outputs(logits, inference, scale, clip), target, **options)

    return loss_of_checked(loss, logits, target, weight, ignore_index)


class ReleasedInferenceSoftmaxCrossEntropy(Objective):
    """I-SCE as the authors' released CIFAR-10 script computes it (:func:`released_inference_softmax_cross_entropy`).

    The script evaluates and attacks the changed outputs; here prediction uses the raw logits, which gives the same
    class for the defaults.

    Matched attack: the margin of the raw logits, before the normalisation. It sees neither the bound, nor the clip's
    kink, nor the jump at the boundary, each of which can stop or misdirect an attack on the loss itself.

    Args:
        inference: m, finite, in units of the normalised logit.
        scale: s, above 0.
        clip: whether the term is clipped to [-1, 1]; the script has a variant without, commented out.
        **options: see :class:`~isce.losses.base.Objective`. For ``label_smoothing`` the smoothed label is compared with
            the softmax of the changed outputs.
    """

    name = "isce-released"

    def __init__(
        self, inference: float = 0.1, scale: float = 1.0, clip: bool = True, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__(**options)
        if type(clip) is not bool:
            raise TypeError(f"clip must be True or False, got {clip!r}")
        self.inference = number("inference", inference)
        self.scale = number("scale", scale, above=0)
        self.clip = clip

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        outputs = released_outputs(logits, self.inference, self.scale, self.clip)
        return self._cross_entropy(outputs, target, reduction)
