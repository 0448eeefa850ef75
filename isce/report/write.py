"""From records to what the book shows: numbers, tables and plots of one experiment, each naming its records.

The report folder of an experiment holds ``numbers.json`` (written last), ``tables/*.json`` and ``*.csv``,
``plots/*.svg``, ``*.pdf`` and ``*.json``, ``charts/chooser.json``, of explain records ``charts/gallery.json`` and
``.png``. The book reads nothing else.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from isce.files import ROOT, RecordError, write_atomic
from isce.report import certified, claims, corruptions, curves, flags, minmax, randomised, tables, verdicts
from isce.report.beside import Beside
from isce.report.chooser import chooser
from isce.report.exhibits import Plot, Table
from isce.report.gallery import gallery
from isce.report.plots.runs import as_bytes
from isce.report.source import Source
from isce.runs import executed
from isce.runs.experiment import load_experiment
from isce.runs.records import NOTEBOOK, Record
from isce.runs.run import planned_runs
from isce.runs.whole import notebook_damage

#: Table that is written as text, too: ``make reproduce`` prints it at its end.
PRINTED = "results"


def write(name: str, folder: Path, out: Path, only: Collection[str] | None = None) -> bool:
    """Write the report of one experiment below ``out``; see :meth:`Report.write`."""
    return Report(_source(name, folder), out / name).write(only)


def _source(name: str, folder: Path, *, alone: bool = False) -> Source:
    experiment = load_experiment(name)
    keys = {(run.kind, run.name): run.key for run in planned_runs(experiment)}
    beside = [] if alone else [_source(other, folder, alone=True) for other in experiment.beside]
    return Source(experiment, folder, keys, beside)


def draw(name: str, folder: Path, plot: str) -> bytes | None:
    """Return one plot of an experiment's report as SVG; None where the records don't give the plot.

    Args:
        name: of the experiment.
        folder: of the records.
        plot: its name, such as ``robust``.
    """
    source = _source(name, folder)
    make = dict(Report(source, folder).plots()).get(plot) if source.cells.all else None
    return as_bytes(make().figure, "svg") if make else None


def write_each(folder: Path, out: Path) -> None:
    """Write the reports of all experiments side by side, for the book: with the plots alone that its pages show.

    Args:
        folder: of the records. Those of an experiment that has no file are named and left out.
        out: of the reports, made if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = _experiments(folder)
    shown = [shown_plots(name) for name in names]
    workers = min(len(names), os.cpu_count() or 1)
    if workers < 2:
        for name, only in zip(names, shown, strict=True):
            write(name, folder, out, only)
        return
    # A fork has loaded the packages, which takes longer than most reports; it is safe while no other thread runs.
    start = "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(start), _end_with_parent) as pool:
        for _ in pool.map(write, names, itertools.repeat(folder), itertools.repeat(out), shown):
            pass


