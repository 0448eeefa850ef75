"""A run's folder: which files it has, and whether they are whole.

A process that only starts a kernel imports this module and no package that computes: that takes seconds for each run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isce.files import sha256
from isce.runs import records
from isce.runs.records import NOTEBOOK
from isce.strict import ConfigError, read_yaml

CHECKPOINT = "last.safetensors"
LOCK = ".lock"  #: whoever holds this lock writes in the folder, and nobody else
NOTEBOOK_HASH = "notebook.sha256"


def damage(path: Path) -> str | None:
    """What is wrong with the side files of a record: one missing or changed; or None.

    Raises:
        isce.files.RecordError: the record itself is damaged.
    """
    for name, digest in records.read(path).files.items():
        side = path.parent / name
        if not side.is_file():
            return f"{side} is missing"
        if sha256(side) != digest:
            return f"{side} is damaged (its hash differs from the record's)"
    return None


def notebook_damage(folder: Path) -> str | None:
    """What is wrong with the executed notebook, or None. No record can hold its hash: it holds the record's making."""
    notebook, digest = folder / NOTEBOOK, folder / NOTEBOOK_HASH
    if not digest.is_file():
        return None
    if not notebook.is_file():
        return f"{notebook} is missing"
    if sha256(notebook) != digest.read_text(encoding="utf-8"):
        return f"{notebook} is damaged (its hash differs from {NOTEBOOK_HASH})"
    return None


def read_params(params: Path) -> dict[str, Any]:
    """A run's ``params.yaml``; raises ConfigError where it can't be read or holds no key."""
    values = read_yaml(params)
    if "key" not in values:
        raise ConfigError(f"{params} has no key: it was not written by this workflow")
    return values
