"""Attack suites as data: one row for each attack and its budget, and the parameters of one attack run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from isce.attacks.registry import about
from isce.attacks.registry import names as attack_names
from isce.attacks.threat import Norm, Threat
from isce.config import ROOT, ConfigError, RunParameters, Strict, check_eps, check_known, load_named, read_yaml


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
    images: int | None = Field(default=None, ge=1, description="attack a stratified subset of so many images")
    seconds: float | None = Field(
        default=None, gt=0, description="stop a package's attack after so long; its row is then flagged"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_attack(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("attack") not in attack_names():
            return values
        attack, filled = about(values["attack"]), dict(values)
        filled.setdefault("objective", attack.objectives[0])
        if len(attack.norms) == 1 and attack.eps is not None:
            filled["norm"] = filled.get("norm") or attack.norms[0]
            filled["eps"] = filled.get("eps") or attack.eps
        if isinstance(given := filled.get("params", {}), Mapping):
            filled["params"] = {**attack.params, **given}
        return filled

    @field_validator("attack")
    @classmethod
    def _attack(cls, value: str) -> str:
        return check_known(value, "attack", attack_names())

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
        if (self.step_size is None) and name == "released":
            raise ValueError("released needs a step_size, in units of pixel values in [0, 1]")
        if (self.source is not None) != (name == "transfer"):
            raise ValueError("source belongs to transfer, which needs one: a training run or a checkpoint")
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
        if self.norm is None and not {"linf", "l2"}.intersection(norms):
            raise ValueError(f"{self.attack} works in {norms[0]} alone: give the row norm and eps")
        _ = self.threat

    @property
    def threat(self) -> Threat | None:
        """The row's own threat model; None: it is run in the evaluation's, at each eps of its grid."""
        return None if self.norm is None or self.eps is None else Threat(self.norm, self.eps)

    @property
    def white_box(self) -> bool:
        """Whether it ascends the network's own gradient, on the evaluation's grid, away from the true class."""
        ascends = about(self.attack).family in ("gradient", "matched") and self.attack != "transfer"
        return ascends and self.threat is None and not self.targeted

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
        return "-".join(parts + [f"{k}{v:g}" for k, v in sorted(changed.items())])


def _source_name(source: str) -> str:
    """Name of a training run, also where its checkpoint is given by a path."""
    path = Path(source)
    return path.parent.name if path.suffix == ".safetensors" else source


class Suite(Strict):
    """A named list of attacks, run in the order given (cheap first)."""

    name: str = Field(json_schema_extra={"decides": False})
    rows: list[AttackSpec] = Field(min_length=1)
    survivors_only: bool = Field(
        default=False, description="a row that doesn't say attacks only what the rows before it left unbroken"
    )

    @model_validator(mode="before")
    @classmethod
    def _rows_say_whom_they_attack(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("rows"), list):
            return values
        return {**values, "rows": _with_survivors(values["rows"], values.get("survivors_only", False))}

    @model_validator(mode="after")
    def _rows_differ(self) -> Self:
        names = [(row.label, row.threat) for row in self.rows]
        twice = sorted({label for label, threat in names if names.count((label, threat)) > 1})
        if twice:
            raise ValueError(f"rows of suite {self.name!r} appear twice: {', '.join(twice)}")
        return self

    def parts(self) -> list[str]:
        """Name the attacks as ``isce.semantics`` does."""
        return [f"attack.{row.attack}" for row in self.rows]

    def packages(self) -> set[str]:
        """Name the packages that the attacks compute with."""
        return set[str]().union(*(about(row.attack).packages for row in self.rows))


class CurvePlan(Strict):
    """Two curves of the matched attack on the margin: accuracy by eps until it is 0, and by number of steps."""

    images: int = Field(default=200, ge=1, description="stratified subset of the evaluation's images")
    sweep_steps: int = Field(default=50, ge=1)
    convergence_eps: float = Field(gt=0)
    convergence_steps: list[int] = Field(default=[10, 50, 200, 1000], min_length=1)

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        steps = self.convergence_steps
        if sorted(set(steps)) != steps or steps[0] < 1:
            raise ValueError(f"convergence_steps must rise strictly from at least 1, got {steps}")
        return self


class AttackParameters(RunParameters):
    """Parameters of one attack run."""

    checkpoint: str
    suite: Suite = Field(description="a suite, or the name of a file of experiments/suites")
    norm: Literal["linf", "l2"] = "linf"
    eps: list[float] = Field(min_length=1)
    images: int | None = Field(default=None, ge=1, description="stratified subset of the test split; None: all")
    seed: int = Field(default=0, ge=0, lt=2**31)
    batch_size: int | None = Field(default=256, ge=1, description="images at once; None: as memory allows, measured")
    threads: int = Field(default=1, ge=1)
    curves: CurvePlan | None = None
    keep_points: bool = Field(default=False, description="save every adversarial example of the worst case")

    @field_validator("suite", mode="before")
    @classmethod
    def _suite_by_name(cls, value: Any) -> Any:
        return load_suite(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_norm(self) -> Self:
        check_eps(self.norm, self.eps)
        check_rows(self.suite, self.norm)
        return self

    def parts(self) -> list[str]:
        """Name the attacks: of the suite, and those behind red flags and curves."""
        return [*self.suite.parts(), "attack.matched", "attack.search"]

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"numpy", "statsmodels", "torch"} | self.suite.packages()


class ExplainParameters(RunParameters):
    """Parameters of one explain run; the ball is l_inf."""

    checkpoint: str
    eps: float = Field(gt=0, le=1)
    images: int = Field(default=200, ge=10, le=1000, description="stratified subset of the test split, in one batch")
    steps: int = Field(default=50, ge=1, description="of each ascent and of each adaptive attack")
    gallery: Suite = Field(description="attacks to show, or the name of a file of experiments/suites")
    gallery_images: int = Field(default=5, ge=1, le=10, description="images to show, each of another class")
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: int = Field(default=1, ge=1)

    @field_validator("gallery", mode="before")
    @classmethod
    def _suite_by_name(cls, value: Any) -> Any:
        return load_suite(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _rows_can_be_shown(self) -> Self:
        check_rows(self.gallery, "linf")
        if any(row.source for row in self.gallery.rows):
            raise ValueError(f"a row of gallery {self.gallery.name!r} has a source; an explain run has one network")
        return self

    def parts(self) -> list[str]:
        """Name the attacks: of the gallery, and the adaptive one."""
        return [*self.gallery.parts(), "attack.matched"]

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"numpy", "scikit-learn", "statsmodels", "torch"} | self.gallery.packages()


def _with_survivors(rows: list[Any], default: Any) -> list[Any]:
    """Rows that don't say whom they attack say so now."""
    plain = [row.model_dump(exclude_none=True) if isinstance(row, AttackSpec) else row for row in rows]
    return [{"survivors": default, **row} if isinstance(row, Mapping) else row for row in plain]


