"""Softmax cross-entropy (SCE) and the text reading of I-SCE: inference information as a term on a logit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from isce.losses.base import Common, Objective, Reduction, cross_entropy, rows, widen
from isce.losses.checks import check, class_dim, number, numbers


def inference_softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    inference: float | Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """I-SCE, text reading: log(1 + sum_{k != y} exp(z_k - z_y + m)).

    This is softmax cross-entropy with m taken off the true class's logit, which is how it is computed: the gradient
    of the wrong classes then lives as long as float32 can hold exp(z_k - z_y + m). For a scalar it also equals
    log(1 + e^m (e^SCE - 1)) and, with m = 2r, the largest SCE over all moves of the logits by at most r each (derived
    here).

    Args:
        logits: (N, C), (N, C, ...) or (C,), floating point; half precision is computed in float32.
        target: int64 labels, shaped as ``logits`` without the class dimension.
        inference: the inference information m, in units of a logit. A number or a tensor (); (C,) with one m for each
            true class; or (C, C) with one m[y, k] for each pair, added to z_k where k != y (the diagonal isn't used).
            Positive asks for a margin, negative makes a correct prediction cheaper. A tensor may require gradients.
        weight: (C,) weight of each class, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: label of examples that don't count.
        reduction: ``none``, ``mean`` or ``sum``.
        label_smoothing: in [0, 1]. The smoothed label is compared with the softmax of the logits *after* the term: the
            term says what the network is asked for, the smoothing how sure it is asked to be.

    Returns:
        A scalar, or the shape of ``target`` where ``reduction`` is ``none``; float32 for half-precision logits.

    Raises:
        ValueError: shapes that don't fit, labels out of range, an empty batch, or a number that isn't finite.
        TypeError: logits not floating point or labels not int64.
    """
    check(logits, target)
    return cross_entropy(
        _with_inference(widen(logits), target, inference),
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def _with_inference(logits: Tensor, target: Tensor, inference: float | Tensor) -> Tensor:
    """The logits with the inference information on them."""
    dim = class_dim(logits)
    classes = logits.shape[dim]
    # Brings ignored labels into range; a label that is out of range is refused by the cross-entropy that follows.
    row = target.clamp(0, classes - 1)
    index = row.unsqueeze(dim)
    if not isinstance(inference, Tensor):
        if not torch.compiler.is_compiling() and not math.isfinite(inference):
            raise ValueError(f"inference must be finite, got {inference}")
        return logits.scatter_add(dim, index, logits.new_full(index.shape, -inference))
    m = inference.to(logits)
    if m.dim() == 0:
        return logits.scatter_add(dim, index, (-m).expand(index.shape))
    if m.dim() > 2 or any(size != classes for size in m.shape):
        raise ValueError(f"inference must be (), ({classes},) or ({classes}, {classes}), got {tuple(m.shape)}")
    if m.dim() == 1:
        return logits.scatter_add(dim, index, -m[index])
    pairs = m.masked_fill(torch.eye(classes, dtype=torch.bool, device=m.device), 0.0)
    return logits + rows(pairs, row).movedim(-1, dim)


class SoftmaxCrossEntropy(Objective):
    """Softmax cross-entropy, the baseline: :class:`torch.nn.CrossEntropyLoss` on int64 labels.

    Matched attack: the margin of the raw scores (the default of every objective).

    Args:
        **common: see :class:`~isce.losses.base.Objective`.
    """

    name = "sce"

    def __init__(self, **common: Unpack[Common]) -> None:
        super().__init__(**common)

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        return self._cross_entropy(scores, target, reduction)


class InferenceSoftmaxCrossEntropy(Objective):
    """I-SCE, text reading: an additive term on the logit (see :func:`inference_softmax_cross_entropy`).

    Reading of the abstract and introduction of Song et al. (ICLR 2021 submission); the paper's own equation was not at
    hand. The term is part of the loss alone: prediction and attack use the raw scores.

    Matched attack: the margin of the raw scores. The term is constant in the input given the label, so for a scalar
    the gradient of this loss has the direction of SCE's, and an attack on it fails where one on SCE does.

    Args:
        inference: m, a number, (C,) or (C, C), in units of a logit, finite. A number stays a number (the fastest form);
            a vector or matrix is a buffer, saved in the state dict, the diagonal of a matrix set to 0. The default 2
            covers moves of each logit by up to 1.
        **common: see :class:`~isce.losses.base.Objective`. For ``label_smoothing`` the smoothed label is compared with
            the softmax of the logits after the term.

    Raises:
        ValueError: not finite, or of another shape.
        TypeError: not numbers.
    """

    name = "isce"
    inference: float | Tensor

    def __init__(
        self, inference: float | Sequence[float] | Sequence[Sequence[float]] | Tensor = 2.0, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        m = numbers("inference", inference)
        if m.dim() > 2 or (m.dim() and (m.shape[0] < 2 or len(set(m.shape)) > 1)):
            raise ValueError(f"inference must be a number, (C,) or (C, C), got shape {tuple(m.shape)}")
        if m.dim() == 0:
            self.inference = float(m) if isinstance(inference, Tensor) else number("inference", inference)
            return
        self.register_buffer("inference", m.fill_diagonal_(0.0) if m.dim() == 2 else m)

    def _loss(self, scores: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        return inference_softmax_cross_entropy(
            scores,
            target,
            self.inference,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )
