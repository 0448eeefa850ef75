"""Typed, validated parameters: of one training run, one attack run, one min-max run, one suite.

Notebooks, experiment files and the workflow are all checked with these models, before any work starts. Every model
refuses unknown names, wrong types and values out of range with an error that names the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from isce.exponents import Loader, read_exponents

ROOT = Path(__file__).resolve().parent.parent

Plain = str | int | float | bool | None | list[Any] | dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """Parameters that can't be used; the message names each value and what is allowed."""


class Strict(BaseModel):
    """No unknown names, no NaN, no text for numbers but one in exponent notation, which papermill's ``-y`` hands on."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read_exponents(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        return read_exponents(value) if _takes_float(field.annotation) else value


def _takes_float(annotation: Any) -> bool:
    return annotation is float or any(_takes_float(part) for part in get_args(annotation))


class RunParameters(Strict):
    """Everything that decides the results of one run, given the bytes of the checkpoints that the run works on.

    A field that is added later declares ``json_schema_extra={"neutral": value}``, the value that stands for what the
    code did before: with that value older records stay current. ``{"decides": False}`` marks a field that is a title.
    """

    def parts(self) -> list[str]:
        """Name the parts of the package that the run uses, as ``isce.semantics`` does."""
        return []

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"torch"}


def check_known(value: str, kind: str, names: list[str]) -> str:
    """The value, if it is one of the known names; else a :class:`ValueError` that lists them."""
    if value not in names:
        raise ValueError(f"unknown {kind} {value!r}; known: {', '.join(names)}")
    return value


class ObjectiveSpec(Strict):
    """A training objective by its registry name, with the parameters of ``isce.losses.build``."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("params", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return read_exponents(value)

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        from isce import losses

        check_known(self.name, "objective", losses.names())
        try:
            losses.build(self.name, **self.params)
        except TypeError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def label(self) -> str:
        """Short name of the objective with its parameters, fit for a file name: ``isce-m2``, ``sce``."""
        short = {"inference": "m", "scale": "s"}
        parts = [f"{short.get(key, key)}{_slug(value)}" for key, value in sorted(self.params.items())]
        return "-".join([self.name, *parts])


def _slug(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text)


class OptimizerSpec(Strict):
    """SGD (with momentum) or Adam; ``lr`` is the initial learning rate."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs sgd with momentum above 0")
        return self


class ScheduleSpec(Strict):
    """Learning rate over the run: constant, cosine to 0, or times ``gamma`` at each milestone (share of all steps)."""

    name: Literal["constant", "cosine", "step"] = "cosine"
    milestones: list[float] = Field(default_factory=list)
    gamma: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _milestones_in_order(self) -> Self:
        if any(not 0 < m < 1 for m in self.milestones) or sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones must rise strictly within (0, 1), got {self.milestones}")
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'step', and it needs at least one")
        return self


class AdversarialSpec(Strict):
    """Adversarial training against the l_inf ball, on the objective's matched function; see :mod:`isce.adversarial`.

    * ``pgd`` (Madry et al. 2018): each update on the points that ``steps`` steps of projected ascent from a random
      start reach, on nothing else.
    * ``free`` (Shafahi et al. 2019): each batch is replayed ``steps`` times; every replay updates weights and
      perturbation at once, and the perturbation is carried on, from batch to batch and from epoch to epoch.
    """

    kind: Literal["pgd", "free"]
    eps: float = Field(gt=0, le=1, description="radius, in units of [0, 1]")
    steps: int = Field(ge=1, description="pgd: steps of the inner ascent; free: replays of each batch")
    step_size: float = Field(gt=0, le=1, description="of the ascent, in units of [0, 1]; free: the paper's is eps")

    @property
    def passes(self) -> int:
        """Forward and backward passes over the data in one epoch: with ``pgd`` that of the update counts too."""
        return self.steps + (self.kind == "pgd")


class TrainParameters(RunParameters):
    """Everything that decides the weights of one training run (on one kind of machine and one set of versions)."""

    dataset: str = "digits"
    model: str = "small-cnn"
    embedding_dim: int | None = Field(default=None, ge=2)
    objective: ObjectiveSpec = Field(default_factory=lambda: ObjectiveSpec(name="sce"))
    seed: int = Field(default=0, ge=0, lt=2**31)
    epochs: int = Field(default=30, ge=1, description="walks through the data, however often each batch is replayed")
    batch_size: int = Field(default=64, ge=1)
    train_images: int | None = Field(
        default=None, ge=1, description="stratified subset of the training split; None: all"
    )
    augment: Literal["none", "shift-flip"] = "none"
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec)
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(default=1, ge=1, description="CPU threads; a recorded parameter, since it can change bits")
    adversarial: AdversarialSpec | None = Field(default=None, description="None: standard training")
    normalisation: Literal["channel", "released"] = Field(
        default="channel", description="inside the network: by channel, or as the released script prepares images"
    )
    batch_statistics: bool = Field(
        default=False, description="batch normalisation by the batch at hand in evaluation too, as released"
    )

    def parts(self) -> list[str]:
        """Name the objective, the network and the adversarial training, as ``isce.semantics`` does."""
        adversarial = [f"adversarial.{self.adversarial.kind}"] if self.adversarial else []
        return [f"objective.{self.objective.name}", f"network.{self.model}", *adversarial]

    @property
    def passes(self) -> int:
        """Forward and backward passes over the data in the whole run."""
        return self.epochs * (self.adversarial.passes if self.adversarial else 1)

    @field_validator("dataset")
    @classmethod
    def _dataset(cls, value: str) -> str:
        from isce import data

        return check_known(value, "data set", data.names())

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        from isce import models

        return check_known(value, "model", models.names())

    @model_validator(mode="after")
    def _has_batch_statistics(self) -> Self:
        from isce import models

        if self.batch_statistics:
            models.check_batch_statistics(self.model)
        return self


def check_eps(norm: str, eps: list[float]) -> None:
    """Refuse a grid of eps that doesn't rise strictly within (0, 1] for linf, above 0 for l2 (:class:`ValueError`)."""
    low = [e for e in eps if not e > 0]
    high = [e for e in eps if norm == "linf" and e > 1]
    if low or high:
        allowed = "(0, 1] for linf" if norm == "linf" else "above 0 for l2"
        raise ValueError(f"eps must be {allowed} (images lie in [0, 1]), got {(low + high)[0]}")
    if sorted(set(eps)) != eps:
        raise ValueError(f"eps must rise strictly, got {eps}")
    if len({f"{e:g}" for e in eps}) < len(eps):
        raise ValueError(f"records name an eps by six digits, which must tell them apart, got {eps}")


