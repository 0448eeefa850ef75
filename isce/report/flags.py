"""Severity of each red flag, what it says, and what was done about it.

A *serious* flag could change a reported number; a *note* concerns the line of a single attack, which no worst case
rests on. A name that is not listed here counts as serious.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from isce.report.exhibits import Table
from isce.report.reference import Files
from isce.report.tables import short
from isce.runs.records import Record

SERIOUS, NOTE = "serious", "note"
UPPER = "The number is reported as an upper bound: a stronger attack may lower it."


@dataclass(frozen=True)
class Flag:
    """Say of a red flag how severe it is, what it says, and what was done about it."""

    severity: str
    says: str
    answer: str


FLAGS = {
    "attack-failed": Flag(
        SERIOUS,
        "An attack has no outcome for some images.",
        "Where the worst case rests on them there is no number: tables say 'not evaluated' and why.",
    ),
    "rises-with-eps": Flag(
        SERIOUS,
        "An attack leaves more images robust at a larger eps than at a smaller one.",
        "An image that fell at a smaller eps counts as fallen, so that the worst case does not rise with it.",
    ),
    "random-output": Flag(SERIOUS, "The same images get different logits twice.", UPPER),
    "randomised": Flag(
        SERIOUS,
        "The network draws at random when it is tested; the suite saw it with its draws held fixed.",
        "Accuracies of fixed draws are no robust accuracy of the defence. Means over fresh draws, against an adversary "
        "who averages over draws, stand beside them.",
    ),
    "depends-on-batch": Flag(
        SERIOUS,
        "Images get other logits alone than in a batch.",
        "Networks that use the batch's statistics say so, and their batches stay together; others must not raise it.",
    ),
    "zero-gradient": Flag(
        SERIOUS,
        "The gradient is zero or not finite on many images.",
        f"The suites also attack the margin of the raw logits and search without gradients. {UPPER}",
    ),
    "not-zero-at-large-eps": Flag(
        SERIOUS,
        "Images stand at an eps so large that any image may be shown.",
        "No number of such a record is evidence of robustness.",
    ),
    "more-steps-lower": Flag(SERIOUS, "Four times the steps break images that the suite had left.", UPPER),
    "not-converged": Flag(
        SERIOUS,
        "The adaptive attack still breaks images at its largest number of steps, or was not evaluated there.",
        f"The worst case is over all attacks of the suite and can only be lower than one of them. {UPPER}",
    ),
    "black-box-beats-white-box": Flag(
        SERIOUS,
        "Attacks that see logits alone break what attacks by gradients leave.",
        f"What rows of the suite break counts in the worst case. {UPPER}",
    ),
    "rejects-clean": Flag(
        SERIOUS,
        "The network rejects many clean images.",
        "Rejected images count as handled, so that every accuracy of it is too high: false rejections stand beside.",
    ),
    "diverged": Flag(
        SERIOUS,
        "A loss was not finite, and training stopped.",
        "The run is left out of every number, table of accuracies and figure.",
    ),
    "collapsed": Flag(
        SERIOUS,
        "The trained network decides hardly better than by chance.",
        "The clean accuracy beside each robust accuracy shows it.",
    ),
    "bound violated": Flag(
        SERIOUS,
        "A measured inner maximum lies above its proved bound.",
        "It has no harmless reading: the record's certificates are wrong.",
    ),
    "rejected-points": Flag(
        NOTE,
        "An attack returned points outside the ball or the box, or not finite.",
        "They count as nothing found; where an image then has no outcome, attack-failed is raised too.",
    ),
    "last-worse-than-best": Flag(
        NOTE,
        "The last points of an attack break fewer images than the best that it met.",
        "Every attack counts its best points.",
    ),
    "own-loss-misleads": Flag(
        NOTE,
        "Attacks on the training loss alone leave more images than the whole suite.",
        "We report the worst case, and the attack on the training loss as a line of its own.",
    ),
    "no bound": Flag(
        NOTE,
        "No constant could be proved for the network.",
        "The columns of bound and certificate stay empty; the measured parts stand.",
    ),
}


def severity(name: str) -> str:
    """Return ``serious`` or ``note``; an unknown flag is serious."""
    return FLAGS[name].severity if name in FLAGS else SERIOUS


def serious(records: Iterable[Record]) -> list[str]:
    """Return the serious flags of records, each as kind and run, its name and detail."""
    return [
        f"{record.kind} {record.run}: {name} ({detail})"
        for record in records
        for name, detail in record.flags.items()
        if severity(name) == SERIOUS
    ]


def attention(records: Iterable[Record]) -> str:
    """Return how many checks a caption asks attention for, as a sentence behind others; empty where there are none."""
    count = len(serious(records))
    return f" {count} check{'s' * (count > 1)} need{'s' * (count == 1)} attention." if count else ""


def found(experiment: str, records: Iterable[Record]) -> Table:
    """Return every red flag of an experiment's records, the serious ones first."""
    rows = [
        [f"{record.kind} {record.run}", name, severity(name), short(detail)]
        for record in records
        for name, detail in sorted(record.flags.items())
    ]
    rows.sort(key=lambda row: row[2] != SERIOUS)
    caption = (
        f"Every red flag of the records of '{experiment}'. Serious ones could change a number; notes concern one "
        "attack. The page of red flags says what each means and what we did about it."
    )
    return Table(columns=["run", "flag", "severity", "detail"], rows=rows, caption=caption)


def answers(files: Files) -> Table:
    """Return every flag with its severity, what it says, what was done about it, and how many records raise it."""
    counts: Counter[str] = Counter()
    for path in sorted(files.report.glob("*/tables/flags.json")):
        files.note(path)
        about = json.loads(path.read_text(encoding="utf-8"))
        counts.update(row[about["columns"].index("flag")] for row in about["rows"])
    rows = [[name, flag.severity, str(counts[name]), flag.says, flag.answer] for name, flag in FLAGS.items()]
    caption = "Every red flag: how severe it is, in how many records it stands, what it says and what we did about it."
    return Table(columns=["flag", "severity", "records", "it says", "what we did"], rows=rows, caption=caption)
