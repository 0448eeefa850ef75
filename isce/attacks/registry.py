"""Which attacks there are, in which module each is, and what each can ascend. Modules are imported at first use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isce.attacks.base import Found, Problem
    from isce.config import AttackSpec


class _Attack(NamedTuple):
    family: str
    objectives: tuple[str, ...]
    random: bool


_OWN = ("training", "matched")
_ATTACKS = {
    "bim": _Attack("third_party", _OWN, random=False),
    "fgsm": _Attack("third_party", _OWN, random=False),
    "matched": _Attack("matched", ("training", "matched", "ce", "margin", "dlr", "targeted"), random=True),
    "pgd": _Attack("third_party", _OWN, random=True),
    "search": _Attack("black_box", ("margin",), random=True),
}


def names() -> list[str]:
    """Names of all attacks."""
    return sorted(_ATTACKS)


def family(name: str) -> str:
    """Name of the module inside ``isce.attacks`` that holds an attack, as a function of the attack's name.

    Raises:
        ValueError: unknown name.
    """
    if name not in _ATTACKS:
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(names())}")
    return _ATTACKS[name].family


def objectives(attack: str) -> tuple[str, ...]:
    """Names of the functions that an attack can ascend."""
    return _ATTACKS[attack].objectives


def random(attack: str) -> bool:
    """Whether an attack draws a random start, so that restarts make a difference."""
    return _ATTACKS[attack].random


def load(attack: str) -> Callable[[AttackSpec, Problem, int], Found]:
    """The function that runs one restart of an attack."""
    return getattr(import_module(f"isce.attacks.{family(attack)}"), attack)
