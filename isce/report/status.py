"""The state of an experiment's runs: what is current, stale or not run yet, when and where each was made."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from isce.report.exhibits import Table
from isce.runs.records import Record

COLUMNS = ["run", "kind", "state", "made (UTC)", "commit", "device", "seconds", "torch", "red flags"]
KINDS = ("train", "attack", "minmax", "explain")


def status(
    name: str, wanted: Iterable[tuple[str, str]], records: Iterable[Record], stale: Collection[tuple[str, str]]
) -> Table:
    """Return one row for each run of the experiment.

    Args:
        name: of the experiment.
        wanted: kind and name of every run that the experiment file asks for.
        records: the records at hand.
        stale: kind and name of those whose key has changed since.
    """
    records = list(records)
    known = {(record.kind, record.run): record for record in records}
    rows: list[list[str]] = []
    for kind, run in sorted(wanted, key=lambda one: (one[1], KINDS.index(one[0]))):
        record = known.get((kind, run))
        if record is None:
            rows.append([run, kind, "not run yet", *[""] * (len(COLUMNS) - 3)])
            continue
        made = record.provenance
        commit = (made.commit or "none")[:7] + (" (modified)" if made.modified else "")
        state = "stale" if (kind, run) in stale else "current"
        date = made.created[:16].replace("T", " ")
        torch, flags = made.packages.get("torch", "unknown"), ", ".join(record.flags)
        rows.append([run, kind, state, date, commit, made.device, f"{made.seconds:.0f}", torch, flags])
    done = sum(row[2] == "current" for row in rows)
    caption = (
        f"{done} of the {len(rows)} runs of '{name}' are current. Seconds are by the clock, with whatever else ran "
        "beside them."
    )
    kinds = tuple(sorted({record.kind for record in records}))
    return Table(columns=COLUMNS, rows=rows, caption=caption, kinds=kinds)