def check_rows(suite: Suite, norm: str) -> None:
    """Refuse a suite with rows that can't be run in a norm, or that have a threat model of their own in that very norm.

    Raises:
        ValueError: names the row and what to do.
    """
    for row in suite.rows:
        norms = about(row.attack).norms
        if row.threat is None and norm not in norms:
            raise ValueError(f"{row.label} doesn't work in {norm}: give the row norm and eps ({', '.join(norms)})")
        if row.threat is not None and row.threat.norm == norm:
            raise ValueError(f"{row.label}: {norm} is the evaluation's own norm: give its eps in the grid")


def load_suite(name: str, root: Path = ROOT) -> Suite:
    """The attack suite ``experiments/suites/<name>.yaml``, checked; an unknown name lists what exists.

    A row ``{include: other}`` stands for all rows of another suite, each attacking whom it does there.

    Raises:
        ConfigError: unknown name, unreadable file, a suite that includes itself, or a value that is not allowed.
    """
    folder = root / "experiments" / "suites"
    return load_named(Suite, name, folder, "suite", lambda values: _expand(values, folder, (name,)))


def _expand(values: Mapping[str, Any], folder: Path, path: tuple[str, ...]) -> dict[str, Any]:
    """A suite's values with included rows in the place of ``include``."""
    rows = values.get("rows")
    if not isinstance(rows, list):
        return dict(values)
    found: list[Any] = []
    for row in rows:
        if not isinstance(row, Mapping) or "include" not in row:
            found.append(row)
            continue
        other, more = row["include"], sorted(set(row) - {"include"})
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        if more or other not in known:
            what = (
                f"has no place for {', '.join(more)}" if more else f"unknown suite {other!r}; known: {', '.join(known)}"
            )
            raise ConfigError(f"suite {path[0]!r}: include {what}")
        if other in path:
            raise ConfigError(f"suite {path[0]!r} includes itself: {' -> '.join([*path, other])}")
        included = _expand(read_yaml(folder / f"{other}.yaml"), folder, (*path, other))
        found += _with_survivors(included["rows"], included.get("survivors_only", False))
    return {**values, "rows": found}
