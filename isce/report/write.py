"""From records to what the book shows: numbers, tables and figures of one experiment, each naming its records.

The report folder of an experiment holds ``numbers.json`` (written last), ``tables/*.json`` and ``*.csv``,
``figures/*.svg``, ``*.pdf`` and ``*.json``, ``charts/chooser.json``. The book reads nothing else.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from isce.files import ROOT, RecordError, write_atomic
from isce.report import accuracy as attack_report
from isce.report import claims
from isce.report import claims_tables as claims_report
from isce.report import minmax as minmax_report
from isce.report import status as status_report
from isce.report.cells import Cell, Cells, NotEvaluatedError, cells, label_of, mean
from isce.report.explain import Explained
from isce.report.plots import runs as figures
from isce.report.rows import attacks, by_attack
from isce.runs import executed
from isce.runs import plan as workflow
from isce.runs.experiment import Experiment, load_experiment
from isce.runs.records import EXAMPLES, EXPLAIN, MASKS, NOTEBOOK, Record, read_all
from isce.runs.run import planned_runs


def write(name: str, folder: Path, out: Path) -> bool:
    """Write the report of one experiment; see :meth:`Report.write`."""
    experiment = load_experiment(name)
    keys = {(run.kind, run.name): run.key for run in planned_runs(experiment)}
    return Report(experiment, folder, keys).write(out)


def write_each(folder: Path, out: Path) -> None:
    """Write the reports of all experiments side by side: most of their time goes into the figures.

    Args:
        folder: of the records. Those of an experiment that has no file are named and left out.
        out: of the reports, made if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = _experiments(folder)
    workers = min(len(names), os.cpu_count() or 1)
    if workers < 2:
        for name in names:
            write(name, folder, out)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        for _ in pool.map(write, names, itertools.repeat(folder), itertools.repeat(out)):
            pass


def _experiments(folder: Path) -> list[str]:
    found = sorted({path.relative_to(folder).parts[0] for path in folder.glob("*/*/*/record.json")})
    known = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    for name in set(found) - known:
        sys.stderr.write(f"isce: {folder / name} holds records of an experiment that has no file; left out\n")
    if not found:
        sys.stderr.write(f"isce: {folder} holds no records\n")
    return [name for name in found if name in known]