def shown_plots(experiment: str) -> set[str]:
    """Return the names of an experiment's plots that the pages of the book ask for."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "book").rglob("*.md") if "_build" not in path.parts]
    return {plot for page in pages for plot in re.findall(rf"\{{records-figure\}} {experiment}/(\S+)", page)}


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
        source: records of the experiment.
        target: folder of the report; an older report there is replaced.
    """

    def __init__(self, source: Source, target: Path) -> None:
        self.source, self.target = source, target

    def write(self, only: Collection[str] | None = None) -> bool:
        """Write the report; returns False, and leaves no report, if there is no attack record.

        Args:
            only: names of the plots that are drawn; None: all.
        """
        if self.target.exists():
            shutil.rmtree(self.target)
        if not self.source.cells.all:
            return False
        for name, make in self.tables():
            if table := make():
                self._write_table(name, table)
        for name, make in self.plots():
            if only is None or name in only:
                self._write_plot(name, make())
        chosen = chooser(self.source.experiment, self.source.cells, self.source.evidence())
        self._write_chart("chooser", chosen | self.source.origin(("attack",)))
        if self.source.explained:
            shown, names, picture = gallery(self.source.explained)
            self._write_chart("gallery", shown | self.source.origin(("explain",), names))
            write_atomic(self.target / "charts" / "gallery.png", picture)
        self.write_notebooks()
        write_atomic(
            self.target / "flags.txt", "".join(f"{line}\n" for line in flags.serious(self.source.records.values()))
        )
        self._write_json(self.target / "numbers.json", self.source.numbers(), sort_keys=True)
        return True

    def tables(self) -> Iterator[tuple[str, Callable[[], Table | None]]]:
        """Yield the name of every table that the records allow, with its maker (which may return None)."""
        source, experiment, found = self.source, self.source.experiment, self.source.cells
        evidence, bare = source.evidence(), source.evidence(intervals=False)
        records = list(source.records.values())
        judge = claims.Judge(experiment, found, self._analysed, source.masks())
        old = {(source.records[name].kind, source.records[name].run) for name in source.stale}
        suites = f"Worst case over {tables.suites(experiment)}. {evidence}"
        judged, proved = verdicts.verdicts(judge, suites), certified.exists(found)
        every: list[tuple[str, object, Callable[[], Table | None]]] = [
            ("results", True, lambda: tables.results(experiment, found, evidence)),
            ("attacks", True, lambda: tables.attacks(experiment, found, evidence)),
            ("sweep", True, lambda: tables.sweep(experiment, found, evidence)),
            ("status", True, lambda: tables.status(experiment.name, source.keys, records, old)),
            ("pairs", True, lambda: tables.pairs(experiment, source.masks(), found, bare)),
            ("costs", True, lambda: tables.costs(self._attacked)),
            ("certified", proved, lambda: certified.table(experiment, found, bare)),
            ("randomised", True, lambda: randomised.table(source.of_kind("attack"), bare)),
            ("corruptions", True, lambda: corruptions.table(source.of_kind("attack"), bare)),
            ("flags", any(one.flags for one in records), lambda: flags.found(experiment.name, records)),
            ("bounds", self._analysed, lambda: minmax.bounds(self._analysed)),
            ("region", self._analysed, lambda: minmax.region(self._analysed)),
            ("verdicts", judged, lambda: judged),
            ("rules", judged, verdicts.rules),
            ("changed", judged, lambda: verdicts.changed(judge, suites)),
        ]
        yield from ((name, make) for name, when, make in every if when)
        if self._company:
            yield "all", self._company.table
        for name, table in tables.by_attack(experiment, found, evidence).items():
            yield f"attack-{name}", lambda table=table: table
        for name, table in source.explained.tables() if source.explained else ():
            yield name, lambda table=table: table

    def plots(self) -> Iterator[tuple[str, Callable[[], Plot]]]:
        """Yield the name of every plot that the records allow, with what draws it."""
        source, experiment, found = self.source, self.source.experiment, self.source.cells
        bare, examples = source.evidence(intervals=False), source.examples()
        drawn = curves.curves(experiment, self._attacked, found.labels)
        trained = [record for record in source.records.values() if record.kind == "train"]
        proved = certified.exists(found)
        moved = certified.moved(experiment) if proved else {}
        every: list[tuple[str, object, Callable[[], Plot]]] = [
            ("robust", True, lambda: curves.robust(experiment, found, bare)),
            ("readings", True, lambda: curves.readings(experiment, found, bare)),
            ("seeds", True, lambda: curves.seeds(experiment, found, bare)),
            ("sandwich", proved, lambda: certified.sandwich(experiment, found, bare)),
            ("constants", "m" in moved, lambda: certified.sweep(experiment, found, bare)),
            ("price", len(moved) > 1, lambda: certified.price(experiment, found, bare)),
            ("training", True, lambda: curves.training(trained, found.labels)),
            ("sweep", drawn, lambda: drawn["sweep"]),
            ("convergence", drawn, lambda: drawn["convergence"]),
            ("coverage", self._analysed, lambda: minmax.coverage(self._analysed)),
            ("examples", examples, lambda: curves.examples(experiment, examples)),
        ]
        yield from ((name, make) for name, when, make in every if when)
        if self._company:
            yield "all", self._company.plot
        yield from source.explained.plots() if source.explained else ()

    @functools.cached_property
    def _company(self) -> Beside | None:
        company = Beside([self.source, *self.source.beside]) if self.source.beside else None
        return company if company and any(not network.diverged for network in company.networks) else None

    @functools.cached_property
    def _analysed(self) -> list[tuple[str, Record]]:
        return [(label, record) for _, label, record in self.source.of_kind("minmax")]

    @functools.cached_property
    def _attacked(self) -> list[Record]:
        return [record for record in self.source.whole.values() if record.kind == "attack"]

    def write_notebooks(self) -> None:
        """Write the executed notebooks of the run that the experiment shows, where they are there and current."""
        for name, record in self.source.records.items():
            path = (self.source.folder / name).with_name(NOTEBOOK)
            if record.run != self.source.experiment.shown or not path.is_file():
                continue
            if damage := notebook_damage(path.parent):
                raise RecordError(f"{damage}: `make results` makes it anew, or take it from version control")
            if record.key in path.read_text(encoding="utf-8"):
                place = self.target / "notebooks" / f"{record.kind}.ipynb"
                write_atomic(place, executed.clean(path, record.kind))
                made = record.provenance
                about = {"run": record.run, "created": made.created, "commit": made.commit, "device": made.device}
                about |= {"seconds": made.seconds, **self.source.origin((record.kind,), [name])}
                self._write_json(place.with_suffix(".json"), about)

    def _write_table(self, name: str, table: Table) -> None:
        frame, folder = pd.DataFrame(table.rows, columns=table.columns), self.target / "tables"
        write_atomic(folder / f"{name}.csv", frame.to_csv(index=False))
        if name == PRINTED:
            write_atomic(folder / f"{name}.txt", f"{table.caption}\n\n{frame.to_string(index=False)}\n")
        about = {"caption": table.caption, "columns": table.columns, "rows": table.rows, "csv": f"{name}.csv"}
        self._write_json(folder / f"{name}.json", about | self.source.origin(table.kinds, table.sources))

    def _write_plot(self, name: str, plot: Plot) -> None:
        folder = self.target / "plots"
        for suffix in ("svg", "pdf"):
            write_atomic(folder / f"{name}.{suffix}", as_bytes(plot.figure, suffix))
        about = {"caption": plot.caption, "alt": plot.alt, **self.source.origin(plot.kinds, plot.sources)}
        self._write_json(folder / f"{name}.json", about)

    def _write_chart(self, name: str, content: dict[str, Any]) -> None:
        compact = json.dumps(content, allow_nan=False, separators=(",", ":"))
        write_atomic(self.target / "charts" / f"{name}.json", f"{compact}\n")

    @staticmethod
    def _write_json(path: Path, content: dict[str, Any], *, sort_keys: bool = False) -> None:
        write_atomic(path, json.dumps(content, indent=1, sort_keys=sort_keys) + "\n")
