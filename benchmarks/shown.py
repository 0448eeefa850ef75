"""Tables of the benchmarks for the book: each script writes its own into its JSON file, beside the raw values."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import costs
import networks
from cells import Table

from isce.files import write_atomic


def save(path: Path, found: dict[str, Any], *names: str) -> None:
    """Write the values of a benchmark and its tables as JSON.

    Args:
        path: the file.
        found: raw values, with ``where``: machine and versions.
        names: of the tables, each a function below.
    """
    made = {name: TABLES[name](found) for name in names}
    shown = {name if "columns" in each else "numbers": each for name, each in made.items()}
    whole = found | {"shown": shown}
    write_atomic(path, json.dumps(whole, indent=2) + "\n")


def where(*packages: str) -> dict[str, Any]:
    """Say on which machine one thread computed, with which versions."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"device": platform.machine(), "threads": 1, "python": platform.python_version(), **versions}


TABLES: dict[str, Callable[[dict[str, Any]], Table]] = {
    name: made
    for module in (costs, networks)
    for name, made in vars(module).items()
    if getattr(made, "__module__", None) == module.__name__ and not name.startswith("_")
}
