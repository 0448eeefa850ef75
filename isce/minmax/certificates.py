"""Certificates: upper bounds of f_k - f_y over the ball around each image, and which images they prove.

What is certified: the prediction of this network, in float32 as it is attacked, on the whole ball within the pixel box
[0, 1]. Bounds are computed in float64 from the weights as they are saved, and raised by ``SLACK`` of the largest logit
difference. The float32 logits of our networks differ from the exact ones by less than a tenth of that (tested). Where
all logits lie far from 0 next to their differences, their own rounding decides, and bounds are raised by that.

Rounding inside the network may be larger than its logits tell: it is measured, as the distance from the float64 network
at one more point of each ball. An image with less than ``ROOM`` times as much slack has infinite bounds, which prove
nothing; rounding of more than ``LIMIT`` times the slack is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from isce.attacks.checks import check_images
from isce.attacks.threat import Threat
from isce.minmax.chain import double, widened
from isce.minmax.checks import check_logits, check_plain, check_threat
from isce.minmax.interval import interval_bounds, proves
from isce.minmax.linear import linear_bounds
from isce.minmax.lipschitz import network_constants
from isce.models import Classifier

Method = Literal["interval", "linear", "lipschitz"]
SLACK = 1e-5
ROUNDINGS = 16  #: of the largest logit, in the network's precision
ROOM = 2.0  #: slack over measured rounding, at least: elsewhere in the ball it may be larger
LIMIT = 10.0  #: measured rounding over slack, at most; with our networks it is 0.03 for most images, and 0.4 at worst
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
        (N, K), float64; 0 at the label; infinite where rounding may exceed the slack.

    Raises:
        ValueError: unknown method, a norm that it has no bounds for, images outside [0, 1], training mode, batch
            statistics, hooks or methods of its own, weights or logits that are not finite, a layer or score map without
            a bound, or rounding that no slack covers.
        TypeError: no classifier of ``isce.models``, no threat model, images, weights and logits not all float32 or all
            float64, or autocast.
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
        exact = parts.exact if parts else _exact(widened(classifier))
        # One direction for all images, so that what is proved doesn't depend on the batch.
        aside = 2 * torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x) - 1
        found = list[Tensor]()
        for some, labels in zip(x.split(_BATCH[method]), y.split(_BATCH[method]), strict=True):
            logits = classifier(some)
            check_logits(logits, labels)
            if logits.dtype != precision:
                raise TypeError(f"bounds are about a network in {precision}, got logits in {logits.dtype}")
            differences = _below(logits, labels)
            if parts is None:
                assert constants is not None
                upper = differences + threat.eps * constants[labels]
            else:
                bounds = interval_bounds if method == "interval" else linear_bounds
                upper = bounds(parts, some.double(), labels, threat.eps)
            slack = _slack(logits, differences)
            # Beside the image, which may be all 0 and 1, so that little is rounded.
            moved = threat.project(some + threat.eps * aside, some)
            slack = _covering(slack, classifier(moved), exact(moved.double(), labels), labels)
            # The image itself lies in its ball.
            found.append(torch.maximum(upper + slack, differences).scatter(1, labels.unsqueeze(1), 0.0))
    return torch.cat(found)


def _exact(classifier: Classifier) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: _below(classifier(x), y)


def _below(logits: Tensor, y: Tensor) -> Tensor:
    """Differences f_k - f_y (N, K), in float64."""
    logits = logits.double()
    return logits - logits.gather(1, y.unsqueeze(1))


def _slack(logits: Tensor, differences: Tensor) -> Tensor:
    """By how much bounds are raised (N, 1)."""
    rounding = ROUNDINGS * torch.finfo(logits.dtype).eps * logits.double().abs().amax(1, keepdim=True)
    return torch.maximum(SLACK * differences.abs().amax(1, keepdim=True), rounding)


def _covering(slack: Tensor, logits: Tensor, exact: Tensor, y: Tensor) -> Tensor:
    """The slack of images whose measured rounding it covers, infinite for the others.

    Args:
        slack: (N, 1).
        logits: at a point of each ball, in the network's precision (N, K).
        exact: the differences f_k - f_y there, by float64.
        y: labels (N,).

    Raises:
        ValueError: rounding far beyond the slack.
    """
    differences = _below(logits, y)
    apart = (differences - exact).abs().amax(1, keepdim=True)
    allowed = LIMIT * torch.maximum(slack, _slack(logits, differences))
    worst = apart.sub(allowed).argmax()  # the first NaN, where there are any
    if not bool(apart[worst] <= allowed[worst]):
        raise ValueError(
            f"no bounds: rounding moves a difference of logits by {float(apart[worst]):.3g} from that in float64, "
            f"where {float(allowed[worst]):.3g} is allowed: values in the network are too large, or it computes in TF32"
        )
    return slack.where(ROOM * apart <= slack, torch.inf)


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
