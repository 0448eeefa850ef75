"""Records of one experiment as its report reads them: accuracies, numbers, evidence, red flags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isce.evaluation import percent
from isce.evaluation.saved import load_arrays
from isce.files import RecordError
from isce.report.cells import Cell, Cells, NotEvaluatedError, cells, label_of, mean
from isce.report.explain import Explained
from isce.report.flags import attention
from isce.report.key import MAIN
from isce.report.plots.runs import eps_text
from isce.report.tables import count_range
from isce.runs.experiment import Experiment
from isce.runs.records import EXAMPLES, EXPLAIN, MASKS, Record, read

#: Kinds of numbers that stand for each seed, too.
BY_SEED = ("clean", "own", "worst")


class Source:
    """The records of an experiment.

    Args:
        experiment: the experiment file.
        folder: folder of records, holding ``<experiment>/{train,attack}/<run>/record.json``.
        keys: current key of each run by ``(kind, name)``; a record with another key is stale.
        beside: records of the experiments that it names as ``beside``.

    Attributes:
        records: those of planned runs, by path below ``folder``.
        stale: paths of the stale ones.
        whole: those of runs whose training did not diverge, by path.
        cells: accuracies of these.
        explained: explain records; None where there are none.

    Raises:
        isce.files.RecordError: a record or side file is damaged or of another schema version, or a record is that of
            another run.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        keys: Mapping[tuple[str, str], str],
        beside: Sequence[Source] = (),
    ) -> None:
        self.experiment, self.folder, self.keys, self.beside = experiment, folder, keys, beside
        self.records = dict(self._read())
        self.stale = {name for name, record in self.records.items() if record.key != keys[(record.kind, record.run)]}
        broken = {record.run for record in self.records.values() if "diverged" in record.flags}
        self.whole = {name: record for name, record in self.records.items() if record.run not in broken}
        order = [objective.label for objective in experiment.objectives]
        self.cells = Cells((cell for name, record in self.whole.items() for cell in cells(name, record)), order)
        explained = [found for found in self.of_kind("explain") if EXPLAIN in found[2].files]
        self.explained = Explained(explained, self._side_file) if explained else None

    def _read(self) -> Iterator[tuple[str, Record]]:
        """Yield the record of each planned run from the run's own folder: a copy of it elsewhere is no further seed."""
        for kind, run in sorted(self.keys):
            path = self.folder / self.experiment.name / kind / run / "record.json"
            if path.is_file():
                record = read(path)
                if (record.kind, record.run) != (kind, run):
                    raise RecordError(f"{path} is the record of another run: {record.kind} {record.run}")
                yield path.relative_to(self.folder).as_posix(), record

    def of_kind(self, kind: str) -> list[tuple[str, str, Record]]:
        """Return path, label and record in the order of the experiment file and of the seeds; none that diverged."""
        order = [objective.label for objective in self.experiment.objectives]
        found = [(name, label_of(record), record) for name, record in self.whole.items() if record.kind == kind]
        return sorted(found, key=lambda one: (order.index(one[1]), one[2].run))

    def masks(self) -> dict[str, dict[str, Any]]:
        """Return for each run which images are robust at each threat, where its record has the side file.

        None where the records are of different data, so that their images can't be paired.
        """
        # Of a network that draws at random the masks are those of one draw.
        known = {name: record for name, record in self.whole.items() if "randomised" not in record.results}
        having = {name: record for name, record in known.items() if MASKS in record.files}
        if len({record.data_sha256 for record in having.values()}) > 1:
            return {}
        return {
            record.run: {threat: mask.astype(bool) for threat, mask in self._side_file(name, MASKS).items()}
            for name, record in having.items()
        }

    def examples(self) -> dict[str, tuple[Record, dict[str, np.ndarray]]]:
        """Return for each objective the first record with example images, and these."""
        found: dict[str, tuple[Record, dict[str, np.ndarray]]] = {}
        for name, label, record in self.of_kind("attack"):
            if EXAMPLES in record.files and label not in found:
                found[label] = record, self._side_file(name, EXAMPLES)
        return found

    def _side_file(self, name: str, file: str) -> dict[str, np.ndarray]:
        arrays = load_arrays((self.folder / name).parent / file, self.records[name].files[file])
        return {key: array.numpy() for key, array in arrays.items()}

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Return every number that a sentence may name: key -> value (per cent, or a count), text, sources, stale.

        Clean, own and worst accuracies of several seeds also stand one by one, as ``sce-s1.worst@0.1``.
        The value of an accuracy that was not evaluated is None, and its text says why.
        """
        found: dict[str, dict[str, Any]] = {}
        for label, key, several in self.cells:
            try:
                share = mean(several)
                value, text = 100 * share, percent(share, unit="%")
            except NotEvaluatedError as error:
                value, text = None, str(error)
            found[f"{label}.{key}"] = self._number(value, text, _sources(several))
            if key.kind in BY_SEED and len(several) > 1:
                for cell in several:
                    one = cell.why if cell.accuracy is None else percent(cell.accuracy, unit="%")
                    share = None if cell.accuracy is None else 100 * cell.accuracy
                    found[f"{label}-s{cell.seed}.{key}"] = self._number(share, one, [cell.source])
        for name, counts in (("n_images", self.cells.images), ("n_seeds", [self.cells.seeds])):
            found[name] = self._number(min(counts), count_range(counts), _sources(self.cells.all))
        main = self.experiment.plans[0].main_eps
        found[f"eps_{MAIN}"] = self._number(main, eps_text(main), _sources(self.cells.all))
        return found | self._effort() | (self.explained.numbers(self._number) if self.explained else {})

    def _effort(self) -> dict[str, dict[str, Any]]:
        """Number of runs, their hours and the processors that they ran on."""
        hours = sum(record.provenance.seconds for record in self.records.values()) / 3600
        machines = sorted({record.provenance.machine for record in self.records.values()})
        texts: dict[str, tuple[float, str]] = {
            "runs": (len(self.records), f"{len(self.records)} of {len(self.keys)}"),
            "hours": (hours, f"{hours:.1f}"),
            "machines": (len(machines), "; ".join(machines)),
        }
        return {name: self._number(value, text, sorted(self.records)) for name, (value, text) in texts.items()}

    def _number(self, value: float | None, text: str, names: list[str]) -> dict[str, Any]:
        return {"value": value, "text": text, "source": names, "stale": bool(self.stale.intersection(names))}

    def evidence(self, intervals: bool = True) -> str:
        """Return images, seeds and checks for a caption; with ``intervals`` the meaning of brackets and ±, too."""
        n, seeds = count_range(self.cells.images), self.cells.seeds
        text = f"{n} test images, {seeds} training seed{'s' if seeds > 1 else ''}"
        if intervals:
            text += ": mean over seeds" if seeds > 1 else ""
            text += " [Wilson 95% interval over images]"
            text += " ± half-width of the 95% t interval over seeds (the book prints the wider)" if seeds > 1 else ""
        return f"{text}.{attention(self.records.values())}"

    def origin(self, kinds: tuple[str, ...], names: list[str] | None = None) -> dict[str, Any]:
        """Return what stands below a table or plot: records of these kinds, or the named ones, command and notebook."""
        names = names or sorted(name for name, record in self.records.items() if record.kind in kinds)
        stale = self.stale.union(*(other.stale for other in self.beside))
        experiments = dict.fromkeys(name.partition("/")[0] for name in names) or [self.experiment.name]
        return {
            "sources": names,
            "stale": bool(stale.intersection(names)),
            "command": " && ".join(f"make reproduce EXPERIMENT={name}" for name in experiments),
            "notebook": f"notebooks/{kinds[0]}.ipynb",
        }


def _sources(several: Iterable[Cell]) -> list[str]:
    return sorted({cell.source for cell in several})
