"""Tables of the claims' verdicts, and of the rules behind the verdicts."""

from __future__ import annotations

from isce.report.claims import ONE, REPORTED, RULES, Judge, Verdict

CLAIMS = {
    "C1": "SCE fits but is vulnerable: clean and adversarial features are misaligned",
    "C2": "losses that only separate the classes are limited in robustness",
    "C3": "inference information gives inter-class separability",
    "C4": "I-SCE generalises better to adversarial examples",
    "C5": "I-SCE is robust in the min-max framework",
    "C6": "I-SCE is superior to the state of the art under strong adaptive attacks",
    "C7": "I-SCE is extremely easy to implement",
    "C8": "on MNIST 63 points over SCE under untargeted PGD-50",
}
DIFFERS = {
    "C1": "which features and distance the paper means is not known",
    "C2": "the paper's versions of these losses were not at hand",
    "C3": "a measure of ours, on one network of each",
    "C4": "the paper's network and budgets were not at hand",
    "C5": "attacked by ascent: the true maximum is at least as large",
    "C6": "worst case over every attack here, not the paper's choice",
    "C7": "the cost of a step is our addition to the claim",
    "C8": "its eps and network are not stated where we could read it; where SCE keeps over 37% no loss can reach it",
}
DATA = {"digits": "scikit-learn's digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
READINGS = {"isce": "text reading", "isce-released": "released reading"}
REPORTS = {"C8": f"+{100 * REPORTED:g} points (the journal version's abstract)"}
COLUMNS = ["claim", "experiment (data)", "of (reading)", "reported by the paper", "ours", "verdict", "deviation"]


def table(judge: Judge, evidence: str) -> tuple[list[str], list[list[str]], str] | None:
    """Columns, rows and caption for the report; None where nothing can be judged."""
    found = judge.verdicts()
    if not found:
        return None
    caption = (
        f"The claims by the records of '{judge.experiment.name}': main eps {judge.eps}; ours in per cent and in "
        "percentage points, with the 95% interval over images in brackets and the half-width of that over seeds after "
        f"±, or the words '{ONE}' where there is one seed. {evidence}"
    )
    return COLUMNS, [_row(judge, verdict) for verdict in found], caption


def rules() -> tuple[list[str], list[list[str]], str]:
    """Columns, rows and caption of the rules, for the report."""
    rows = [[f"{claim} {CLAIMS[claim]}", rule, DIFFERS[claim]] for claim, rule in RULES.items()]
    caption = (
        "How each claim is judged. An inequality between accuracies counts only where both 95% intervals bear it out; "
        "scatter is measured on one network of each loss and compared as a number."
    )
    return ["claim", "holds if", "what differs from the paper"], rows, caption


def _row(judge: Judge, verdict: Verdict) -> list[str]:
    """The cells of one verdict: those of ``COLUMNS``."""
    name, label = verdict.claim, verdict.label
    where = f"{judge.experiment.name} ({DATA[judge.data]})"
    if name == "C7":
        where = "benchmarks/losses.py (random images)"
    reading = READINGS.get(judge.objectives[label].name if label in judge.objectives else label)
    of = f"{label} ({reading})" if reading else label
    reported = REPORTS.get(name, "no figure at hand")
    return [f"{name} {CLAIMS[name]}", where, of, reported, verdict.ours, verdict.verdict, DIFFERS[name]]
