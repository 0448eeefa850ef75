"""The defences that the paper names, each as a choice about training that goes with an objective.

``build(name, **params)`` gives a :class:`~isce.defences.base.Defence`. A new one is a file here and a row below.
"""

from __future__ import annotations

import inspect
from typing import Any

from isce.defences.base import Batch, Defence
from isce.defences.distillation import Distillation, Temperature
from isce.defences.mixup import Mixup
from isce.defences.resize_pad import ResizePad
from isce.losses.checks import known

__all__ = ["Batch", "Defence", "about", "build", "names"]

_DEFENCES: dict[str, type[Defence]] = {cls.name: cls for cls in (Distillation, Mixup, ResizePad, Temperature)}


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
