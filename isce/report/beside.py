"""Networks of several experiments in one table, one row each: all losses and defences that met the same attacks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from isce.parameters.training import TrainParameters
from isce.report import curves
from isce.report.cells import NOT_RUN, Cell
from isce.report.exhibits import Plot, Table
from isce.report.key import Key, split_run
from isce.report.names import reader_name
from isce.report.plots import runs as plots
from isce.report.plots.runs import eps_text
from isce.report.source import Source
from isce.report.tables import count_range, eps_grid, suites

ROW = "pgd50-training"  # the attack of the paper's tables


@dataclass(frozen=True)
class Network:
    """One trained network and what attacks leave of it at the main eps.

    Attributes:
        source: records of its experiment.
        label: label of its objective.
        seed: training seed.
        training: its parameters; the same ones in another experiment are the same network.
        diverged: whether the training did, so that nothing was attacked.
        cells: by column; None where an attack was not run.
    """

    source: Source
    label: str
    seed: str
    training: TrainParameters
    diverged: bool
    cells: dict[str, Cell | None]

    def text(self, cell: Cell | None) -> str:
        """Return an accuracy in per cent, or why there is none."""
        if cell is None:
            return "training diverged" if self.diverged else NOT_RUN
        return f"not evaluated: {cell.why}" if cell.accuracy is None else f"{100 * cell.accuracy:.1f}"


class Beside:
    """The networks of an experiment and, after them, those of others that it does not have.

    A network that may reject images, or that draws at random, is left out: its accuracy means something else.

    Args:
        sources: records, of the experiment first.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        plan = sources[0].experiment.plans[0]
        self.norm, self.eps = plan.norm, plan.main_eps
        shared = set.intersection(*(set(eps_grid(source.experiment)) for source in sources)) | {self.eps}
        at = eps_text(self.eps)
        self.own, self.worst = f"PGD-50 at {at}", f"worst case at {at}"
        self._keys = {"clean": Key("clean"), self.own: Key.at("attack", self.eps, ROW)}
        self._keys |= {f"AutoAttack at {at}": Key.at("attack", self.eps, "autoattack")}
        self._keys |= {f"worst case at {eps_text(eps)}": Key.at("worst", eps) for eps in sorted(shared)}
        found: list[Network] = []
        for network in itertools.chain.from_iterable(map(self._networks, sources)):
            known = any(network.training == other.training for other in found)
            if not known and (network.cells[self.own] or network.diverged):
                found.append(network)
        self.networks = found

    def _networks(self, source: Source) -> Iterator[Network]:
        diverged = {record.run for record in source.records.values() if "diverged" in record.flags}
        for run, training in source.experiment.runs():
            label, seed = split_run(run)
            if training.randomised or source.cells.get(label, Key("rejected")):
                continue
            several = {name: source.cells.get(label, key) for name, key in self._keys.items()}
            cells = {name: next((c for c in found if c.seed == seed), None) for name, found in several.items()}
            yield Network(source, label, seed, training, run in diverged, cells)

    @property
    def _records(self) -> list[str]:
        return sorted({cell.source for network in self.networks for cell in network.cells.values() if cell})

    def table(self) -> Table:
        """Return one row for each network."""
        columns = ["loss", "experiment", "seed", "epochs", "learning rate", *self._keys]
        rows = [
            [n.label, n.source.experiment.name, n.seed, str(n.training.epochs), f"{n.training.optimizer.lr:g}"]
            + [n.text(cell) for cell in n.cells.values()]
            for n in self.networks
        ]
        caption = (
            f"Accuracy (%) of every network that PGD-50 attacked, one row each ({self.norm}; headings say eps). PGD-50 "
            "ascends the network's own training loss. AutoAttack was given what all other attacks had left, and its "
            f"number is what remains after it. {self._images}."
        )
        return Table(columns=columns, rows=rows, caption=caption, sources=self._records)

    def plot(self) -> Plot:
        """Plot PGD-50 on the training loss against the worst case, a row of dots for each loss."""
        values: dict[str, list[tuple[float, float]]] = {}
        for network in self.networks:
            if not network.diverged:
                pair = (_percent(network.cells[self.own]), _percent(network.cells[self.worst]))
                values.setdefault(network.label, []).append(pair)
        means = {label: fmean(worst for _, worst in pairs) for label, pairs in values.items()}
        order = sorted(means, key=lambda label: (math.isnan(means[label]), -means[label]))
        rows = [{"label": label, "own": own, "worst": worst} for label in order for own, worst in values[label]]
        caption = (
            f"Accuracy at {self.norm} eps {eps_text(self.eps)}, by falling worst case: PGD-50 on the training loss "
            f"(hollow, mean over seeds), worst case of each seed (filled). {self._images}."
        )
        told = "; ".join(f"{reader_name(label)}: {curves.end(means[label])}" for label in order)
        alt = f"A row of dots for each loss. Mean worst case: {told}."
        figure = plots.seeds(pd.DataFrame(rows), "accuracy (%)", own="PGD-50 on the training loss, mean")
        return Plot(figure=figure, caption=caption, alt=alt, sources=self._records)

    @property
    def _images(self) -> str:
        n = [cell.n for network in self.networks for cell in network.cells.values() if cell]
        shown = {network.source.experiment.name: network.source.experiment for network in self.networks}
        met = "; ".join(f"{name}: {suites(experiment)}" for name, experiment in shown.items())
        seeds: dict[str, set[str]] = {}
        for network in self.networks:
            seeds.setdefault(network.label, set()).add(network.seed)
        return (
            f"Worst case over the suites of each experiment ({met}). {count_range(n)} test images, "
            f"{count_range(map(len, seeds.values()))} training seeds of each loss"
        )


def _percent(cell: Cell | None) -> float:
    return math.nan if cell is None or cell.accuracy is None else 100 * cell.accuracy
