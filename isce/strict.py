"""Strictly checked values: models that refuse what they don't know, files of YAML, one readable error for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

#: YAML 1.1, which PyYAML and papermill read, takes a number such as ``1e-3`` for text.
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """Reads numbers in exponent notation as numbers, as YAML 1.2 does, and refuses a name that stands twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; PyYAML itself would take the last of several values without a word."""
        node = super().compose_mapping_node(anchor)
        names = [name.value for name, _ in node.value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.MarkedYAMLError(problem=f"{twice!r} stands twice in a mapping", problem_mark=node.start_mark)
        return node


Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def read_exponents(value: Any) -> Any:
    """Turn every text that spells a number in exponent notation into that number, in lists and mappings too."""
    if isinstance(value, str):
        return float(value) if _NUMBER.match(value) else value
    if isinstance(value, list):
        return [read_exponents(item) for item in value]
    if isinstance(value, dict):
        return {name: read_exponents(item) for name, item in value.items()}
    return value


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


def check_known(value: str, kind: str, names: list[str]) -> str:
    """The value, if it is one of the known names; else a :class:`ValueError` that lists them."""
    if value not in names:
        raise ValueError(f"unknown {kind} {value!r}; known: {', '.join(names)}")
    return value


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

    ``kind`` says in errors what the file holds. ``expand`` is applied to its values before they are checked.

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

    papermill sets a name that the notebook doesn't know as one more variable and goes on; here it is refused. The
    namespace is ``globals()`` of the notebook.

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
