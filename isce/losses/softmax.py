"""Softmax cross-entropy (SCE), with smoothed labels too, and the text reading of I-SCE: a term on a logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from isce.losses.base import LossOptions, Objective
from isce.losses.checks import class_dim, number, numbers
from isce.losses.functional import (
    CallOptions,
    Reduction,
    along_classes,
    cross_entropy,
    expected_cross_entropy,
    loss_of_checked,
    reduce_losses,
    table_rows,
)


def inference_softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    inference: float | Tensor,
    *,
    per_example: bool = False,
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
        target: int64 labels, shaped as ``logits`` without the class dimension; or probabilities p, shaped as
            ``logits``. The loss is then sum_k p_k L_m(z, k), the expected loss of a label drawn from p: linear in p as
            torch's, equal to torch's at m = 0, and for a mixup of two labels the mix of their losses, as in the mixup
            paper's code (Zhang et al., ICLR 2018). A (C, C) ``inference`` then takes memory N x C x C.
        inference: the inference information m, in units of a logit. A number or a tensor (); (C,) with one m for each
            true class; or (C, C) with one m[y, k] for each pair, added to z_k where k != y (the diagonal isn't used).
            Positive asks for a margin, negative makes a correct prediction cheaper. A tensor may require gradients.
        per_example: ``inference`` is shaped as the logits, and holds one m for each example and wrong class, added to
            its logit (what it holds for the true class isn't used). Said apart, since with N = C examples it looks like
            a matrix of classes. Labels must be int64.
        weight: (C,) weight of each class, as in :func:`torch.nn.functional.cross_entropy`.
        ignore_index: label of examples that don't count.
        reduction: ``none``, ``mean`` or ``sum``.
        label_smoothing: in [0, 1]. The smoothed label is compared with the softmax of the logits *after* the term: the
            term says what the network is asked for, the smoothing how sure it is asked to be.

    Returns:
        A scalar, or the shape of ``target`` where ``reduction`` is ``none``; float32 for half-precision logits.

    Raises:
        ValueError: shapes that don't fit, labels out of range, an empty batch, or a number (not a tensor, which isn't
            looked at) that isn't finite.
        TypeError: not tensors, logits not floating point, or labels not int64.
    """
    call = _examples_loss if per_example else _inference_loss
    options = CallOptions(
        weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )
    return loss_of_checked(lambda z, y: call(z, y, inference, **options), logits, target, weight, ignore_index)


def _inference_loss(
    logits: Tensor, target: Tensor, inference: float | Tensor, **options: Unpack[CallOptions]
) -> Tensor:
    """I-SCE of checked logits; see :func:`inference_softmax_cross_entropy`."""
    dim = class_dim(logits)
    classes = logits.shape[dim]
    m = inference
    if isinstance(m, Tensor):
        if m.dim() > 2 or any(size != classes for size in m.shape):
            raise ValueError(f"inference must be (), ({classes},) or ({classes}, {classes}), got {tuple(m.shape)}")
        if m.dim() == 2:
            return _pairs_loss(logits, target, m, **options)
        m = m.to(logits)
    elif not torch.compiler.is_compiling():
        m = number("inference", m)
    if target.is_floating_point():
        term = along_classes(m, logits) if isinstance(m, Tensor) and m.dim() else m
        return expected_cross_entropy(logits, logits - term, target, **options)
    index = _in_range(target, classes).unsqueeze(dim)
    if isinstance(m, Tensor):
        term = -m[index] if m.dim() else (-m).expand(index.shape)
    else:
        term = logits.new_full(index.shape, -m)
    return cross_entropy(logits.scatter_add(dim, index, term), target, **options)


def _examples_loss(logits: Tensor, target: Tensor, inference: float | Tensor, **options: Unpack[CallOptions]) -> Tensor:
    """I-SCE of checked logits with one m for each example and wrong class."""
    if not isinstance(inference, Tensor) or inference.shape != logits.shape:
        got = tuple(inference.shape) if isinstance(inference, Tensor) else inference
        raise ValueError(f"per-example inference must be shaped as the logits, {tuple(logits.shape)}, got {got}")
    if target.is_floating_point():
        raise TypeError(f"per-example inference goes with int64 labels only, got {target.dtype}")
    dim = class_dim(logits)
    index = _in_range(target, logits.shape[dim]).unsqueeze(dim)
    return cross_entropy(logits + inference.to(logits).scatter(dim, index, 0.0), target, **options)


