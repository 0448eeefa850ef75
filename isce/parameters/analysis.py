"""Parameters of one min-max run and of one explain run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from isce.parameters.attack import NamedSuite, check_rows
from isce.parameters.base import RunParameters, check_eps
from isce.strict import Strict


class MinmaxSettings(Strict):
    """What a min-max run and the plan of an experiment's min-max runs both say."""

    norm: Literal["linf", "l2"] = "linf"
    eps: list[float] = Field(min_length=1)
    inference: list[float] = Field(
        default=[0.0, 1.0, 2.0, 5.0, 10.0, 20.0],
        min_length=1,
        description="values of m to hold against the inner maximum",
    )
    images: int | None = Field(default=200, ge=1, description="stratified subset of the test split; None: all")
    steps: int = Field(default=40, ge=1, description="of the projected ascent that measures the inner maximum")
    restarts: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _eps_fits_norm(self) -> Self:
        check_eps(self.norm, self.eps)
        return self


class MinmaxParameters(MinmaxSettings, RunParameters):
    """Parameters of one min-max run."""

    checkpoint: str

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"numpy", "scikit-learn", "statsmodels", "torch"}


class ExplainSettings(Strict):
    """What an explain run and the plan of an experiment's explain runs both say."""

    images: int = Field(default=200, ge=10, le=1000, description="stratified subset of the test split, in one batch")
    steps: int = Field(default=50, ge=1, description="of each ascent and of each adaptive attack")
    gallery_images: int = Field(default=5, ge=1, le=10, description="images to show, each of another class")
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: int = Field(default=1, ge=1)


class ExplainParameters(ExplainSettings, RunParameters):
    """Parameters of one explain run; the ball is l_inf."""

    checkpoint: str
    eps: float = Field(gt=0, le=1)
    gallery: NamedSuite = Field(description="attacks to show, or the name of a file of experiments/suites")

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
