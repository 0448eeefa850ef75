"""The state of an experiment's runs: what is current, stale or not run yet, when and where each was made."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from isce.records import Record

COLUMNS = ["run", "kind", "state", "made (UTC)", "commit", "device", "seconds", "torch", "red flags"]
KINDS = ("train", "attack", "minmax", "explain")


def status(
    wanted: Iterable[tuple[str, str]], records: Iterable[Record], stale: Collection[tuple[str, str]]
) -> tuple[list[str], list[list[str]], str]:
    """One row for each run of the experiment.

    Args:
        wanted: kind and name of every run that the experiment file asks for.
        records: the records at hand.
        stale: kind and name of those whose code or parameters have changed since.

    Returns:
        Columns, rows and caption.
    """
    known = {(record.kind, record.run): record for record in records}
    rows: list[list[str]] = []
    for kind, name in sorted(wanted, key=lambda run: (run[1], KINDS.index(run[0]))):
        record = known.get((kind, name))
        if record is None:
            rows.append([name, kind, "not run yet", *[""] * (len(COLUMNS) - 3)])
            continue
        made = record.provenance
        commit = (made.commit or "none")[:7] + (" (modified)" if made.modified else "")
        state = "stale" if (kind, name) in stale else "current"
        date = made.created[:16].replace("T", " ")
        torch, flags = made.packages.get("torch", "unknown"), ", ".join(record.flags)
        rows.append([name, kind, state, date, commit, made.device, f"{made.seconds:.0f}", torch, flags])
    done = sum(row[2] == "current" for row in rows)
    caption = f"{done} of {len(rows)} runs are current. Seconds are by the clock, with whatever else ran beside them."
    return COLUMNS, rows, caption
