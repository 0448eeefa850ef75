"""From records to what the book shows: numbers, tables and figures of one experiment, each naming its records.

The report folder of an experiment holds ``numbers.json`` (written last), ``tables/*.json`` and ``*.csv``,
``figures/*.svg``, ``*.pdf`` and ``*.json``. The book reads nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from isce import figures, minmax_report
from isce.config import ObjectiveSpec
from isce.evaluation import mean_interval, wilson
from isce.experiments import Experiment
from isce.records import EXAMPLES, Record, read_all, write_atomic


@dataclass(frozen=True)
class Cell:
    """One accuracy of one run: ``key`` names it as the book does (``clean``, ``worst@0.1``, ...); a share in [0, 1]."""

    label: str
    key: str
    seed: str
    accuracy: float
    n: int
    source: str


class Report:
    """Writes the report of one experiment.

    Args:
        experiment: the experiment file.
        folder: folder of records, holding ``<experiment>/{train,attack}/<run>/record.json``.
        keys: current key of each run by ``(kind, name)``; a record with another key is marked stale.

    Raises:
        isce.records.RecordError: a record is damaged or of another schema version.
    """

    def __init__(self, experiment: Experiment, folder: Path, keys: Mapping[tuple[str, str], str]) -> None:
        self.experiment = experiment
        self.folder = folder
        found = read_all(folder / experiment.name)
        self.records = {
            path.relative_to(folder).as_posix(): record
            for path, record in found.items()
            if (record.kind, record.run) in keys
        }
        self.stale = {name for name, record in self.records.items() if record.key != keys[(record.kind, record.run)]}
        self.cells: dict[tuple[str, str], list[Cell]] = {}
        # A network whose training diverged has figures of no meaning.
        self.broken = {record.run for record in self.records.values() if "diverged" in record.flags}
        for name, record in self.records.items():
            for cell in [] if record.run in self.broken else cells(name, record):
                self.cells.setdefault((cell.label, cell.key), []).append(cell)
        self.all = [cell for found in self.cells.values() for cell in found]

    def write(self, out: Path) -> bool:
        """Write the report below ``out``; returns False, and leaves no report, if there is no attack record."""
        target = out / self.experiment.name
        if target.exists():
            shutil.rmtree(target)
        if not self.cells:
            return False
        self._table(target, "results", *self._results())
        self._table(target, "sweep", *self._sweep())
        self._figure(target, "robust", self._robust, "attack")
        self._figure(target, "training", self._training, "train")
        if analysed := self._minmax():
            self._table(target, "bounds", *minmax_report.bounds(analysed), kind="minmax")
            self._table(target, "region", *minmax_report.region(analysed), kind="minmax")
            self._figure(target, "coverage", lambda: minmax_report.coverage(analysed), "minmax")
        if any(EXAMPLES in record.files for record in self.records.values()):
            self._figure(target, "examples", self._examples, "attack")
        write_atomic(target / "flags.txt", "".join(f"{line}\n" for line in self.flags()))
        write_atomic(target / "numbers.json", json.dumps(self.numbers(), indent=1, sort_keys=True) + "\n")
        return True

    def _minmax(self) -> list[tuple[str, Record]]:
        """Min-max records with their labels, in the order of the experiment file and of the seeds."""
        found = [
            (_label(record), record)
            for record in self.records.values()
            if record.kind == "minmax" and record.run not in self.broken
        ]
        order = [objective.label for objective in self.experiment.objectives]
        return sorted(found, key=lambda pair: (order.index(pair[0]), pair[1].run))

    @property
    def labels(self) -> list[str]:
        """Labels of the objectives that have attack records, in the experiment file's order."""
        have = {label for label, _ in self.cells}
        return [o.label for o in self.experiment.objectives if o.label in have]

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Every number that a sentence may name: key -> value (per cent, or a count), text, sources, stale."""
        found: dict[str, dict[str, Any]] = {}
        for (label, key), several in self.cells.items():
            value = 100 * _mean(several)
            found[f"{label}.{key}"] = self._number(value, f"{value:.1f}%", several)
        for name, count in (("n_images", self._images), ("n_seeds", self._seeds)):
            found[name] = self._number(count, f"{count:,}", self.all)
        main = self.experiment.attack.main_eps
        found["eps_main"] = self._number(main, f"{main:g}", self.all)
        return found

    def _number(self, value: float, text: str, several: Iterable[Cell]) -> dict[str, Any]:
        names = sorted({cell.source for cell in several})
        return {"value": value, "text": text, "source": names, "stale": bool(self.stale.intersection(names))}

    @property
    def _images(self) -> int:
        return max(cell.n for cell in self.all)

    @property
    def _seeds(self) -> int:
        return len({cell.seed for cell in self.all})

    def _cell(self, label: str, key: str) -> str:
        """Mean over seeds, the Wilson interval over images, and the half-width of the interval over seeds; per cent."""
        several = self.cells.get((label, key))
        if not several:
            return "not run"
        low, high = _wilson(several)
        text = f"{100 * _mean(several):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        if len(several) > 1:
            lower, upper = mean_interval([cell.accuracy for cell in several])
            text += f" ±{50 * (upper - lower):.1f}"
        return text

    def _results(self) -> tuple[list[str], list[list[str]], str]:
        plan = self.experiment.attack
        at = f"@{plan.main_eps:g}"
        attacks = [k for k in dict.fromkeys(key for _, key in self.cells) if k.startswith("attack:") and k.endswith(at)]
        keys = ["clean", *attacks, f"worst{at}"]
        names = [key.removeprefix("attack:").removesuffix(at) for key in keys]
        columns = ["objective", *(n.replace("worst", "worst case") for n in names)]
        rows = [[label, *(self._cell(label, key) for key in keys)] for label in self.labels]
        caption = (
            f"Accuracy in per cent: clean, and under each attack of suite '{plan.suite}', {plan.norm} eps {at[1:]}."
        )
        return columns, rows, f"{caption} {self._evidence()}"

    def _sweep(self) -> tuple[list[str], list[list[str]], str]:
        plan = self.experiment.attack
        columns = ["objective", "clean", *(f"eps {eps:g}" for eps in plan.eps)]
        keys = ["clean", *(f"worst@{eps:g}" for eps in plan.eps)]
        rows = [[label, *(self._cell(label, key) for key in keys)] for label in self.labels]
        caption = f"Worst-case robust accuracy in per cent over suite '{plan.suite}', {plan.norm}, by eps."
        return columns, rows, f"{caption} {self._evidence()}"

    def _evidence(self) -> str:
        n, seeds = self._images, self._seeds
        text = f"{n:,} test images, {seeds} training seed{'s' if seeds > 1 else ''}: mean over seeds"
        text += " [Wilson 95% interval over images]"
        text += " ± half-width of the 95% t interval over seeds." if seeds > 1 else "."
        return text + "".join(f" FLAG in {line}." for line in self.flags())

    def flags(self) -> list[str]:
        """Every red flag of the records: kind and run, its name and detail."""
        return [
            f"{record.kind} {record.run}: {name} ({detail})"
            for record in self.records.values()
            for name, detail in record.flags.items()
        ]

    def _robust(self) -> tuple[Figure, str, str]:
        plan = self.experiment.attack
        rows: list[dict[str, Any]] = []
        for label in self.labels:
            for eps in [0.0, *plan.eps]:
                worst = self.cells.get((label, f"worst@{eps:g}" if eps else "clean"))
                if worst is None:  # records made before this eps was asked for
                    continue
                own = self.cells.get((label, f"own@{eps:g}" if eps else "clean"), worst)
                low, high = _wilson(worst)
                shares = {"worst": _mean(worst), "own": _mean(own), "low": low, "high": high}
                rows.append({"label": label, "eps": eps} | {name: 100 * share for name, share in shares.items()})
        caption = (
            f"Robust accuracy against eps ({plan.norm}). Solid: worst case over suite '{plan.suite}', with the Wilson "
            "95% interval over images as band. Dashed: the strongest single attack on the objective's own training "
            f"loss. {self._evidence()}"
        )
        frame = pd.DataFrame(rows)
        ends = "; ".join(
            f"{label}: {part['worst'].iloc[0]:.0f}% at eps 0, {part['worst'].iloc[-1]:.0f}% at eps {plan.eps[-1]:g}"
            for label, part in frame.groupby("label", sort=False)
        )
        return figures.robust_accuracy(frame, plan.norm), caption, f"Line plot of accuracy by eps. Worst case: {ends}."

    def _training(self) -> tuple[Figure, str, str]:
        histories: dict[str, list[Any]] = {}
        for record in self.records.values():
            if record.kind == "train":
                histories.setdefault(_label(record), []).extend(record.figures["history"])
        ordered = {label: histories[label] for label in self.labels if label in histories}
        caption = (
            "Training loss (each objective's own, so heights don't compare) and validation accuracy by epoch; mean and "
            "range over seeds."
        )
        alt = "Two line plots by epoch, of training loss and of validation accuracy, for " + ", ".join(ordered) + "."
        return figures.training_curves(ordered), caption, alt

    def _examples(self) -> tuple[Figure, str, str]:
        parts: dict[str, list[np.ndarray]] = {"clean": [], "adversarial": [], "predictions": []}
        titles: list[str] = []
        each = max(1, 6 // len(self.labels))
        for label in self.labels:
            first = next(
                name
                for name, record in self.records.items()
                if EXAMPLES in record.files and _label(record) == label and record.run not in self.broken
            )
            arrays = load_file((self.folder / first).parent / EXAMPLES)
            for name, part in parts.items():
                part.append(arrays[name][:each])
            titles += [label] * len(arrays["clean"][:each])
        plan = self.experiment.attack
        caption = (
            f"Test images of the first seed that were classified right and fell to the last attack of suite "
            f"'{plan.suite}' at {plan.norm} eps {plan.eps[-1]:g}; under each the predicted class and its softmax "
            "probability on the raw logits."
        )
        alt = "Three rows: images, their adversarial versions, and the amplified difference."
        clean, adversarial, predictions = (np.concatenate(part) for part in parts.values())
        return figures.example_images(clean, adversarial, predictions, titles), caption, alt

    def _origin(self, kind: str) -> dict[str, Any]:
        names = sorted(n for n, r in self.records.items() if r.kind == kind)
        return {
            "sources": names,
            "stale": bool(self.stale.intersection(names)),
            "command": f"make reproduce EXPERIMENT={self.experiment.name}",
            "notebook": f"notebooks/{kind}.ipynb",
        }

    def _table(
        self, target: Path, name: str, columns: list[str], rows: list[list[str]], caption: str, kind: str = "attack"
    ) -> None:
        frame = pd.DataFrame(rows, columns=columns)
        write_atomic(target / "tables" / f"{name}.csv", frame.to_csv(index=False))
        write_atomic(target / "tables" / f"{name}.txt", f"{caption}\n\n{frame.to_string(index=False)}\n")
        table = {"caption": caption, "columns": columns, "rows": rows, "csv": f"{name}.csv", **self._origin(kind)}
        write_atomic(target / "tables" / f"{name}.json", json.dumps(table, indent=1) + "\n")

    def _figure(self, target: Path, name: str, draw: Callable[[], tuple[Figure, str, str]], kind: str) -> None:
        figure, caption, alt = draw()
        for suffix in ("svg", "pdf"):
            write_atomic(target / "figures" / f"{name}.{suffix}", figures.as_bytes(figure, suffix))
        about = {"caption": caption, "alt": alt, **self._origin(kind)}
        write_atomic(target / "figures" / f"{name}.json", json.dumps(about, indent=1) + "\n")


def _label(record: Record) -> str:
    if record.kind == "train":
        return ObjectiveSpec(**record.parameters["objective"]).label
    return record.run.rsplit("-s", 1)[0]


def cells(name: str, record: Record) -> list[Cell]:
    """Every accuracy of an attack record; none of a record of another kind."""
    if record.kind != "attack" or "clean" not in record.figures:
        return []
    found = [("clean", record.figures["clean"])]
    alone = not record.parameters["suite"]["survivors_only"]  # otherwise a row's share is not that attack's alone
    for threat, outcome in record.figures["threats"].items():
        eps = f"{float(threat.split('@')[1]):g}"
        own = [share for row, share in outcome["attacks"].items() if row.endswith("-training") and alone]
        found += [(f"attack:{row}@{eps}", share) for row, share in outcome["attacks"].items()]
        found += [(f"own@{eps}", min(own, key=lambda share: share["accuracy"]))] if own else []
        found += [(f"worst@{eps}", outcome["worst"])]
    label, seed = record.run.rsplit("-s", 1)
    return [Cell(label, key, seed, float(share["accuracy"]), int(share["n"]), name) for key, share in found]


def _mean(several: list[Cell]) -> float:
    return sum(cell.accuracy for cell in several) / len(several)


def _wilson(several: list[Cell]) -> tuple[float, float]:
    """Wilson interval of the mean over seeds, which all saw the same images: so over n images, not seeds times n."""
    n = min(cell.n for cell in several)
    return wilson(_mean(several) * n, n)


def compare(ours: Iterable[Record], theirs: Iterable[Record]) -> list[dict[str, Any]]:
    """Two sets of attack records of one experiment, cell by cell.

    Args:
        ours: records of this machine.
        theirs: the committed records.

    Returns:
        One row for each accuracy: ``run``, ``key``, ``ours``, ``committed`` (per cent; None where one side has none),
        ``agrees``: each lies in the other's Wilson 95% interval over images.
    """
    sides = [{(r.run, cell.key): cell for r in side for cell in cells("", r)} for side in (ours, theirs)]
    rows: list[dict[str, Any]] = []
    for run, key in dict.fromkeys([*sides[0], *sides[1]]):
        one, two = (side.get((run, key)) for side in sides)
        values = [None if cell is None else round(100 * cell.accuracy, 2) for cell in (one, two)]
        agrees = one is not None and two is not None and _within(one, two) and _within(two, one)
        rows.append({"run": run, "key": key, "ours": values[0], "committed": values[1], "agrees": agrees})
    return rows


def _within(one: Cell, other: Cell) -> bool:
    low, high = _wilson([other])
    return low <= one.accuracy <= high
