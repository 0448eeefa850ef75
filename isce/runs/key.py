"""The key of a run: a hash of what decides its results, and so of what makes its record out of date.

In the key: the kind of run, its parameters, the semantics numbers of the parts that it uses, the content of its data
set, the versions of the packages that it computes with, and the keys of the runs whose checkpoints it works on. Not in
the key: source code, names of modules, paths and titles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from isce.files import canonical, sha256
from isce.parameters.base import RunParameters
from isce.parameters.semantics import numbers, versions
from isce.runs.records import Kind


def key(kind: Kind, parameters: RunParameters, data: str, needs: Mapping[str, str]) -> str:
    """Hash what decides the results of a run.

    Args:
        kind: which notebook.
        parameters: of the run.
        data: SHA-256 of the data set.
        needs: key of a training run by the path of its checkpoint, for each path that ``parameters`` name.

    Returns:
        SHA-256, hexadecimal.
    """
    parts = {
        "kind": kind,
        "parameters": deciding(parameters, needs),
        "semantics": numbers([kind, *parameters.parts()]),
        "data": data,
        "packages": versions(sorted(parameters.packages())),
    }
    return sha256(canonical(parts))


def deciding(value: Any, needs: Mapping[str, str]) -> Any:
    """Reduce parameters to what decides results, as plain JSON values.

    Left out: fields marked ``decides: False``, and fields at the value that they declare ``neutral``, which is what
    the code did before the field was there. The path of a checkpoint gives way to the key of its training run.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: deciding(getattr(value, name), needs) for name in fields if _counts(value, name)}
    if isinstance(value, Mapping):
        return {str(name): deciding(one, needs) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [deciding(one, needs) for one in value]
    return needs.get(value, value) if isinstance(value, str) else value


def _counts(model: BaseModel, name: str) -> bool:
    about = type(model).model_fields[name].json_schema_extra
    if not isinstance(about, dict):
        return True
    return about.get("decides", True) is True and ("neutral" not in about or about["neutral"] != getattr(model, name))