class MinmaxParameters(RunParameters):
    """Parameters of one min-max run."""

    checkpoint: str
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

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"numpy", "scikit-learn", "statsmodels", "torch"}


def validate(model: type[Model], values: Mapping[str, Any], what: str) -> Model:
    """``model(**values)``, with every complaint of pydantic in one readable :class:`ConfigError`."""
    try:
        return model(**values)
    except ValidationError as error:
        lines = [_complaint(model, e) for e in error.errors()]
        raise ConfigError(f"{what}: " + "; ".join(lines)) from None


def _complaint(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = f"; known: {', '.join(model.model_fields)}" if len(error["loc"]) == 1 else ""
        return f"unknown parameter {where!r}{known}"
    message = str(error["msg"]).removeprefix("Value error, ")
    got = "" if error["type"] in {"missing", "value_error"} else f", got {error['input']!r}"
    return f"{where}: {message}{got}" if where else message


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; its numbers may be in exponent notation (``1e-3``).

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping, got {type(values).__name__}")
    return values


def load_named(
    model: type[Model],
    name: str,
    folder: Path,
    kind: str,
    expand: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
) -> Model:
    """The file ``<name>.yaml`` of a folder, checked with a model; an unknown name lists what the folder has.

    Args:
        model: to check with.
        name: of the file, and of what it holds.
        folder: that has it.
        kind: what it is, for errors.
        expand: applied to the file's values before they are checked.

    Raises:
        ConfigError: unknown name, unreadable file, or a value that is not allowed.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}; known: {', '.join(known) or f'none in {folder}'}")
    loaded = validate(model, expand(read_yaml(folder / f"{name}.yaml")), f"{kind} {name!r}")
    if getattr(loaded, "name", name) != name:
        raise ConfigError(f"{kind} file {name}.yaml names itself {getattr(loaded, 'name', None)!r}")
    return loaded


def from_notebook(model: type[Model], namespace: Mapping[str, Any]) -> Model:
    """Collect and check the parameters of a notebook from its variables, right after the parameter cell.

    papermill sets a name that the notebook doesn't know as one more variable and goes on; here it is refused.

    Args:
        model: parameter model to check with.
        namespace: ``globals()`` of the notebook.

    Raises:
        ConfigError: unknown name, wrong type or value out of range.
    """
    hidden = {"In", "Out", "exit", "quit", "get_ipython", "open", "papermill_runtime"}
    values = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in hidden and _is_plain(value)
    }
    return validate(model, values, "notebook parameters")


def _is_plain(value: Any) -> bool:
    return not isinstance(value, ModuleType) and isinstance(value, str | int | float | bool | list | dict | None)
