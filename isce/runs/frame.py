"""Many records as one data frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from isce.runs.records import read_all


def load(folder: Path | str, kind: str | None = None) -> pd.DataFrame:
    """Records below a folder as one data frame.

    Args:
        folder: e.g. ``results`` or ``build/runs/digits``.
        kind: only records of this kind.

    Returns:
        One row for each record: ``path``, ``kind``, ``experiment``, ``run``, ``key``, every parameter and figure that
        is a plain value as ``parameters.<name>`` and ``results.<name>`` (nested names joined by dots), ``flags``
        (their names), ``commit``, ``seconds``.

    Raises:
        RecordError: a record is damaged or of another schema version.
    """
    rows: list[dict[str, Any]] = []
    for path, record in read_all(Path(folder)).items():
        if kind is not None and record.kind != kind:
            continue
        row: dict[str, Any] = {"path": str(path), "kind": record.kind, "experiment": record.experiment}
        row |= {"run": record.run, "key": record.key, "flags": ", ".join(sorted(record.flags))}
        row |= {"commit": record.provenance.commit, "seconds": record.provenance.seconds}
        rows.append(row | _flat(record.parameters, "parameters") | _flat(record.results, "results"))
    return pd.DataFrame(rows)


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}.{name}")
        elif not isinstance(value, list):
            flat[f"{prefix}.{name}"] = value
    return flat
