"""Accuracy under corruptions that no adversary chooses, by network and severity."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from isce.evaluation import percent
from isce.report.exhibits import Table
from isce.report.names import reader_name
from isce.runs.records import Record


def table(attacked: Iterable[tuple[str, str, Record]], evidence: str) -> Table | None:
    """Tabulate the accuracy by network and corruption, mildest first; None: no record holds any.

    Args:
        attacked: path, label and record of each attack run of an experiment.
        evidence: for the caption.
    """
    having = [one for one in attacked if "corruptions" in one[2].results]
    found: dict[str, list[Record]] = {}
    for _, label, record in having:
        found.setdefault(label, []).append(record)
    rows, names = list[list[str]](), list[str]()
    for label, several in found.items():
        by_name: dict[str, list[str]] = {}
        for shares in zip(*(record.results["corruptions"] for record in several), strict=True):
            mean = percent(fmean(share["accuracy"] for share in shares))
            by_name.setdefault(shares[0]["name"], []).append(mean)
        clean = percent(fmean(record.results["clean"]["accuracy"] for record in several))
        names = list(by_name)
        rows.append([reader_name(label), clean, *(" / ".join(texts) for texts in by_name.values())])
    if not rows:
        return None
    caption = f"Accuracy (%) on corrupted test images, three severities from mild to strong. {evidence}"
    return Table(
        columns=["network", "clean", *names], rows=rows, caption=caption, sources=[name for name, *_ in having]
    )
