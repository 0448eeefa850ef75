"""Attack suites as data: one row for each attack and its budget, and the parameters of one attack run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from isce.attacks.spec import AttackSpec, about
from isce.files import ROOT
from isce.parameters.base import RunParameters, check_eps
from isce.strict import ConfigError, Strict, load_named, read_yaml


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
        """Name the attacks as ``isce.parameters.semantics`` does."""
        return [f"attack.{row.attack}" for row in self.rows]

    def packages(self) -> set[str]:
        """Name the packages that the attacks compute with."""
        return set[str]().union(*(about(row.attack).packages for row in self.rows))


NamedSuite = Annotated[Suite, BeforeValidator(lambda value: load_suite(value) if isinstance(value, str) else value)]


class CurvePlan(Strict):
    """Two curves: accuracy by eps until it is 0, and that of the matched attack on the margin by number of steps."""

    images: int = Field(default=200, ge=1, description="of the second: stratified subset of the evaluation's images")
    convergence_eps: float = Field(gt=0)
    convergence_steps: list[int] = Field(default=[10, 50, 250], min_length=1)

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        steps = self.convergence_steps
        if sorted(set(steps)) != steps or steps[0] < 1:
            raise ValueError(f"convergence_steps must rise strictly from at least 1, got {steps}")
        return self


class Draws(Strict):
    """How a classifier that draws at random when it is tested is evaluated; see ``isce.evaluation.randomised``."""

    attack: int = Field(default=16, ge=1, description="draws that the adversary averages over, and chooses points by")
    judge: int = Field(default=64, ge=1, description="fresh draws that every point is judged by")
    steps: int = Field(default=50, ge=1, description="of each of the adversary's two ascents")


class AttackSettings(Strict):
    """What an attack run and the plan of an experiment's attack runs both say."""

    norm: Literal["linf", "l2"] = "linf"
    eps: list[float] = Field(min_length=1)
    images: int | None = Field(default=None, ge=1, description="stratified subset of the test split; None: all")
    seed: int = Field(default=0, ge=0, lt=2**31)
    batch_size: int | None = Field(default=256, ge=1, description="images at once; None: as memory allows, measured")
    threads: int = Field(default=1, ge=1)
    curves: CurvePlan | None = None
    keep_points: bool = Field(default=False, description="save every adversarial example of the worst case")
    certify: Literal["interval", "linear", "lipschitz"] | None = Field(
        default=None,
        json_schema_extra={"neutral": None},
        description="prove images by these bounds first; rows on survivors spare them",
    )
    draws: Draws | None = Field(
        default=None,
        json_schema_extra={"neutral": None},
        description="evaluate the classifier as one that draws at random, beside the suite, which sees one draw",
    )
    corruptions: bool = Field(
        default=False,
        json_schema_extra={"neutral": False},
        description="also measure the accuracy under noise, blur and rotation, which no adversary chooses",
    )

    @model_validator(mode="after")
    def _eps_fits_norm(self) -> Self:
        check_eps(self.norm, self.eps)
        if self.curves is not None:
            check_eps(self.norm, [self.curves.convergence_eps])
        if self.certify is not None and self.certify != "lipschitz" and self.norm != "linf":
            raise ValueError(f"no {self.certify} bounds in {self.norm}; known: linf")
        return self


class AttackParameters(AttackSettings, RunParameters):
    """Parameters of one attack run."""

    checkpoint: str
    suite: NamedSuite = Field(description="a suite, or the name of a file of experiments/suites")
    main_eps: float | None = Field(default=None, description="one of eps, for rows that are main_only; None: the last")

    @model_validator(mode="after")
    def _suite_and_main_eps_fit(self) -> Self:
        check_rows(self.suite, self.norm)
        if self.certify and all(row.threat is not None for row in self.suite.rows):
            raise ValueError(f"certify is about eps, where suite {self.suite.name!r} has no row: each names its own")
        check_main_eps(self.main_eps, self.eps)
        return self

    def parts(self) -> list[str]:
        """Name the attacks: of the suite, and those behind red flags and curves; the bounds; and the draws."""
        more = [f"bounds.{self.certify}"] if self.certify else []
        more += ["attack.pgd", "draws"] if self.draws else []
        return [*self.suite.parts(), "attack.matched", "attack.search", *more]

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        naive = set(about("pgd").packages) if self.draws else set[str]()
        return {"numpy", "statsmodels", "torch"} | self.suite.packages() | naive


def _with_survivors(rows: list[Any], default: Any) -> list[Any]:
    """Rows that don't say whom they attack say so now."""
    plain = [row.model_dump(exclude_none=True) if isinstance(row, AttackSpec) else row for row in rows]
    return [{"survivors": default, **row} if isinstance(row, Mapping) else row for row in plain]


def check_main_eps(main: float | None, eps: list[float]) -> None:
    """Refuse a main eps that is none of the grid (:class:`ValueError`)."""
    if main is not None and main not in eps:
        raise ValueError(f"main_eps must be one of eps {eps}, got {main}")


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
