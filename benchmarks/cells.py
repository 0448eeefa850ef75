"""What the tables of all benchmarks are made of."""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]


def table(caption: str, columns: list[str], rows: list[list[str]], joined: int = 0) -> Table:
    """Table of texts; in ``joined`` leading columns an empty cell goes on with the one above."""
    return {"caption": caption, "columns": columns, "rows": rows, "joined": joined}


def ratio(row: dict[str, Any]) -> str:
    """A ratio with its interval."""
    return f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def measured(found: dict[str, Any]) -> str:
    """The machine and the versions, as a sentence; what belongs to one group is named without it."""
    named = [item for name, value in found["where"].items() for item in _items(name, value)]
    return f"Measured with {', '.join(named)}."


def _items(name: str, value: Any) -> list[str]:
    return [f"{key} {each}" for key, each in value.items()] if isinstance(value, dict) else [f"{name} {value}"]
