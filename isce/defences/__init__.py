"""The defences that the paper names, each as a choice about training that goes with an objective.

``build(name, **params)`` gives a :class:`~isce.defences.base.Defence`. A new one is a file here and a row below.
"""

from __future__ import annotations

import inspect
from typing import Any

from isce.defences.adversarial import AdversarialTraining, Trades
from isce.defences.augmix import AugMix
from isce.defences.base import Batch, Defence, Setting
from isce.defences.deep_defense import DeepDefense
from isce.defences.detector import Detector
from isce.defences.distillation import Distillation, Temperature
from isce.defences.gradient import InputGradient
from isce.defences.mixup import Mixup
from isce.defences.noisy import NoisySoftmax
from isce.defences.onestep import OneStep
from isce.defences.resize_pad import ResizePad
from isce.defences.spectral import Spectral
from isce.defences.vat import VirtualAdversarial
from isce.defences.wrm import WRM
from isce.losses.checks import known

__all__ = ["Batch", "Defence", "Setting", "about", "build", "names"]

_DEFENCES: dict[str, type[Defence]] = {
    "augmix": AugMix,
    "deep-defense": DeepDefense,
    "detector": Detector,
    "distillation": Distillation,
    "input-gradient": InputGradient,
    "mixup": Mixup,
    "noisy-softmax": NoisySoftmax,
    "one-step": OneStep,
    "pgd-training": AdversarialTraining,
    "resize-pad": ResizePad,
    "spectral": Spectral,
    "temperature": Temperature,
    "trades": Trades,
    "vat": VirtualAdversarial,
    "wrm": WRM,
}


def names() -> list[str]:
    """Names that :func:`build` knows, sorted."""
    return sorted(_DEFENCES)


def about(name: str) -> type[Defence]:
    """Class of a defence, which says its name for readers and its source (:class:`ValueError`: unknown)."""
    return known("defence", name, _DEFENCES)


def build(name: str, **params: Any) -> Defence:
    """Build a new defence by its name.

    Args:
        name: one of :func:`names`.
        **params: parameters of the defence's class.

    Raises:
        ValueError: unknown name or parameter, or a value out of range.
        TypeError: a value of the wrong type.
    """
    cls = about(name)
    allowed = list(inspect.signature(cls).parameters)
    if unknown := sorted(set(params) - set(allowed)):
        taken = ", ".join(allowed) or "none"
        raise ValueError(f"defence {name!r} has no parameter {', '.join(unknown)}; it takes: {taken}")
    return cls(**params)
