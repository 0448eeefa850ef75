"""Input checks that the min-max analysis shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isce.attacks.threat import Threat
from isce.losses.checks import check
from isce.models import Backbone, Classifier

_OPEN = {"__init__", "__doc__", "__module__", "__annotations__", "__dict__", "__weakref__", "features", "scores"}
"""What a subclass of a network's base may define anew: bounds walk ``features`` or refuse another, the rest computes no
logits."""


def check_logits(logits: Tensor, target: Tensor) -> None:
    """Refuse logits and labels that are not a finite batch (N, C) with C >= 2 and int64 labels in [0, C).

    Raises:
        ValueError: a shape or a value is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check(logits, target)
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape (N, C), got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits must be finite")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got {low if low < 0 else high}")


def check_radius(radius: float, name: str = "radius") -> None:
    """Refuse a radius that is negative or not finite (:class:`ValueError`); ``name`` is what the message calls it."""
    if not 0 <= radius < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {radius}")


def check_evaluation(classifier: nn.Module) -> None:
    """Refuse a classifier of which a part is in training mode: its logits are not those it predicts with."""
    if any(module.training for module in classifier.modules()):
        raise ValueError("the classifier is in training mode; call classifier.eval() first")


def check_threat(threat: object) -> None:
    """Refuse what is no threat model, such as a bare eps (:class:`TypeError`)."""
    if not isinstance(threat, Threat):
        raise TypeError(f"threat must be an isce.attacks.Threat, such as Threat('linf', 0.1), got {threat!r}")


def check_plain(classifier: nn.Module) -> None:
    """Refuse a classifier that computes something else than its layers say, or not in a precision that bounds cover.

    Raises:
        TypeError: no :class:`isce.models.Classifier`, weights that are not float32 or float64, or autocast.
        ValueError: a part in training mode, with a hook, or with a method of its own.
    """
    if not isinstance(classifier, Classifier):
        raise TypeError(f"bounds need an isce.models.Classifier, got {type(classifier).__name__}")
    check_methods(classifier)
    check_evaluation(classifier)
    for name, module in classifier.named_modules():
        where = f"{type(module).__name__} {name!r}" if name else type(module).__name__
        if vars(module)["_forward_hooks"] or vars(module)["_forward_pre_hooks"]:
            raise ValueError(f"no bounds: {where} has a forward hook, which may change what it computes")
        own = [key for key, value in vars(module).items() if callable(value) and hasattr(type(module), key)]
        if own:
            raise ValueError(f"no bounds: {where} has a {', '.join(own)} of its own, which may compute anything")
    for name, weight in classifier.named_parameters():
        if torch.is_autocast_enabled(weight.device.type):
            raise TypeError("no bounds inside torch.autocast: the network computes in another precision there")
        if weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"bounds need weights in float32 or float64, got {weight.dtype} in {name}")
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"weights must be finite, got infinity or NaN in {name}")


def check_methods(classifier: Classifier) -> None:
    """Refuse a subclass whose way from the image to the logits may be another than that of the package's networks.

    Raises:
        ValueError: classifier or backbone define anew what their base has, or the backbone is no :class:`Backbone`.
    """
    pairs: list[tuple[nn.Module, type[nn.Module]]] = [(classifier, Classifier), (classifier.backbone, Backbone)]
    for part, base in pairs:
        kind = type(part)
        if not issubclass(kind, base):
            raise ValueError(f"no bounds for {kind.__name__}: it is no isce.models.{base.__name__}")
        before = kind.__mro__[: kind.__mro__.index(base)]  # with what is mixed in
        defined = {name for parent in before for name in vars(parent)}
        own = sorted(defined & set(dir(base)) - _OPEN)
        if own:
            raise ValueError(f"no bounds for {kind.__name__}: it has its own {', '.join(own)}")
