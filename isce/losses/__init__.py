"""Training objectives behind one contract: softmax cross-entropy, both readings of I-SCE, and the losses beside them.

``build(name, **params)`` gives an :class:`~isce.losses.base.Objective`, called like :class:`torch.nn.CrossEntropyLoss`.
Each family lives in a module of its own that is imported when it is first used. Needs torch only.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isce.losses.base import Objective
    from isce.losses.gaussian import (
        GaussianScores,
        LargeMarginGaussianMixture,
        MaxMahalanobisCenter,
        SimplexScores,
        simplex,
    )
    from isce.losses.margin import ArcFace, CosFace, CosineScores, LabelSmoothingCrossEntropy, LogitSqueezing
    from isce.losses.metric import CenterLoss, ContrastiveLoss, TripletLoss
    from isce.losses.released import (
        ReleasedInferenceSoftmaxCrossEntropy,
        released_inference_softmax_cross_entropy,
        released_outputs,
    )
    from isce.losses.softmax import (
        InferenceSoftmaxCrossEntropy,
        SoftmaxCrossEntropy,
        inference_softmax_cross_entropy,
    )

__all__ = [
    "ArcFace",
    "CenterLoss",
    "ContrastiveLoss",
    "CosFace",
    "CosineScores",
    "GaussianScores",
    "InferenceSoftmaxCrossEntropy",
    "LabelSmoothingCrossEntropy",
    "LargeMarginGaussianMixture",
    "LogitSqueezing",
    "MaxMahalanobisCenter",
    "Objective",
    "ReleasedInferenceSoftmaxCrossEntropy",
    "SimplexScores",
    "SoftmaxCrossEntropy",
    "TripletLoss",
    "build",
    "family",
    "inference_softmax_cross_entropy",
    "names",
    "released_inference_softmax_cross_entropy",
    "released_outputs",
    "simplex",
]

# Objective: the family (module) that holds it, and its class.
_OBJECTIVES = {
    "arcface": ("margin", "ArcFace"),
    "center": ("metric", "CenterLoss"),
    "contrastive": ("metric", "ContrastiveLoss"),
    "cosface": ("margin", "CosFace"),
    "isce": ("softmax", "InferenceSoftmaxCrossEntropy"),
    "isce-released": ("released", "ReleasedInferenceSoftmaxCrossEntropy"),
    "label-smoothing": ("margin", "LabelSmoothingCrossEntropy"),
    "lgm": ("gaussian", "LargeMarginGaussianMixture"),
    "logit-squeezing": ("margin", "LogitSqueezing"),
    "mmc": ("gaussian", "MaxMahalanobisCenter"),
    "sce": ("softmax", "SoftmaxCrossEntropy"),
    "triplet": ("metric", "TripletLoss"),
}

# What can be imported from here, and the module it is in.
_EXPORTS = {cls: module for module, cls in _OBJECTIVES.values()} | {
    "CosineScores": "margin",
    "GaussianScores": "gaussian",
    "Objective": "base",
    "SimplexScores": "gaussian",
    "inference_softmax_cross_entropy": "softmax",
    "released_inference_softmax_cross_entropy": "released",
    "released_outputs": "released",
    "simplex": "gaussian",
}


def names() -> list[str]:
    """Names that :func:`build` knows, sorted."""
    return sorted(_OBJECTIVES)


def family(name: str) -> str:
    """Name of the module inside ``isce.losses`` that holds an objective.

    Raises:
        ValueError: unknown name.
    """
    if name not in _OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; known: {', '.join(names())}")
    return _OBJECTIVES[name][0]


def build(name: str, **params: Any) -> Objective:
    """A new objective by its name.

    Args:
        name: one of :func:`names`.
        **params: parameters of the objective's class.

    Raises:
        ValueError: unknown name or parameter, or a value out of range.
        TypeError: a value of the wrong type.
    """
    cls = getattr(import_module(f"isce.losses.{family(name)}"), _OBJECTIVES[name][1])
    allowed = _parameters(cls)
    unknown = sorted(set(params) - set(allowed))
    if unknown:
        raise ValueError(f"objective {name!r} has no parameter {', '.join(unknown)}; it takes: {', '.join(allowed)}")
    try:
        return cls(**params)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"objective {name!r}: {error} (it takes: {', '.join(allowed)})") from error


def _parameters(cls: type[Objective]) -> list[str]:
    """Names of an objective's own parameters, then of those that all take."""
    from isce.losses.base import Common

    signature = inspect.signature(cls).parameters.values()
    return [p.name for p in signature if p.kind is not p.VAR_KEYWORD] + list(Common.__annotations__)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"isce.losses.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
