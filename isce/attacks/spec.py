"""Which attacks there are, what each needs, and one row of a suite: an attack with its budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from isce.attacks.threat import Norm, Threat
from isce.losses.checks import known
from isce.strict import Strict


class Attack(NamedTuple):
    """What is fixed about an attack.

    Attributes:
        family: its module, in ``isce.attacks`` or, where a package runs its loop, in ``isce.attacks.foreign``.
        objectives: functions that it can ascend, the default first; ``own`` where its method fixes that.
        norms: threat models that it works in.
        random: it draws a random start, so that restarts make a difference.
        targeted: whether it can, or can only, be sent after one wrong class.
        steps: it takes a number of steps.
        minimal: it looks for the smallest change, whatever eps is.
        package: whose loop runs it; empty: ours.
        gradients: it needs the gradient of the network that it attacks; otherwise logits alone will do.
        source: it moves an image by another network's gradient; its row names that network.
        pixel_steps: its row must say a step size, in units of pixel values.
        draws_by_batch: its draws depend on the batch, so the size of the batches decides its results.
        double: its package computes in float64 too; otherwise float64 images and logits are cast to float32 for it.
        eps: the budget in a threat model of its own, where there is only one sensible value.
        params: further parameters, with their defaults.
    """

    family: str
    objectives: tuple[str, ...] = ("own",)
    norms: tuple[Norm, ...] = ("linf", "l2")
    random: bool = False
    targeted: Literal["no", "may", "must"] = "no"
    steps: bool = True
    minimal: bool = False
    package: str = ""
    gradients: bool = True
    source: bool = False
    pixel_steps: bool = False
    draws_by_batch: bool = False
    double: bool = True
    eps: float | None = None
    params: Mapping[str, float] = MappingProxyType({})

    @property
    def foreign(self) -> bool:
        """Whether a package's own loop runs it: if it fails, its row is flagged and the evaluation goes on."""
        return bool(self.package)

    @property
    def module(self) -> str:
        """Full name of the module that holds it; imported at first use, since a package may be missing."""
        return f"isce.attacks.{'foreign.' * self.foreign}{self.family}"

    @property
    def black_box(self) -> bool:
        """Whether logits are all that it gets, of any network."""
        return not (self.gradients or self.source)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that it computes with, beside torch; advertorch's L-BFGS attacks call SciPy."""
        return ("advertorch", "scipy") if self.package == "advertorch" else (self.package,) * self.foreign


def _gradient(*norms: Norm, random: bool = False, steps: bool = True) -> Attack:
    return Attack("gradient", ("training", "matched"), norms, random, targeted="may", steps=steps, package="advertorch")


def _minimal(
    *norms: Norm,
    targeted: Literal["no", "may", "must"] = "no",
    package: str = "advertorch",
    double: bool = False,
    **params: float,
) -> Attack:
    return Attack(
        "minimum", norms=norms, targeted=targeted, minimal=True, package=package, double=double, params=params
    )


_ATTACKS = {
    "autoattack": Attack("ensemble", steps=False, package="pyautoattack", draws_by_batch=True, double=False),
    "bim": _gradient("linf", "l2"),
    "cw": _minimal("l2", targeted="may", confidence=0, search_steps=5, lr=0.01, initial_const=0.01),
    "deepfool": _minimal("linf", "l2", package="foolbox", double=True, candidates=10, overshoot=0.02),
    "fab": _minimal("linf", "l2"),
    "fgsm": _gradient("linf", "l2", steps=False),
    "fmn": Attack("fmn", minimal=True),
    "jsma": Attack("pixels", norms=("l0",), targeted="must", steps=False, package="advertorch", params={"theta": 1}),
    "lbfgs": _minimal("l2", targeted="must", search_steps=5, initial_const=0.01),
    "local-search": Attack("pixels", norms=("l0",), package="advertorch", gradients=False, params={"seeds": 128}),
    "matched": Attack("matched", ("training", "matched", "ce", "margin", "dlr", "targeted"), random=True),
    "mim": _gradient("linf"),  # advertorch's l_2 form divides by the change of each pixel: NaN where there is none
    "nearest": Attack("fmn", minimal=True),
    "pgd": _gradient("linf", "l2", random=True),
    "released": Attack("released", ("training",), norms=("released",), pixel_steps=True, eps=1),
    "search": Attack("search", ("margin",), random=True, gradients=False),
    "simba": Attack("search", ("margin",), norms=("l2",), random=True, gradients=False),
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
    "staged": Attack("staged", random=True),
    "transfer": Attack(
        "gradient", ("training", "matched"), ("linf",), package="advertorch", gradients=False, source=True
    ),
}

