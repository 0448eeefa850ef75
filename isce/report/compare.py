"""Own records beside the committed ones, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isce.report.cells import Cell, cells, mean, wilson_of
from isce.runs.experiment import load_experiment
from isce.runs.records import Record, read_all
from isce.runs.run import planned_runs
from isce.strict import ConfigError


def compare(name: str, own: Path, committed: Path) -> tuple[list[str], bool]:
    """Compare an experiment's own attack records with the committed ones: lines of text, and whether all cells agree.

    Args:
        name: of the experiment.
        own: folder of own runs.
        committed: folder of the committed records.

    Raises:
        ConfigError: unknown experiment, or a folder without attack records of the experiment.
    """
    keys = {(run.kind, run.name): run.key for run in planned_runs(load_experiment(name))}
    folders = {"reproduce": own, "results": committed}
    sides = [
        [r for r in read_all(folder / name).values() if r.kind == "attack" and (r.kind, r.run) in keys]
        for folder in folders.values()
    ]
    for side, (command, folder) in zip(sides, folders.items(), strict=True):
        if not side:
            raise ConfigError(
                f"nothing to compare: no attack record of {name!r} in {folder}; "
                f"run `make {command} EXPERIMENT={name}` first"
            )
    lines: list[str] = []
    for side, whose in zip(sides, ("own", "committed"), strict=True):
        old = sum(record.key != keys[record.kind, record.run] for record in side)
        if old:
            lines.append(f"{old} of {len(side)} {whose} records are stale (other parameters, packages or semantics)")
    rows = compare_cells(*sides)
    lines.append(f"{'run':<24} {'cell':<32} {'ours':>6} {'committed':>9}")
    for row in rows:
        mark = "" if row["agrees"] else f"  {row['why'] or 'differs'}"
        values = ("none" if row[side] is None else f"{row[side]:.1f}" for side in ("ours", "committed"))
        lines.append(f"{row['run']:<24} {row['key']:<32} {next(values):>6} {next(values):>9}{mark}")
    agree = sum(row["agrees"] for row in rows)
    lines.append(f"{agree} of {len(rows)} cells agree within their 95% intervals over images")
    return lines, agree == len(rows)


def compare_cells(ours: Iterable[Record], theirs: Iterable[Record]) -> list[dict[str, Any]]:
    """Two sets of attack records of one experiment, cell by cell.

    Args:
        ours: records of this machine.
        theirs: the committed records.

    Returns:
        One row for each accuracy: ``run``, ``key``, ``ours``, ``committed`` (per cent; None where one side has none),
        ``why`` a side that has the cell was not evaluated, else empty, and ``agrees``: each lies in the other's Wilson
        95% interval over images.
    """
    sides = [{(r.run, str(cell.key)): cell for r in side for cell in cells("", r)} for side in (ours, theirs)]
    rows: list[dict[str, Any]] = []
    for run, key in dict.fromkeys([*sides[0], *sides[1]]):
        one, two = (side.get((run, key)) for side in sides)
        known = {"ours": one, "committed": two}
        row: dict[str, Any] = {"run": run, "key": key}
        row |= {
            side: None if c is None or c.accuracy is None else round(100 * c.accuracy, 2) for side, c in known.items()
        }
        reasons = [
            f"{side} not evaluated: {c.why}" for side, c in known.items() if c is not None and c.accuracy is None
        ]
        agrees = one is not None and two is not None and not reasons and _within(one, two) and _within(two, one)
        rows.append(row | {"why": "; ".join(reasons), "agrees": agrees})
    return rows


def _within(one: Cell, other: Cell) -> bool:
    low, high = wilson_of([other])
    return low <= mean([one]) <= high
