"""From records to what the book shows: numbers, tables and figures of one experiment, each naming its records.

The report folder of an experiment holds ``numbers.json`` (written last), ``tables/*.json`` and ``*.csv``,
``figures/*.svg``, ``*.pdf`` and ``*.json``. The book reads nothing else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from isce import figures
from isce.config import Experiment, ObjectiveSpec
from isce.evaluation import mean_interval, wilson
from isce.records import EXAMPLES, Record, read_all, write_atomic


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
        self.frame = pd.DataFrame([row for name, record in self.records.items() for row in _rows(name, record)])

    def write(self, out: Path) -> bool:
        """Write the report below ``out``; returns False, and leaves no report, if there is no attack record."""
        target = out / self.experiment.name
        if target.exists():
            shutil.rmtree(target)
        if self.frame.empty:
            return False
        self._table(target, "results", *self._results())
        self._table(target, "sweep", *self._sweep())
        self._figure(target, "robust", self._robust, "attack")
        self._figure(target, "training", self._training, "train")
        if any(EXAMPLES in record.files for record in self.records.values()):
            self._figure(target, "examples", self._examples, "attack")
        write_atomic(target / "numbers.json", json.dumps(self.numbers(), indent=1, sort_keys=True) + "\n")
        return True

    @property
    def labels(self) -> list[str]:
        """Labels of the objectives that have attack records, in the experiment file's order."""
        have = set(self.frame["label"])
        return [o.label for o in self.experiment.objectives if o.label in have]

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Every number that a sentence may name: key -> value (per cent, or a count), text, sources, stale."""
        found: dict[str, dict[str, Any]] = {}
        for (label, key), rows in self.frame.groupby(["label", "key"], sort=False):
            value = 100 * float(rows["accuracy"].mean())
            found[f"{label}.{key}"] = self._number(value, f"{value:.1f}%", rows["source"])
        sources = self.frame["source"]
        counts = {"n_images": self.frame["n"].max(), "n_seeds": self.frame["seed"].nunique()}
        for name, count in counts.items():
            found[name] = self._number(int(count), f"{int(count):,}", sources)
        main = self.experiment.attack.main_eps
        found["eps_main"] = self._number(main, f"{main:g}", sources)
        return found

    def _number(self, value: float, text: str, sources: pd.Series) -> dict[str, Any]:
        names = sorted(set(sources))
        return {"value": value, "text": text, "source": names, "stale": bool(self.stale.intersection(names))}

    def _select(self, label: str, key: str) -> pd.DataFrame:
        return self.frame[(self.frame["label"] == label) & (self.frame["key"] == key)]

    def _cell(self, label: str, key: str) -> str:
        """Mean over seeds, its interval over seeds, and the Wilson interval over images, in per cent."""
        rows = self._select(label, key)
        if rows.empty:
            return "not run"
        accuracies = rows["accuracy"].to_numpy()
        mean, n = float(accuracies.mean()), int(rows["n"].min())
        low, high = wilson(mean * n, n)
        text = f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        if len(accuracies) > 1:
            lower, upper = mean_interval(accuracies)
            text += f" ±{50 * (upper - lower):.1f}"
        return text

    def _results(self) -> tuple[list[str], list[list[str]], str]:
        plan = self.experiment.attack
        at = f"@{plan.main_eps:g}"
        keys = ["clean", *_ordered(self.frame, f"attack:*{at}"), f"worst{at}"]
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
        n, seeds = int(self.frame["n"].max()), int(self.frame["seed"].nunique())
        text = f"{n:,} test images, {seeds} training seed{'s' if seeds > 1 else ''}: mean over seeds"
        text += " [Wilson 95% interval over images]"
        return text + (" ± half-width of the 95% t interval over seeds." if seeds > 1 else ".")

    def _robust(self) -> tuple[Figure, str, str]:
        plan = self.experiment.attack
        rows: list[dict[str, Any]] = []
        for label in self.labels:
            for eps in [0.0, *plan.eps]:
                worst = self._select(label, f"worst@{eps:g}" if eps else "clean")
                own = self._select(label, f"own@{eps:g}" if eps else "clean")
                mean, n = float(worst["accuracy"].mean()), int(worst["n"].min())
                low, high = wilson(mean * n, n)
                row = {"eps": eps, "worst": mean, "own": float(own["accuracy"].mean()), "low": low, "high": high}
                rows.append({"label": label} | {k: v if k == "eps" else 100 * v for k, v in row.items()})
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
        alt = "Two line plots by epoch: training loss falls, validation accuracy rises, for " + ", ".join(ordered)
        return figures.training_curves(ordered), caption, alt

    def _examples(self) -> tuple[Figure, str, str]:
        parts: dict[str, list[np.ndarray]] = {"clean": [], "adversarial": [], "predictions": []}
        titles: list[str] = []
        each = max(1, 9 // len(self.labels))
        for label in self.labels:
            first = next(n for n, r in self.records.items() if EXAMPLES in r.files and _label(r) == label)
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
        alt = "Rows of images, their adversarial versions and the amplified difference; the images look alike."
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

    def _table(self, target: Path, name: str, columns: list[str], rows: list[list[str]], caption: str) -> None:
        frame = pd.DataFrame(rows, columns=columns)
        write_atomic(target / "tables" / f"{name}.csv", frame.to_csv(index=False))
        write_atomic(target / "tables" / f"{name}.txt", f"{caption}\n\n{frame.to_string(index=False)}\n")
        table = {"caption": caption, "columns": columns, "rows": rows, "csv": f"{name}.csv", **self._origin("attack")}
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


def _rows(name: str, record: Record) -> list[dict[str, Any]]:
    """One row for each accuracy of an attack record; ``key`` names it as the book does."""
    if record.kind != "attack" or "clean" not in record.figures:
        return []
    common = {"label": _label(record), "seed": record.run.rsplit("-s", 1)[1], "source": name}
    found = [("clean", record.figures["clean"])]
    for threat, outcome in record.figures["threats"].items():
        eps = f"{float(threat.split('@')[1]):g}"
        found += [(f"attack:{row}@{eps}", cell) for row, cell in outcome["attacks"].items()]
        own = [cell for row, cell in outcome["attacks"].items() if row.endswith("-training")]
        found += [(f"own@{eps}", min(own, key=lambda cell: cell["accuracy"]))] if own else []
        found += [(f"worst@{eps}", outcome["worst"])]
    return [{**common, "key": key, "accuracy": cell["accuracy"], "n": cell["n"]} for key, cell in found]


def _ordered(frame: pd.DataFrame, pattern: str) -> list[str]:
    start, end = pattern.split("*")
    return [k for k in dict.fromkeys(frame["key"]) if k.startswith(start) and k.endswith(end)]


def compare(ours: Sequence[Record], theirs: Sequence[Record]) -> pd.DataFrame:
    """Two sets of attack records of one experiment, cell by cell.

    Args:
        ours: records of this machine.
        theirs: the committed records.

    Returns:
        One row for each accuracy: ``run``, ``key``, ``ours``, ``committed`` (per cent; NaN where one side has none),
        ``agrees``: each lies in the other's Wilson 95% interval over images.
    """
    frames = [
        pd.DataFrame([{"run": r.run, **row} for r in side for row in _rows("", r)], columns=_COMPARED)
        for side in (ours, theirs)
    ]
    both = frames[0].merge(frames[1], on=["run", "key"], how="outer", suffixes=("", "_committed"), sort=False)

    def agrees(row: pd.Series) -> bool:
        if pd.isna(row["accuracy"]) or pd.isna(row["accuracy_committed"]):
            return False
        sides = [(row["accuracy"], row["n"]), (row["accuracy_committed"], row["n_committed"])]
        (one, n_one), (two, n_two) = sides
        low, high = wilson(one * n_one, int(n_one))
        lower, upper = wilson(two * n_two, int(n_two))
        return low <= two <= high and lower <= one <= upper

    return pd.DataFrame(
        {
            "run": both["run"],
            "key": both["key"],
            "ours": 100 * both["accuracy"],
            "committed": 100 * both["accuracy_committed"],
            "agrees": [agrees(row) for _, row in both.iterrows()],
        }
    )


_COMPARED = ["run", "key", "accuracy", "n"]