#: What further parameters may be: whole numbers from the least on, and numbers above 0; others are at least 0.
_WHOLE = {"candidates": 2, "samples": 1, "search_steps": 1, "seeds": 1}
_POSITIVE = ("delta", "initial_const", "lr", "smoothness", "theta")


def names() -> list[str]:
    """Names of all attacks."""
    return sorted(_ATTACKS)


def about(name: str) -> Attack:
    """What is fixed about an attack.

    Raises:
        ValueError: unknown name.
    """
    return known("attack", name, _ATTACKS)


#: Ends the label of a row that is blind to a network's rejection.
BLIND = "blind"


class AttackSpec(Strict):
    """One row of a suite: an attack, the function it ascends, its budget, and which images it gets."""

    attack: str
    objective: str = Field(default="", description="function it ascends, one of isce.attacks.about(attack).objectives")
    steps: int = Field(default=1, ge=1, description="gradient steps, iterations or queries, as the attack counts them")
    step_size: float | None = Field(
        default=None, gt=0, description="of a step, as a share of eps; for `released` in pixel values of [0, 1]"
    )
    restarts: int = Field(default=1, ge=1)
    targeted: bool = Field(default=False, description="sent after one random wrong class, keyed by seed and image")
    norm: Norm | None = Field(default=None, description="a threat model of its own; None: the evaluation's")
    eps: float | None = Field(default=None, gt=0, description="budget in a threat model of its own")
    params: dict[str, float] = Field(default_factory=dict, description="further parameters of the attack")
    source: str | None = Field(default=None, description="checkpoint, or training run, that `transfer` starts from")
    survivors: bool | None = Field(
        default=None, description="attack only what the rows before left unbroken; None: as the suite says"
    )
    main_only: bool = Field(
        default=False,
        description="run at the evaluation's main eps alone",
        json_schema_extra={"neutral": False},
    )
    images: int | None = Field(default=None, ge=1, description="attack a stratified subset of so many images")
    blind: bool = Field(
        default=False,
        description="attack the logits of the classes alone, of a network that may reject; judged with rejection",
        json_schema_extra={"neutral": False},
    )
    seconds: float | None = Field(
        default=None, gt=0, description="stop a package's attack after so long; its row is then flagged"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_attack(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("attack") not in names():
            return values
        attack, filled = about(values["attack"]), dict(values)
        filled.setdefault("objective", attack.objectives[0])
        if len(attack.norms) == 1 and attack.eps is not None:
            own = {"norm": attack.norms[0], "eps": attack.eps}
            filled |= {name: value for name, value in own.items() if filled.get(name) is None}
        if isinstance(given := filled.get("params", {}), Mapping):
            filled["params"] = {**attack.params, **given}
        return filled

    @field_validator("attack")
    @classmethod
    def _attack(cls, value: str) -> str:
        about(value)
        return value

    @model_validator(mode="after")
    def _fits_attack(self) -> Self:
        attack, name = about(self.attack), self.attack
        if self.objective not in attack.objectives:
            raise ValueError(f"{name} can't ascend {self.objective!r}; known: {', '.join(attack.objectives)}")
        if not attack.steps and (self.steps != 1 or self.step_size is not None):
            raise ValueError(f"{name} takes no number of steps: leave out steps and step_size")
        if self.restarts != 1 and not attack.random:
            raise ValueError(f"{name} has no random start: leave out restarts, got {self.restarts}")
        if self.targeted and attack.targeted == "no":
            raise ValueError(f"{name} can't be targeted")
        if not self.targeted and attack.targeted == "must":
            raise ValueError(f"{name} is always targeted: say targeted: true")
        if unknown := sorted(set(self.params) - set(attack.params)):
            known = ", ".join(attack.params) or "none"
            raise ValueError(f"{name} has no parameter {', '.join(unknown)}; known: {known}")
        for param, value in self.params.items():
            _check_param(f"{name}'s {param}", param, value)
        if self.step_size is None and attack.pixel_steps:
            raise ValueError(f"{name} needs a step_size, in units of pixel values in [0, 1]")
        if (self.source is not None) != attack.source:
            having = ", ".join(one for one in names() if about(one).source)
            raise ValueError(f"source belongs to {having}, which needs one: a training run or a checkpoint")
        if self.seconds is not None and not attack.foreign:
            raise ValueError(f"seconds limits attacks of other packages; {name} counts steps")
        self._check_threat()
        return self

    def _check_threat(self) -> None:
        norms = about(self.attack).norms
        if self.norm is not None and self.norm not in norms:
            raise ValueError(f"{self.attack} doesn't work in {self.norm!r}; known: {', '.join(norms)}")
        if (self.norm is None) != (self.eps is None):
            raise ValueError("norm and eps make a threat model of a row's own: give both, or neither")
        if self.main_only and self.norm is not None:
            raise ValueError("main_only is about the evaluation's grid: leave out norm and eps, or main_only")
        if self.norm is None and not {"linf", "l2"}.intersection(norms):
            raise ValueError(f"{self.attack} works in {norms[0]} alone: give the row norm and eps")
        _ = self.threat

    @property
    def threat(self) -> Threat | None:
        """The row's own threat model; None: it is run in the evaluation's, at each eps of its grid."""
        return None if self.norm is None or self.eps is None else Threat(self.norm, self.eps)

    @property
    def white_box(self) -> bool:
        """Whether it ascends the network's own gradient, all of it, on the evaluation's grid, off the true class."""
        attack = about(self.attack)
        ascends = attack.gradients and "own" not in attack.objectives
        return ascends and self.threat is None and not (self.targeted or self.blind)

    @property
    def label(self) -> str:
        """Name of the row in records and tables, such as ``pgd50-training`` or ``cw100-targeted``."""
        steps = str(self.steps) if about(self.attack).steps else ""
        restarts = f"x{self.restarts}" if self.restarts > 1 else ""
        parts = [f"{self.attack}{steps}{restarts}"]
        parts += [] if self.objective == "own" else [self.objective]
        parts += ["targeted"] if self.targeted else []
        parts += [f"from-{_source_name(self.source)}"] if self.source else []
        parts += [f"step{self.step_size:g}"] if self.step_size is not None else []
        changed = {k: v for k, v in self.params.items() if about(self.attack).params[k] != v}
        parts += [f"{k}{v:g}" for k, v in sorted(changed.items())]
        return "-".join(parts + [BLIND] * self.blind)


def _check_param(what: str, param: str, value: float) -> None:
    """Refuse a parameter with which an attack would do nothing, or something else: images would stand unattacked."""
    least = _WHOLE.get(param)
    if least is not None and not (value >= least and value == int(value)):
        raise ValueError(f"{what} must be a whole number of at least {least}, got {value:g}")
    if param in _POSITIVE and not value > 0:
        raise ValueError(f"{what} must be above 0, got {value:g}")
    if not value >= 0:
        raise ValueError(f"{what} must be at least 0, got {value:g}")


def _source_name(source: str) -> str:
    """Name of a training run, also where its checkpoint is given by a path."""
    path = Path(source)
    return path.parent.name if path.suffix == ".safetensors" else source
