"""Tables of the judged claims, of the rules that judge them, and of the one rule that was changed after a result."""

from __future__ import annotations

from isce.data.sets import SETS
from isce.report.claims import ONE, Judge
from isce.report.exhibits import Table
from isce.report.names import reader_name
from isce.report.paper import CLAIMS, REPORTS

COLUMNS = ["claim", "experiment (data)", "of", "reported by the paper", "ours", "verdict", "deviation"]
KINDS = ("attack", "minmax")


def verdicts(judge: Judge, evidence: str) -> Table | None:
    """Return the verdicts of an experiment; None where nothing can be judged."""
    rows: list[list[str]] = []
    for verdict in judge.verdicts():
        name, claim = verdict.claim, CLAIMS[verdict.claim]
        where = f"{judge.experiment.name} ({SETS[judge.data].title})"
        where = "benchmarks/losses.py (random images)" if name == "C7" else where
        of = ", ".join(map(reader_name, verdict.label.split(", ")))
        reported = REPORTS.get(name, "no number known")
        rows.append([f"{name} {claim.text}", where, of, reported, verdict.ours, verdict.verdict, claim.differs])
    caption = (
        f"The claims by the records of '{judge.experiment.name}': main eps {judge.eps}; ours in per cent and in "
        "percentage points, with the 95% interval over images in brackets and the half-width of that over seeds after "
        f"±, or the words '{ONE}' where there is one seed. {evidence}"
    )
    return Table(columns=COLUMNS, rows=rows, caption=caption, kinds=KINDS) if rows else None


def rules() -> Table:
    """Return the rules that judge the claims."""
    rows = [[f"{name} {claim.text}", claim.rule, claim.differs] for name, claim in CLAIMS.items()]
    caption = (
        "How each claim is judged. Above and below count only where the 95% intervals over images and over seeds both "
        "bear it out."
    )
    columns = ["claim", "supported if", "what differs from the paper"]
    return Table(columns=columns, rows=rows, caption=caption, kinds=KINDS)


def changed(judge: Judge, evidence: str) -> Table | None:
    """Return the verdicts on C6 under both rules; None where it is not judged."""
    rows = [
        [reader_name(verdict.label), verdict.ours, verdict.first_rule, verdict.verdict]
        for verdict in judge.verdicts()
        if verdict.first_rule
    ]
    caption = f"C6 by the records of '{judge.experiment.name}' under both rules, at eps {judge.eps}. {evidence}"
    columns = ["of", "ours", "first rule", "rule now"]
    return Table(columns=columns, rows=rows, caption=caption, kinds=KINDS) if rows else None
