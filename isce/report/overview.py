"""Tables of the book's page of findings: the claims in plain words with their verdicts, and what was not run."""

from __future__ import annotations

import json

from isce.data.sets import SETS
from isce.report.differences import CONTRADICTED
from isce.report.exhibits import Table
from isce.report.reference import Files, each, runs_of

#: The paper's claims as a reader would say them.
CLAIMS = {
    "C1": "Softmax cross-entropy fits its training data and is easy to fool.",
    "C2": "Losses that only separate classes are limited in robustness.",
    "C3": "Inference information separates the classes better.",
    "C4": "I-SCE is more robust than softmax cross-entropy.",
    "C5": "I-SCE is robust in the min-max framework.",
    "C6": "I-SCE beats the state of the art under strong adaptive attacks.",
    "C7": "I-SCE is easy to implement.",
    "C8": "I-SCE gains 63 percentage points on MNIST under 50-step PGD.",
}
#: Experiments whose verdicts stand side by side.
COLUMNS = {
    "mnist": "MNIST",
    "mnist-long": "MNIST, one schedule",
    "digits": "digits",
    "cifar10-small": "CIFAR-10 (small)",
}
#: Experiments that judge a claim against other competitors than the column's: their verdict stands beside it.
BESIDE = {("C6", "digits"): ("digits-defences", "against the defences")}
#: Verdicts in other words where the claim's setting is not known: what was not seen here may be so elsewhere.
WORDS = {("C8", CONTRADICTED): "not reproduced"}


def claims(files: Files) -> Table:
    """Return a row for each claim: what it says, and its verdict by the records of each experiment."""
    found = {name: _verdicts(files, name) for name in COLUMNS}
    rows = [
        [f"{claim}. {text}", *(_shown(files, found[name], claim, name) for name in COLUMNS)]
        for claim, text in CLAIMS.items()
    ]
    caption = "The claims and their verdicts, by data set. Where versions of I-SCE differ each is named."
    return Table(columns=["claim", *COLUMNS.values()], rows=rows, caption=caption)


def _verdicts(files: Files, name: str) -> dict[str, dict[str, str]]:
    """Verdicts of one experiment by claim and then by what it is about."""
    path = files.report / name / "tables" / "verdicts.json"
    files.note(path)
    if not path.is_file():
        return {}
    table = json.loads(path.read_text(encoding="utf-8"))
    claim, about, verdict = (table["columns"].index(column) for column in ("claim", "of", "verdict"))
    found: dict[str, dict[str, str]] = {}
    for row in table["rows"]:
        found.setdefault(row[claim].partition(" ")[0], {})[row[about]] = row[verdict]
    return found


def _shown(files: Files, found: dict[str, dict[str, str]], claim: str, name: str) -> str:
    """Return the verdicts on a claim by an experiment, and by the one that stands beside it."""
    verdicts = {about: WORDS.get((claim, verdict), verdict) for about, verdict in found.get(claim, {}).items()}
    text = _cell(verdicts)
    if (claim, name) not in BESIDE:
        return text
    other, words = BESIDE[claim, name]
    beside = _verdicts(files, other).get(claim)
    return f"{text}; {words}: {_cell(beside)}" if beside else text


def _cell(verdicts: dict[str, str]) -> str:
    """One verdict where all agree, else who has which; "not asked" where the experiment has none."""
    if len(set(verdicts.values())) < 2:
        return next(iter(verdicts.values()), "not asked")
    alike: dict[str, list[str]] = {}
    for about, verdict in verdicts.items():
        alike.setdefault(verdict, []).append(about)
    return "; ".join(f"{', '.join(map(_short, names))}: {verdict}" for verdict, names in alike.items())


def _short(about: str) -> str:
    """``I-SCE (text, m = 2)`` as "text, m = 2": all that differ are versions of I-SCE."""
    return about.removeprefix("I-SCE (").removesuffix(")")


def unrun(files: Files) -> Table:
    """Return every experiment for two CPU cores that lacks runs, with how many of them were done."""
    rows: list[list[str]] = []
    for experiment in each(files):
        numbers, wanted = files.report / experiment.name / "numbers.json", sum(runs_of(experiment).values())
        files.note(numbers)
        done = json.loads(numbers.read_text(encoding="utf-8"))["runs"]["value"] if numbers.is_file() else 0
        # The numbers of `quick` mean nothing.
        if done < wanted and experiment.name != "quick" and experiment.tier != "B":
            rows.append([experiment.title, f"{done:.0f} of {wanted}", f"make reproduce EXPERIMENT={experiment.name}"])
    rows.sort(key=lambda row: row[1].startswith("0"))
    return Table(
        columns=["what", "runs done", "command"], rows=rows, caption="Experiments that are not run, or run in part."
    )


def gpu(files: Files) -> Table:
    """Return every experiment that is meant for a GPU: what its trainings cost, and the command."""
    rows: list[list[str]] = []
    for experiment in each(files):
        if experiment.tier != "B":
            continue
        runs = [run for _, run in experiment.runs()]
        images = sum(run.passes * (run.train_images or SETS[run.dataset].sizes[0]) for run in runs)
        networks = sorted({run.model for run in runs})
        command = f"make reproduce EXPERIMENT={experiment.name} DEVICE=cuda"
        rows.append([experiment.title, f"{len(runs)} x {', '.join(networks)}", f"{images / 1e6:,.0f}", command])
    caption = (
        "Experiments that are not run here. Cost: images that pass through the network, forward and back, in all "
        "trainings of the experiment, in millions."
    )
    return Table(columns=["what", "networks", "million images", "command"], rows=rows, caption=caption)
