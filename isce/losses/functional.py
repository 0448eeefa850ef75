"""Functions that objectives are built from: checked logits, cross-entropies, reduction, and the margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from isce.losses.checks import check, class_dim, explain_labels

Reduction = Literal["none", "mean", "sum"]


class CallOptions(TypedDict):
    """How a loss weighs and reduces: the parameters of :func:`torch.nn.functional.cross_entropy`."""

    weight: Tensor | None
    ignore_index: int
    reduction: Reduction
    label_smoothing: float


def loss_of_checked(
    loss: Callable[[Tensor, Tensor], Tensor],
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    *,
    soft: bool = True,
) -> Tensor:
    """Call ``loss`` with checked logits and target, both in float32 at least, the logits of ignored examples at 0.

    What an ignored example holds (NaN, after an overflow) thus reaches neither a value nor a gradient.

    Raises:
        TypeError, ValueError: as :meth:`Objective.forward`.
    """
    check(logits, target, weight, soft=soft)
    if target.is_floating_point():
        if ignore_index >= 0:
            raise ValueError(f"ignore_index {ignore_index} is for labels: with probabilities it must be negative")
        return loss(widen(logits), widen(target))
    dim = class_dim(logits)
    ignored = target == ignore_index
    try:
        if _known_to_be_empty(ignored):
            return loss(widen(logits), target)
        return loss(torch.where(ignored.unsqueeze(dim), 0.0, widen(logits)), target)
    except (IndexError, RuntimeError):
        explain_labels(target, logits.shape[dim], ignore_index)
        raise


def _known_to_be_empty(mask: Tensor) -> bool:
    """Whether no entry of ``mask`` is set, where a look is free; False where a look would wait or isn't possible.

    It spares a pass over the logits, which takes a third of the time of a cross-entropy, and changes no value.
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return not bool(mask.any())
    except RuntimeError:  # inside a transform such as vmap
        return False


def widen(values: Tensor) -> Tensor:
    """``values`` in float32 if they are in half precision, else as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(logits: Tensor, target: Tensor, **options: Unpack[CallOptions]) -> Tensor:
    """:func:`torch.nn.functional.cross_entropy`, with the class weights in the type of ``logits``."""
    if options["weight"] is not None:
        options["weight"] = options["weight"].to(logits)
    return F.cross_entropy(logits, target, **options)


def expected_cross_entropy(
    logits: Tensor, true_logits: Tensor, probabilities: Tensor, **options: Unpack[CallOptions]
) -> Tensor:
    """Expectation over labels k of the cross-entropy whose logits are ``logits``, but ``true_logits`` at k itself.

    With a = ``true_logits`` the cross-entropy of label k is n_k = log(1 + sum_{j != k} exp(z_j - a_k)), weighted and
    smoothed as torch does with a label; n_k takes the sum over the other classes as it is, so nothing cancels. Memory
    is that of the logits.

    Args:
        logits: (N, C), (N, C, ...) or (C,).
        true_logits: shaped as ``logits``; what the logit of each class becomes where that class is the label.
        probabilities: shaped as ``logits``.
        **options: as every objective's; ``ignore_index`` isn't used.

    Returns:
        A scalar, or the shape of labels where ``reduction`` is ``none``.
    """
    dim, smoothing = class_dim(logits), options["label_smoothing"]
    others = _log_sum_of_others(logits, dim)
    entropy = torch.logaddexp(torch.zeros_like(others), others - true_logits)
    weight = options["weight"]
    weight = torch.ones_like(logits) if weight is None else along_classes(weight.to(logits), logits).expand_as(logits)
    loss = (1 - smoothing) * weight * entropy
    if smoothing:
        # sum_j w_j (log-sum of label k - logit j), where the log-sum is entropy_k + true_logits_k.
        total = weight.sum(dim, keepdim=True)
        spread = total * (entropy + true_logits) - (weight * logits).sum(dim, keepdim=True)
        loss = loss + smoothing / logits.shape[dim] * (spread - weight * (true_logits - logits))
    return reduce_losses((probabilities * loss).sum(dim), options["reduction"])


def _log_sum_of_others(logits: Tensor, dim: int) -> Tensor:
    """Give log sum_{j != k} exp(z_j) for each class k, to full precision also where k holds nearly all of the sum."""
    total = logits.logsumexp(dim, keepdim=True)
    top = logits.argmax(dim, keepdim=True)
    of_top = logits.scatter(dim, top, -math.inf).logsumexp(dim, keepdim=True)
    # A class that isn't the top one has a share of at most 1/2, so 1 - share loses nothing.
    share = (logits - total).scatter(dim, top, -math.inf).exp()
    return (total + torch.log1p(-share)).scatter(dim, top, of_top)


def negative_margin(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """max_{k != y} s_k - s_y, shaped as ``target``: above 0 where y has lost, 0 for an ignored example.

    Where several wrong classes share the maximum its gradient is split between them evenly.
    """

    def margin(logits: Tensor, target: Tensor) -> Tensor:
        dim = class_dim(logits)
        index = true_class(target, ignore_index).unsqueeze(dim)
        true = logits.gather(dim, index).squeeze(dim)
        wrong = logits.scatter(dim, index, -math.inf)
        return (wrong.amax(dim) - true).masked_fill(target == ignore_index, 0.0)

    return loss_of_checked(margin, logits, target, None, ignore_index, soft=False)


def true_class(target: Tensor, ignore_index: int) -> Tensor:
    """The labels, with class 0 for an ignored example."""
    return target.masked_fill(target == ignore_index, 0)


def table_rows(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``; inside nested transforms torch would read the value of an index without dimensions."""
    return table[index.unsqueeze(0)].squeeze(0)


def along_classes(values: Tensor, logits: Tensor) -> Tensor:
    """``values`` (C,), shaped so that they run along the class dimension of ``logits``."""
    return values.reshape(-1, *[1] * (logits.dim() - class_dim(logits) - 1))


def reduce_losses(losses: Tensor, reduction: Reduction, weights: Tensor | None = None) -> Tensor:
    """Reduce losses that already hold their ``weights`` (shaped alike) as torch's cross-entropy does.

    A mean is divided by the sum of the weights, or where there are none by the number of losses.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.mean() if weights is None else losses.sum() / weights.sum()


def unit_vectors(values: Tensor, dim: int = -1) -> Tensor:
    """``values`` divided by their l_2 norm along ``dim``; a zero vector stays zero, and has the identity's gradient."""
    norm = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return values / norm.masked_fill(norm == 0, 1.0)


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root of non-negative ``values`` whose derivatives of every order are finite at 0 (the first is 1/2)."""
    zero = (values == 0).to(values.dtype)
    return (values + zero).sqrt() - zero
