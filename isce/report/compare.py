"""Own records beside the committed ones: does the reproduction agree in its headline numbers and claims?

Runs on other processors differ in their last bits, and training makes that as large as another seed would. So
headline numbers (:mod:`isce.report.headlines`) are compared over seeds, and a claim fails where its verdict is
reversed. What own records lack, or could not evaluate, can't agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isce.evaluation import percent
from isce.report.cells import Cell, cells, mean, wilson_of
from isce.report.claims import Judge, Verdict
from isce.report.differences import CONTRADICTED, SUPPORTED, UNTESTABLE
from isce.report.headlines import apart, headlines
from isce.report.names import reader_name
from isce.report.source import Source
from isce.runs.experiment import load_experiment
from isce.runs.records import Record
from isce.runs.run import planned_runs
from isce.strict import ConfigError

KINDS = ("train", "attack", "minmax")  # what numbers and claims rest on
BITS = (
    "Processors round differently, and training makes that visible: single runs differ between machines, often by\n"
    "points. That is expected; means over seeds must agree within the scatter over seeds."
)
NOT_EVALUATED = "not evaluated"
FATAL = ("attack-failed", "diverged")


def compare(name: str, own: Path, committed: Path, every: bool = False) -> tuple[list[str], bool]:
    """Compare an experiment's own records with the committed ones: lines of text, and whether they agree.

    Args:
        name: of the experiment.
        own: folder of own runs.
        committed: folder of the committed records.
        every: add all cells of all runs, which decide nothing.

    Raises:
        ConfigError: unknown experiment, or a folder without attack records of the experiment.
        isce.files.RecordError: a record is damaged.
    """
    experiment = load_experiment(name)
    keys = {(run.kind, run.name): run.key for run in planned_runs(experiment)}
    ours, theirs = (Source(experiment, folder, keys) for folder in (own, committed))
    for side, command in ((ours, "reproduce"), (theirs, "results")):
        if not any(record.kind == "attack" for record in side.records.values()):
            raise ConfigError(
                f"nothing to compare: no attack record of {name!r} in {side.folder}; "
                f"run `make {command} EXPERIMENT={name}` first"
            )
    faults = lacking(ours, theirs)
    numbers = headlines(ours, theirs, committed)
    claims, same, wrong = judged(ours, theirs)
    faults += [f"the {one.name} {one.fault or apart(one)}" for one in numbers if not one.agrees] + wrong
    agree = bool(numbers) and not faults
    why = "" if agree else f": {'; '.join(faults or ['nothing was compared'])}"
    lines = [f"{name}: the reproduction {'agrees with the committed records' if agree else 'does not agree'}{why}."]
    counts = f"{len(numbers)} headline numbers, of which {sum(one.agrees for one in numbers)} agree"
    lines.append(f"Compared: {counts}, and {len(claims)} claims, of which {same} have the same verdict.")
    if old := len(theirs.stale):
        lines.append(f"{old} of {len(theirs.records)} committed records are stale (other parameters or packages)")
    lines += ["", f"{'headline number':<64} {'own':>6} {'committed':>9} {'p (Holm)':>9}"]
    for one in numbers:
        shown = ("none" if value is None else percent(value) for value in (one.own, one.committed))
        p = "" if one.p is None else f"{one.p:.3f}"
        lines.append(f"{one.name:<64} {next(shown):>6} {next(shown):>9} {p:>9}{'' if one.agrees else '  differs'}")
    lines += ["", f"{'claim':<64} {'own':<14} committed", *claims, "", BITS]
    return [*lines, *(_long(ours, theirs) if every else ["All cells: `make compare ALL=1`."])], agree


def lacking(ours: Source, theirs: Source) -> list[str]:
    """Return what own records lack of the committed ones, by name: missing, stale, failed or diverged ones."""
    have = {(record.kind, record.run): (path, record) for path, record in ours.records.items()}
    found: dict[str, list[str]] = {}
    for record in theirs.records.values():
        path, own = have.get((record.kind, record.run), ("", None))
        raised = [] if own is None else [flag for flag in FATAL if flag in own.flags and flag not in record.flags]
        if record.kind not in KINDS:
            continue
        whys = ["missing"] if own is None else ["stale"] * (path in ours.stale) + [f"flagged {one}" for one in raised]
        for what in whys:
            found.setdefault(what, []).append(f"{record.kind} {record.run}")
    return [f"own records are {what}: {', '.join(names)}" for what, names in found.items()]


def judged(ours: Source, theirs: Source) -> tuple[list[str], int, list[str]]:
    """Compare the verdicts on the claims that the committed records judge.

    A verdict that is weaker or stronger is shown and wrong with nothing: the numbers behind it are compared.

    Returns:
        A line for each; how many verdicts are the same; what is wrong: reversed verdicts, and own ones that are not
        there.
    """
    one, two = (_verdicts(side) for side in (ours, theirs))
    lines: list[str] = []
    wrong: list[str] = []
    same = 0
    for (claim, label), verdict in two.items():
        own = one.get((claim, label))
        name = f"{claim} of {', '.join(map(reader_name, label.split(', ')))}"
        lines.append(f"{name:<64} {own.verdict if own else 'none':<14} {verdict.verdict}")
        same += own is not None and own.verdict == verdict.verdict
        if own is None or (own.verdict == UNTESTABLE and own.ours.startswith(NOT_EVALUATED)):
            wrong.append(f"{name} can't be judged" + (f" ({own.ours})" if own else ""))
        elif {own.verdict, verdict.verdict} == {SUPPORTED, CONTRADICTED}:
            wrong.append(f"{name} is {own.verdict}, committed {verdict.verdict}")
    return lines, same, wrong


def _verdicts(source: Source) -> dict[tuple[str, str], Verdict]:
    """The verdicts that rest on records; C7 rests on a benchmark."""
    analysed = [(label, record) for _, label, record in source.of_kind("minmax")]
    found = Judge(source.experiment, source.cells, analysed, source.masks()).verdicts()
    return {(one.claim, one.label): one for one in found if one.claim != "C7"}


def _long(ours: Source, theirs: Source) -> list[str]:
    """Lines of all cells of all runs."""
    rows = compare_cells(*([r for r in side.records.values() if r.kind == "attack"] for side in (ours, theirs)))
    lines = ["", f"{'run':<24} {'cell':<32} {'own':>6} {'committed':>9}"]
    for row in rows:
        mark = "" if row["agrees"] else f"  {row['why'] or 'apart'}"
        values = ("none" if row[side] is None else f"{row[side]:.1f}" for side in ("ours", "committed"))
        lines.append(f"{row['run']:<24} {row['key']:<32} {next(values):>6} {next(values):>9}{mark}")
    near = sum(row["agrees"] for row in rows)
    return [
        *lines,
        f"{near} of {len(rows)} cells lie within the other's 95% interval over images; this decides nothing",
    ]


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