def _pairs_loss(logits: Tensor, target: Tensor, m: Tensor, **options: Unpack[CallOptions]) -> Tensor:
    """I-SCE of checked logits with one m for each pair of classes."""
    dim = class_dim(logits)
    classes = logits.shape[dim]
    if not target.is_floating_point():
        label = _in_range(target, classes)
        rows = table_rows(m.to(logits.device), label).to(logits)  # the whole matrix may be large
        rows = rows.scatter(-1, label.unsqueeze(-1), 0.0)
        return cross_entropy(logits + rows.movedim(-1, dim), target, **options)
    # The loss of every label, then its mean by the probabilities.
    pairs = m.to(logits).masked_fill(torch.eye(classes, dtype=torch.bool, device=logits.device), 0.0)
    changed = (logits.movedim(dim, -1).unsqueeze(-2) + pairs).reshape(-1, classes)
    labels = torch.arange(classes, device=logits.device).repeat(len(changed) // classes)
    losses = cross_entropy(changed, labels, **{**options, "reduction": "none"})
    probabilities = target.movedim(dim, -1)
    return reduce_losses((probabilities * losses.reshape(probabilities.shape)).sum(-1), options["reduction"])


def _in_range(target: Tensor, classes: int) -> Tensor:
    """Labels with ignored ones brought into range; any other that is out of range fails in the cross-entropy."""
    return target.clamp(0, classes - 1)


class SoftmaxCrossEntropy(Objective):
    """Softmax cross-entropy, the baseline: :class:`torch.nn.CrossEntropyLoss`, for labels and for probabilities.

    Matched attack: the margin of the raw logits (the default of every objective).

    Args:
        **options: see :class:`~isce.losses.base.Objective`.
    """

    name = "sce"

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        return self._cross_entropy(logits, target, reduction)


class LabelSmoothingCrossEntropy(SoftmaxCrossEntropy):
    """Softmax cross-entropy against labels smoothed as by Szegedy et al. (CVPR 2016, section 7).

    The target is (1 - label_smoothing) onehot(y) + label_smoothing / C.

    Matched attack: the margin of the raw logits.

    Args:
        label_smoothing: in [0, 1]; the paper's is 0.1.
        **options: the others, see :class:`~isce.losses.base.Objective`.
    """

    name = "label-smoothing"

    def __init__(self, **options: Unpack[LossOptions]) -> None:
        super().__init__(**(LossOptions(label_smoothing=0.1) | options))


class InferenceSoftmaxCrossEntropy(Objective):
    """I-SCE, text reading: an additive term on the logit (see :func:`inference_softmax_cross_entropy`).

    Reading of the abstract and introduction of Song et al. (ICLR 2021 submission); the paper's own equation was not at
    hand. The term is part of the loss alone: prediction and attack use the raw logits.

    Matched attack: the margin of the raw logits. The term is constant in the input given the label, so for a scalar
    the gradient of this loss has the direction of SCE's, and an attack on it fails where one on SCE does.

    Args:
        inference: m, a number, (C,) or (C, C), in units of a logit, finite. A number stays a number (the fastest form);
            a vector or matrix is a buffer, saved in the state dict, the diagonal of a matrix set to 0. The default 2
            covers moves of each logit by up to 1.
        temperature: T above 0: the loss is T log(1 + sum_{k != y} exp((z_k - z_y + m) / T)). The smaller, the nearer to
            the hinge max(0, m - margin); on a network of bounded slope it says how much of the margin is asked for.
        **options: see :class:`~isce.losses.base.Objective`. For ``label_smoothing`` the smoothed label is compared with
            the softmax of the logits after the term.

    Raises:
        ValueError: not finite, or of another shape.
        TypeError: not numbers.
    """

    name = "isce"
    inference: float | Tensor

    def __init__(
        self,
        inference: float | Sequence[float] | Sequence[Sequence[float]] | Tensor = 2.0,
        temperature: float = 1.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.temperature = number("temperature", temperature, above=0)
        m = numbers("inference", inference)
        if m.dim() > 2 or (m.dim() and (m.shape[0] < 2 or len(set(m.shape)) > 1)):
            raise ValueError(f"inference must be a number, (C,) or (C, C), got shape {tuple(m.shape)}")
        if m.dim() == 0:
            self.inference = float(m) if isinstance(inference, Tensor) else number("inference", inference)
            return
        self.register_buffer("inference", m.fill_diagonal_(0.0) if m.dim() == 2 else m)

    def _loss(self, logits: Tensor, target: Tensor, embedding: Tensor | None, reduction: Reduction) -> Tensor:
        options = self._options(reduction)
        if self.temperature == 1:
            return _inference_loss(logits, target, self.inference, **options)
        t = self.temperature
        return t * _inference_loss(logits / t, target, self.inference / t, **options)
