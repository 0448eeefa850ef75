"""Certificates: upper bounds of f_k - f_y over the ball around each image, and which images they prove.

What is certified: the prediction of this network, in float32 as it is attacked, on the whole ball within the pixel box
[0, 1]. Bounds are computed in float64 from the weights as they are saved, and raised by ``SLACK`` of the largest logit
difference. The float32 logits of our networks differ from the exact ones by less than a tenth of that (tested). Where
all logits lie far from 0 next to their differences, their own rounding decides, and bounds are raised by that.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from isce.attacks.checks import check_images
from isce.attacks.threat import Threat
from isce.minmax.chain import double
from isce.minmax.checks import check_logits, check_plain, check_threat
from isce.minmax.interval import interval_bounds, proves
from isce.minmax.linear import linear_bounds
from isce.minmax.lipschitz import network_constants
from isce.models import Classifier

Method = Literal["interval", "linear", "lipschitz"]
SLACK = 1e-5
ROUNDINGS = 16  #: of the largest logit, in the network's precision
NORMS: dict[Method, tuple[str, ...]] = {"interval": ("linf",), "linear": ("linf",), "lipschitz": ("linf", "l2")}
"""The norms that each method has bounds for."""

_BATCH = {"interval": 500, "linear": 50, "lipschitz": 500}


def upper_bounds(classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, method: Method) -> Tensor:
    """Bound f_k - f_y from above over the ball around each image.

    * ``interval``: interval arithmetic, cheap; tight where a network was trained for it.
    * ``linear``: backward linear relaxation, never above ``interval``, and some hundred times its cost.
    * ``lipschitz``: z_k - z_y + eps K_yk with the constants of :func:`isce.minmax.network_constants`; ignores the box.

    Args:
        classifier: in evaluation mode.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,), int64.
        threat: ``linf`` or ``l2``, with its eps.
        method: see above.

    Returns:
        (N, K), float64; 0 at the label.

    Raises:
        ValueError: unknown method, a norm that it has no bounds for, images outside [0, 1], training mode, batch
            statistics, hooks, weights or logits that are not finite, or a layer or score map without a bound.
        TypeError: no classifier of ``isce.models``, no threat model, or images and weights not both float32 or float64.
    """
    check_threat(threat)
    check_method(method, threat.norm)
    check_plain(classifier)
    check_images(x, y)
    precision = next(classifier.parameters()).dtype
    if x.dtype != precision:
        raise TypeError(f"images must be {precision}, as the network's weights, got {x.dtype}")
    with torch.no_grad():
        lipschitz = method == "lipschitz"
        constants = network_constants(classifier, "l2" if threat.norm == "l2" else "linf") if lipschitz else None
        parts = None if lipschitz else double(classifier)
        found = list[Tensor]()
        for some, labels in zip(x.split(_BATCH[method]), y.split(_BATCH[method]), strict=True):
            logits = classifier(some).double()
            check_logits(logits, labels)
            differences = logits - logits.gather(1, labels.unsqueeze(1))
            if parts is None:
                assert constants is not None
                upper = differences + threat.eps * constants[labels]
            else:
                bounds = interval_bounds if method == "interval" else linear_bounds
                upper = bounds(parts, some.double(), labels, threat.eps)
            rounding = ROUNDINGS * torch.finfo(precision).eps * logits.abs().amax(1, keepdim=True)
            slack = torch.maximum(SLACK * differences.abs().amax(1, keepdim=True), rounding)
            # The image itself lies in its ball.
            found.append(torch.maximum(upper + slack, differences).scatter(1, labels.unsqueeze(1), 0.0))
    return torch.cat(found)


def certified(classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, method: Method) -> Tensor:
    """Which images are proved to keep their label on the whole ball, bool (N,); arguments and errors as above.

    The linear relaxation is computed for those images alone that intervals leave open: it is never above them.
    """
    check_threat(threat)
    check_method(method, threat.norm)
    proved = proves(upper_bounds(classifier, x, y, threat, "interval" if method == "linear" else method), y)
    left = ~proved
    if method == "linear" and left.any():
        proved[left] = proves(upper_bounds(classifier, x[left], y[left], threat, method), y[left])
    return proved


def check_method(method: Method, norm: str) -> None:
    """Refuse an unknown method, or a norm that it has no bounds for (:class:`ValueError`)."""
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; known: {', '.join(get_args(Method))}")
    if norm not in NORMS[method]:
        raise ValueError(f"no {method} bounds in {norm}; known: {', '.join(NORMS[method])}")
