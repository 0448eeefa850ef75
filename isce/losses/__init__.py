"""Training objectives behind one contract: softmax cross-entropy, both readings of I-SCE, and the losses beside them.

``build(name, **params)`` gives an :class:`~isce.losses.base.Objective`, called like :class:`torch.nn.CrossEntropyLoss`.
Needs torch only.
"""

from __future__ import annotations

import inspect
from typing import Any

from isce.losses.base import LossOptions, Objective
from isce.losses.certified import CertifiedInferenceSoftmaxCrossEntropy
from isce.losses.checks import known
from isce.losses.gaussian import (
    GaussianScores,
    LargeMarginGaussianMixture,
    MaxMahalanobisCenter,
    SimplexScores,
    simplex,
)
from isce.losses.margin import ArcFace, CosFace, CosineScores, LogitSqueezing
from isce.losses.metric import CenterLoss, ContrastiveLoss, TripletLoss
from isce.losses.released import (
    ReleasedInferenceSoftmaxCrossEntropy,
    released_inference_softmax_cross_entropy,
    released_outputs,
)
from isce.losses.softmax import (
    InferenceSoftmaxCrossEntropy,
    LabelSmoothingCrossEntropy,
    SoftmaxCrossEntropy,
    inference_softmax_cross_entropy,
)

__all__ = [
    "ArcFace",
    "CenterLoss",
    "CertifiedInferenceSoftmaxCrossEntropy",
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
    "inference_softmax_cross_entropy",
    "names",
    "released_inference_softmax_cross_entropy",
    "released_outputs",
    "simplex",
]

_OBJECTIVES: dict[str, type[Objective]] = {
    "arcface": ArcFace,
    "center": CenterLoss,
    "contrastive": ContrastiveLoss,
    "cosface": CosFace,
    "isce": InferenceSoftmaxCrossEntropy,
    "isce-certified": CertifiedInferenceSoftmaxCrossEntropy,
    "isce-released": ReleasedInferenceSoftmaxCrossEntropy,
    "label-smoothing": LabelSmoothingCrossEntropy,
    "lgm": LargeMarginGaussianMixture,
    "logit-squeezing": LogitSqueezing,
    "mmc": MaxMahalanobisCenter,
    "sce": SoftmaxCrossEntropy,
    "triplet": TripletLoss,
}


def names() -> list[str]:
    """Names that :func:`build` knows, sorted."""
    return sorted(_OBJECTIVES)


def build(name: str, **params: Any) -> Objective:
    """Build a new objective by its name.

    Args:
        name: one of :func:`names`.
        **params: parameters of the objective's class.

    Raises:
        ValueError: unknown name or parameter, or a value out of range.
        TypeError: a value of the wrong type.
    """
    cls = known("objective", name, _OBJECTIVES)
    signature = inspect.signature(cls).parameters.values()
    allowed = [p.name for p in signature if p.kind is not p.VAR_KEYWORD] + list(LossOptions.__annotations__)
    unknown = sorted(set(params) - set(allowed))
    if unknown:
        raise ValueError(f"objective {name!r} has no parameter {', '.join(unknown)}; it takes: {', '.join(allowed)}")
    try:
        return cls(**params)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"objective {name!r}: {error} (it takes: {', '.join(allowed)})") from error
