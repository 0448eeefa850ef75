"""Which attacks there are, in which module each is, and what each needs. Modules are imported at first use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from isce.attacks.base import Found, Problem
from isce.attacks.precision import cast
from isce.attacks.spec import AttackSpec, about


def load(name: str) -> Callable[[AttackSpec, Problem, int], Found]:
    """Return the function that runs one restart of an attack; a package's gets images in a precision that it takes."""
    known = about(name)
    attack = getattr(import_module(f"isce.attacks.{known.family}"), name.replace("-", "_"))
    return cast(attack, double=known.double) if known.package else attack