def _end_with_parent() -> None:
    """Let this worker end if the process that started it is killed: else it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Report:
    """Writes the report of one experiment.

    Args:
        experiment: the experiment file.
        folder: folder of records, holding ``<experiment>/{train,attack}/<run>/record.json``.
        keys: current key of each run by ``(kind, name)``; a record with another key is marked stale.

    Raises:
        isce.files.RecordError: a record is damaged or of another schema version.
    """

    def __init__(self, experiment: Experiment, folder: Path, keys: Mapping[tuple[str, str], str]) -> None:
        self.experiment = experiment
        self.folder, self.keys = folder, keys
        found = read_all(folder / experiment.name)
        self.records = {
            path.relative_to(folder).as_posix(): record
            for path, record in found.items()
            if (record.kind, record.run) in keys
        }
        self.stale = {name for name, record in self.records.items() if record.key != keys[(record.kind, record.run)]}
        # A network whose training diverged has figures of no meaning.
        self.broken = {record.run for record in self.records.values() if "diverged" in record.flags}
        every = [
            cell
            for name, record in self.records.items()
            if record.run not in self.broken
            for cell in cells(name, record)
        ]
        self.cells = Cells(every, [objective.label for objective in experiment.objectives])
        explained = [found for found in self._of_kind("explain") if EXPLAIN in found[2].files]
        self._explained = Explained(explained, folder) if explained else None

    def write(self, out: Path) -> bool:
        """Write the report below ``out``; returns False, and leaves no report, if there is no attack record."""
        target = out / self.experiment.name
        if target.exists():
            shutil.rmtree(target)
        if not self.cells.all:
            return False
        common = (self.experiment, self.cells, self._evidence())
        self._table(target, "results", *attack_report.results(*common))
        self._table(target, "attacks", *attacks(*common))
        for name, table in by_attack(*common).items():
            self._table(target, f"attack-{name}", *table)
        self._table(target, "sweep", *attack_report.sweep(*common))
        chosen = attack_report.chooser(*common) | self._origin("attack")
        compact = json.dumps(chosen, allow_nan=False, separators=(",", ":"))
        write_atomic(target / "charts" / "chooser.json", f"{compact}\n")
        old = {(self.records[name].kind, self.records[name].run) for name in self.stale}
        every = status_report.status(self.experiment.name, self.keys, self.records.values(), old)
        self._table(target, "status", *every, kinds=tuple(sorted({record.kind for record in self.records.values()})))
        drawn = (self.experiment, self.cells, self._evidence(intervals=False))
        self._figure(target, "robust", lambda: attack_report.robust(*drawn), "attack")
        self._figure(target, "readings", lambda: attack_report.readings(*drawn), "attack")
        self._figure(target, "training", self._training, "train")
        self._write_optional(target)
        self._write_notebooks(target)
        write_atomic(target / "flags.txt", "".join(f"{line}\n" for line in self.flags()))
        write_atomic(target / "numbers.json", json.dumps(self.numbers(), indent=1, sort_keys=True) + "\n")
        return True

    def _write_optional(self, target: Path) -> None:
        """What not every experiment has."""
        attacked = [r for r in self.records.values() if r.kind == "attack" and r.run not in self.broken]
        if drawn := attack_report.curves(self.experiment, attacked, self.cells.labels):
            for name, figure in zip(("sweep", "convergence"), drawn, strict=True):
                self._figure(target, name, lambda figure=figure: figure, "attack")
        if paired := attack_report.pairs(self.experiment, self._masks(), self.cells, self._evidence(intervals=False)):
            self._table(target, "pairs", *paired)
        if any(record.flags for record in self.records.values()):
            self._table(target, "flags", *attack_report.flags(self.experiment, self.records.values()))
        if analysed := [found[1:] for found in self._of_kind("minmax")]:
            self._table(target, "bounds", *minmax_report.bounds(analysed), kinds=("minmax",))
            self._table(target, "region", *minmax_report.region(analysed), kinds=("minmax",))
            self._figure(target, "coverage", lambda: minmax_report.coverage(analysed), "minmax")
        evidence = f"Worst case over {attack_report.suites(self.experiment)}. {self._evidence()}"
        judged = claims_report.table(claims.Judge(self.experiment, self.cells, analysed), evidence)
        if judged:
            self._table(target, "verdicts", *judged, kinds=("attack", "minmax"))
            self._table(target, "rules", *claims_report.rules(), kinds=("attack", "minmax"))
        if any(EXAMPLES in record.files for record in self.records.values()):
            self._figure(target, "examples", self._examples, "attack")
        if self._explained:
            for name, table in self._explained.tables():
                self._table(target, name, *table, kinds=("explain",))
            for name, draw, sources in self._explained.figures():
                self._figure(target, name, draw, "explain", sources)

    def _write_notebooks(self, target: Path) -> None:
        """The executed notebooks of the run that the experiment shows, where they are at hand and the records' own."""
        for name, record in self.records.items():
            path = (self.folder / name).with_name(NOTEBOOK)
            if record.run != self.experiment.shown or not path.is_file():
                continue
            if damage := workflow.notebook_damage(path.parent):
                raise RecordError(f"{damage}: `make results` makes it anew, or take it from version control")
            if record.key in path.read_text(encoding="utf-8"):
                place = target / "notebooks" / f"{record.kind}.ipynb"
                write_atomic(place, executed.clean(path, record.kind))
                made = record.provenance
                about = {"run": record.run, "created": made.created, "commit": made.commit, "device": made.device}
                about |= {"seconds": made.seconds, **self._origin(record.kind, names=[name])}
                write_atomic(place.with_suffix(".json"), json.dumps(about, indent=1) + "\n")

    def _masks(self) -> dict[str, dict[str, Any]]:
        """For each run which images are robust at each threat, where its record has the side file."""
        return {
            record.run: {k: v.astype(bool) for k, v in load_file((self.folder / name).parent / MASKS).items()}
            for name, record in self.records.items()
            if MASKS in record.files and record.run not in self.broken
        }

    def _of_kind(self, kind: str) -> list[tuple[str, str, Record]]:
        """Records with their paths and labels, in the order of the experiment file and of the seeds."""
        found = [
            (name, label_of(record), record)
            for name, record in self.records.items()
            if record.kind == kind and record.run not in self.broken
        ]
        order = [objective.label for objective in self.experiment.objectives]
        return sorted(found, key=lambda one: (order.index(one[1]), one[2].run))

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Every number that a sentence may name: key -> value (per cent, or a count), text, sources, stale.

        The value of an accuracy that was not evaluated is None, and its text says why.
        """
        found: dict[str, dict[str, Any]] = {}
        for label, key, several in self.cells:
            try:
                value = 100 * mean(several)
                text = f"{value:.1f}%"
            except NotEvaluatedError as error:
                value, text = None, str(error)
            found[f"{label}.{key}"] = self._number(value, text, _sources(several))
        for name, count in (("n_images", self.cells.images), ("n_seeds", self.cells.seeds)):
            found[name] = self._number(count, f"{count:,}", _sources(self.cells.all))
        main = self.experiment.plans[0].main_eps
        found["eps_main"] = self._number(main, figures.eps_text(main), _sources(self.cells.all))
        explained = self._explained.numbers(self._number) if self._explained else {}
        return found | self._effort() | explained

    def _effort(self) -> dict[str, dict[str, Any]]:
        """How many runs there are, how long they took and on what."""
        hours = sum(record.provenance.seconds for record in self.records.values()) / 3600
        machines = sorted({record.provenance.machine for record in self.records.values()})
        wanted = len(self.keys)
        texts: dict[str, tuple[float, str]] = {
            "runs": (len(self.records), f"{len(self.records)} of {wanted}"),
            "hours": (hours, f"{hours:.1f}"),
            "machines": (len(machines), "; ".join(machines)),
        }
        common = {"source": sorted(self.records), "stale": bool(self.stale)}
        return {name: {"value": value, "text": text, **common} for name, (value, text) in texts.items()}

    def _number(self, value: float | None, text: str, names: list[str]) -> dict[str, Any]:
        return {"value": value, "text": text, "source": names, "stale": bool(self.stale.intersection(names))}

    def _evidence(self, intervals: bool = True) -> str:
        """Images, seeds and red flags for a caption; what brackets and ± mean, unless it says that itself."""
        n, seeds = self.cells.images, self.cells.seeds
        text = f"{n:,} test images, {seeds} training seed{'s' if seeds > 1 else ''}"
        if intervals:
            text += ": mean over seeds" if seeds > 1 else ""
            text += " [Wilson 95% interval over images]"
            text += " ± half-width of the 95% t interval over seeds" if seeds > 1 else ""
        text += "."
        runs: dict[str, int] = {}
        for record in self.records.values():
            for name in record.flags:
                runs[name] = runs.get(name, 0) + 1
        named = ", ".join(f"{name} ({count} run{'s' if count > 1 else ''})" for name, count in sorted(runs.items()))
        return text + (f" RED FLAGS: {named}; the experiment's table of them says where and why." if named else "")

    def flags(self) -> list[str]:
        """Every red flag of the records: kind and run, its name and detail."""
        return [
            f"{record.kind} {record.run}: {name} ({detail})"
            for record in self.records.values()
            for name, detail in record.flags.items()
        ]

    def _training(self) -> tuple[Figure, str, str]:
        histories: dict[str, list[Any]] = {}
        for record in self.records.values():
            if record.kind == "train":
                histories.setdefault(label_of(record), []).extend(record.figures["history"])
        ordered = {label: histories[label] for label in self.cells.labels if label in histories}
        trained = [record for record in self.records.values() if record.kind == "train"]
        seeds = {record.run.rsplit("-s", 1)[1] for record in trained}
        images, held = (max(r.figures[name] for r in trained) for name in ("train_images", "validation_images"))
        caption = (
            f"Training loss on {images:,} images (each objective's own, so heights don't compare) and accuracy on "
            f"{held:,} validation images by epoch; {attack_report.over_seeds(seeds)}."
        )
        alt = "Two line plots by epoch, of training loss and of validation accuracy, for " + ", ".join(ordered) + "."
        return figures.training_curves(ordered), caption, alt

    def _examples(self) -> tuple[Figure, str, str]:
        parts: dict[str, list[np.ndarray]] = {"clean": [], "adversarial": [], "predictions": []}
        titles: list[str] = []
        each, named = max(1, 6 // len(self.cells.labels)), dict[str, None]()
        for label in self.cells.labels:
            first = next(
                name
                for name, record in self.records.items()
                if EXAMPLES in record.files and label_of(record) == label and record.run not in self.broken
            )
            arrays = load_file((self.folder / first).parent / EXAMPLES)
            named[f"'{self.records[first].figures['examples']}'"] = None
            for name, part in parts.items():
                part.append(arrays[name][:each])
            titles += [label] * len(arrays["clean"][:each])
        plan = self.experiment.plans[0]
        caption = (
            f"Test images of the first training seed that were classified right and fell to {', '.join(named)}, an "
            f"attack of {attack_report.suites(self.experiment)}, at {plan.norm} eps {figures.eps_text(plan.eps[-1])}; "
            "under each the predicted class and its softmax probability on the raw logits."
        )
        alt = "Three rows: images, their adversarial versions, and the amplified difference."
        clean, adversarial, predictions = (np.concatenate(part) for part in parts.values())
        return figures.example_images(clean, adversarial, predictions, titles), caption, alt

    def _origin(self, *kinds: str, names: list[str] | None = None) -> dict[str, Any]:
        names = names or sorted(n for n, r in self.records.items() if r.kind in kinds)
        return {
            "sources": names,
            "stale": bool(self.stale.intersection(names)),
            "command": f"make reproduce EXPERIMENT={self.experiment.name}",
            "notebook": f"notebooks/{kinds[0]}.ipynb",
        }

    def _table(
        self,
        target: Path,
        name: str,
        columns: list[str],
        rows: list[list[str]],
        caption: str,
        kinds: tuple[str, ...] = ("attack",),
    ) -> None:
        frame = pd.DataFrame(rows, columns=columns)
        write_atomic(target / "tables" / f"{name}.csv", frame.to_csv(index=False))
        write_atomic(target / "tables" / f"{name}.txt", f"{caption}\n\n{frame.to_string(index=False)}\n")
        table = {"caption": caption, "columns": columns, "rows": rows, "csv": f"{name}.csv", **self._origin(*kinds)}
        write_atomic(target / "tables" / f"{name}.json", json.dumps(table, indent=1) + "\n")

    def _figure(
        self,
        target: Path,
        name: str,
        draw: Callable[[], tuple[Figure, str, str]],
        kind: str,
        sources: list[str] | None = None,
    ) -> None:
        figure, caption, alt = draw()
        for suffix in ("svg", "pdf"):
            write_atomic(target / "figures" / f"{name}.{suffix}", figures.as_bytes(figure, suffix))
        about = {"caption": caption, "alt": alt, **self._origin(kind, names=sources)}
        write_atomic(target / "figures" / f"{name}.json", json.dumps(about, indent=1) + "\n")


def _sources(several: Iterable[Cell]) -> list[str]:
    return sorted({cell.source for cell in several})
