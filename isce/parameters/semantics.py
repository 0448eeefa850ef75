"""Semantics numbers: how often the results of a part of the package have changed.

A run's key (:mod:`isce.runs.key`) holds the numbers of the parts that the run uses. Raise a number, by one more line in
``CHANGES``, whenever the same parameters give other results than before; tests/golden shows when that is the case.
Renaming, moving and tidying raise no number.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from importlib import metadata

#: What changed the results of a part, oldest first; a part that is not listed is at 1. Parts: the kinds of run
#: (``train``, ``attack``, ``minmax``, ``explain``) and, with their names, ``objective.<name>``, ``network.<name>``,
#: ``adversarial.<kind>``, ``defence.<name>``, ``attack.<name>``, ``bounds.<method>`` and ``draws`` (how a classifier
#: that draws at random is evaluated).
CHANGES: dict[str, list[str]] = {
    "attack": [
        "flags and examples draw as their evaluation does; a row that failed has no accuracy",
        "one pass from the largest eps down; distances of the nearest points; the curve by eps is looked up in them",
    ],
    "attack.autoattack": ["its seed is drawn for a purpose of its own"],
    "attack.bim": ["l_2 steps don't depend on the scale of the logits"],
    "attack.cw": ["random targets are drawn for a purpose of their own"],
    "attack.fgsm": ["random targets are drawn for a purpose of their own"],
    "attack.jsma": ["random targets are drawn for a purpose of their own"],
    "attack.lbfgs": ["random targets are drawn for a purpose of their own"],
    "attack.local-search": ["its seed is drawn for a purpose of its own"],
    "attack.matched": ["survivors go on from their lowest margin; squares are drawn for a purpose of their own"],
    "attack.mim": ["each image's gradient has a largest entry of 1 before advertorch sees it"],
    "attack.pgd": ["random targets are drawn for a purpose of their own; l_2 steps don't depend on the logits' scale"],
    "attack.search": ["stripes and squares are drawn for a purpose of their own"],
    "attack.simba": ["the order of the pixels is drawn for a purpose of its own"],
    "attack.single-pixel": ["its seed is drawn for a purpose of its own"],
    "attack.spatial": ["points end a little beyond the boundary, so that no batch decides on them"],
    "attack.spsa": ["its seed is drawn for a purpose of its own"],
    "attack.transfer": ["each image's gradient has a largest entry of 1 before advertorch sees it"],
}


def number(part: str) -> int:
    """The semantics number of one part, at least 1."""
    return 1 + len(CHANGES.get(part, ()))


def numbers(parts: Iterable[str]) -> dict[str, int]:
    """The semantics number of each part, by name."""
    return {part: number(part) for part in sorted(set(parts))}


PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "advertorch",
    "foolbox",
    "pyautoattack",
    "safetensors",
    "statsmodels",
)


def versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Public versions of installed packages (``2.13.0``, not ``2.13.0+cpu``); absent ones are left out."""
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = _version(name).split("+")[0]
    return found


@functools.cache
def _version(name: str) -> str:
    """Version of an installed package; to read it again for each run of an experiment takes seconds."""
    return metadata.version(name)
