"""Records that no run made, for tests of what is done with records."""

from __future__ import annotations

from typing import Any

from isce.runs.records import Provenance, Record

PROVENANCE: dict[str, Any] = dict.fromkeys(("python", "machine", "device", "created"), "")


def record(kind: str, run: str, *, provenance: dict[str, Any] | None = None, **fields: Any) -> Record:
    """Return a record of the experiment ``made-up``, empty but for the given fields."""
    empty = {"experiment": "made-up", "key": "", "parameters": {}, "results": {}, "data_sha256": ""}
    nothing = PROVENANCE | {"commit": None, "modified": None, "packages": {}, "seconds": 0}
    made = Provenance(**nothing | (provenance or {}))
    return Record.model_validate(empty | {"kind": kind, "run": run, "provenance": made} | fields)
