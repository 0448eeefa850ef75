"""Which attacks there are, in which module each is, and what each needs. Modules are imported at first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from isce.attacks.precision import cast

if TYPE_CHECKING:
    from isce.attacks.base import Found, Problem
    from isce.suites import AttackSpec


class Attack(NamedTuple):
    """What is fixed about an attack.

    Attributes:
        family: module inside ``isce.attacks`` that holds it.
        objectives: functions that it can ascend, the default first; ``own`` where its method fixes that.
        norms: threat models that it works in.
        random: it draws a random start, so that restarts make a difference.
        targeted: whether it can, or can only, be sent after one wrong class.
        steps: it takes a number of steps.
        minimal: it looks for the smallest change, whatever eps is.
        package: whose loop runs it; empty: ours.
        gradients: it needs the gradient of the network that it attacks; otherwise scores alone will do.
        double: its package computes in float64 too; otherwise float64 images and scores are cast to float32 for it.
        eps: the budget in a threat model of its own, where there is only one sensible value.
        params: further parameters, with their defaults.
    """

    family: str
    objectives: tuple[str, ...] = ("own",)
    norms: tuple[str, ...] = ("linf", "l2")
    random: bool = False
    targeted: Literal["no", "may", "must"] = "no"
    steps: bool = True
    minimal: bool = False
    package: str = ""
    gradients: bool = True
    double: bool = True
    eps: float | None = None
    params: Mapping[str, float] = MappingProxyType({})

    @property
    def foreign(self) -> bool:
        """Whether a package's own loop runs it: if it fails, its row is flagged and the evaluation goes on."""
        return bool(self.package)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that it computes with, beside torch; advertorch's L-BFGS attacks call SciPy."""
        return ("advertorch", "scipy") if self.package == "advertorch" else (self.package,) * self.foreign


def _gradient(*norms: str, random: bool = False, steps: bool = True) -> Attack:
    return Attack("gradient", ("training", "matched"), norms, random, targeted="may", steps=steps, package="advertorch")


def _minimal(
    *norms: str,
    targeted: Literal["no", "may", "must"] = "no",
    package: str = "advertorch",
    double: bool = False,
    **params: float,
) -> Attack:
    return Attack(
        "minimum", norms=norms, targeted=targeted, minimal=True, package=package, double=double, params=params
    )


_ATTACKS = {
    "autoattack": Attack("ensemble", steps=False, package="pyautoattack", double=False),
    "bim": _gradient("linf", "l2"),
    "cw": _minimal("l2", targeted="may", confidence=0, search_steps=5, lr=0.01, initial_const=0.01),
    "deepfool": _minimal("linf", "l2", package="foolbox", double=True, candidates=10, overshoot=0.02),
    "fab": _minimal("linf", "l2"),
    "fgsm": _gradient("linf", "l2", steps=False),
    "jsma": Attack("pixels", norms=("l0",), targeted="must", steps=False, package="advertorch", params={"theta": 1}),
    "lbfgs": _minimal("l2", targeted="must", search_steps=5, initial_const=0.01),
    "local-search": Attack("pixels", norms=("l0",), package="advertorch", gradients=False, params={"seeds": 128}),
    "matched": Attack("matched", ("training", "matched", "ce", "margin", "dlr", "targeted"), random=True),
    "mim": _gradient("linf"),  # advertorch's l_2 form divides by the change of each pixel: NaN where there is none
    "pgd": _gradient("linf", "l2", random=True),
    "released": Attack("released", ("training",), norms=("released",), eps=1),
    "search": Attack("black_box", ("margin",), random=True, gradients=False),
    "simba": Attack("queries", ("margin",), norms=("l2",), random=True, gradients=False),
    "single-pixel": Attack("pixels", norms=("l0",), package="advertorch", gradients=False, eps=1),
    "spatial": Attack(
        "deform",
        norms=("spatial",),
        targeted="may",
        package="advertorch",
        double=False,
        eps=1,
        params={"smoothness": 1},
    ),
    "spsa": Attack(
        "queries",
        norms=("linf",),
        package="advertorch",
        gradients=False,
        params={"samples": 128, "delta": 0.01, "lr": 0.01},
    ),
    "transfer": Attack("gradient", ("training", "matched"), ("linf",), package="advertorch", gradients=False),
}


def names() -> list[str]:
    """Names of all attacks."""
    return sorted(_ATTACKS)


def about(name: str) -> Attack:
    """What is fixed about an attack.

    Raises:
        ValueError: unknown name.
    """
    if name not in _ATTACKS:
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(names())}")
    return _ATTACKS[name]


def family(name: str) -> str:
    """Name of the module inside ``isce.attacks`` that holds an attack.

    Raises:
        ValueError: unknown name.
    """
    return about(name).family


def load(name: str) -> Callable[[AttackSpec, Problem, int], Found]:
    """Return the function that runs one restart of an attack; a package's gets images in a precision that it takes."""
    known = about(name)
    attack = getattr(import_module(f"isce.attacks.{known.family}"), name.replace("-", "_"))
    return cast(attack, double=known.double) if known.package else attack
