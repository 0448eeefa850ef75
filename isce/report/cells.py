"""Accuracies of attack records, by objective and seed: what tables, plots and comparisons are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from isce.attacks.spec import AttackSpec
from isce.evaluation import mean_interval, percent, wilson
from isce.report.key import Key, split_run
from isce.runs.records import Record

NOT_RUN = "not run"


class NotEvaluatedError(ValueError):
    """An accuracy was asked for that an evaluation could not give; the text says so, and why."""


@dataclass(frozen=True)
class Cell:
    """One accuracy of one run.

    Attributes:
        label: label of the objective.
        key: name of the number, without the label.
        seed: training seed.
        accuracy: share in [0, 1]; None where it was not evaluated.
        n: number of images.
        source: name of the record.
        left: whether the accuracy is what remains after a row on survivors and all rows before it, not the strength of
            that row alone.
        part: number of images among which the row was given those left, where its suite says.
        why: reason why there is no accuracy.
    """

    label: str
    key: Key
    seed: str
    accuracy: float | None
    n: int
    source: str
    left: bool = False
    part: int | None = None
    why: str = ""


def label_of(record: Record) -> str:
    """Return the label of the objective of a run."""
    return split_run(record.run)[0]


def cells(name: str, record: Record) -> list[Cell]:
    """Return every accuracy of an attack record; none of a record of another kind.

    The kind ``own`` is the lowest of the rows on the own training loss that are about every image; it was not evaluated
    where one of them was not. Of a network that may reject it is the lowest of such rows that are blind to that. Of one
    that draws at random ``clean``, ``own`` and ``worst`` are means over fresh draws: ``own`` of the attack on one draw,
    ``worst`` of the attack on the mean over draws, or of the former where that leaves less.
    """
    if record.kind != "attack" or "clean" not in record.results:
        return []
    norm = record.parameters["norm"]
    older = record.parameters["suite"]["survivors_only"]  # said for the suite alone, before rows said it
    parts = _parts(record)
    label, seed = split_run(record.run)
    found: list[Cell] = []

    def add(
        key: Key, share: dict[str, Any], figure: str = "accuracy", left: bool = False, part: int | None = None
    ) -> None:
        value, why = share[figure], share.get("why", "")
        found.append(
            Cell(label, key, seed, value if value is None else float(value), share["n"], name, left, part, why)
        )

    drawn = record.results.get("randomised", {"threats": {}})
    add(Key("clean"), drawn.get("clean", record.results["clean"]))
    if "rejection" in record.results:
        add(Key("rejected"), record.results["rejection"]["clean_rejected"])
    for threat, outcome in record.results["threats"].items():
        own, blind = list[dict[str, Any]](), list[dict[str, Any]]()
        for row, share in outcome["attacks"].items():
            key, left = Key.under("attack", threat, norm, row), share.get("survivors", older)
            part = parts.get((row, key.norm or norm)) if left else None
            add(key, share, left=left, part=part)
            if "target_success" in share:
                add(Key.under("hit", threat, norm, row), share, "target_success", left, part)
            if key.on_own_loss and not left and share["n"] == outcome["worst"]["n"]:
                (blind if key.blind else own).append(share)
        if threat in drawn["threats"]:
            means = drawn["threats"][threat]
            add(Key.under("own", threat, norm), means["naive"])
            add(Key.under("worst", threat, norm), min(means.values(), key=lambda share: share["accuracy"]))
            continue
        if own := blind or own:  # one that was not evaluated might have been the lowest
            lowest = min(own, key=lambda share: -1 if share["accuracy"] is None else share["accuracy"])
            add(Key.under("own", threat, norm), lowest)
        add(Key.under("worst", threat, norm), outcome["worst"])
        if "certified" in outcome:
            add(Key.under("certified", threat, norm), outcome["certified"])
    return found


def _parts(record: Record) -> dict[tuple[str, str], int]:
    """Return the number of images of each row, by row and norm, where the record's suite gives the row only a part."""
    suite = record.parameters["suite"]
    parts = [AttackSpec(**row) for row in suite.get("rows", []) if row.get("images") is not None]
    return {(row.label, row.norm or record.parameters["norm"]): row.images for row in parts if row.images}


class Cells:
    """The cells of an experiment, by objective and key.

    Args:
        every: all cells.
        order: labels of the objectives, in the order in which they are shown.
    """

    def __init__(self, every: Iterable[Cell], order: Iterable[str]) -> None:
        self.all = list(every)
        self._by_place: dict[tuple[str, Key], list[Cell]] = {}
        for cell in self.all:
            self._by_place.setdefault((cell.label, cell.key), []).append(cell)
        have = {cell.label for cell in self.all}
        self.labels = [label for label in order if label in have]

    def __iter__(self) -> Iterator[tuple[str, Key, list[Cell]]]:
        """Iterate over label, key and the cells of all seeds."""
        yield from ((label, key, several) for (label, key), several in self._by_place.items())

    def get(self, label: str, key: Key) -> list[Cell]:
        """Return the cells of all seeds; empty if there are none."""
        return self._by_place.get((label, key), [])

    def of_all(self, key: Key) -> list[Cell]:
        """Return the cells of one key, of all objectives and seeds."""
        return [cell for label in self.labels for cell in self.get(label, key)]

    @property
    def keys(self) -> list[Key]:
        """All keys, in the order of the records."""
        return list(dict.fromkeys(key for _, key in self._by_place))

    def shares(self, label: str, key: Key) -> tuple[float, tuple[float, float], float | None] | None:
        """Return mean over seeds, Wilson interval over images, and half-width of the t interval over several seeds.

        Returns:
            Arguments of :func:`isce.evaluation.percent`; None if there are no cells.

        Raises:
            NotEvaluatedError: a seed has no accuracy.
        """
        several = self.get(label, key)
        if not several:
            return None
        half = None
        if len(several) > 1:
            lower, upper = mean_interval(accuracies(several))
            half = (upper - lower) / 2
        return mean(several), wilson_of(several), half

    def percents(self, label: str, key: Key) -> list[float]:
        """Return the three or four results of :meth:`shares` in per cent, with one decimal; none if not run."""
        found = self.shares(label, key)
        if found is None:
            return []
        value, interval, half = found
        return [round(100 * figure, 1) for figure in (value, *interval, *(() if half is None else (half,)))]

    def text(self, label: str, key: Key) -> str:
        """Return :meth:`shares` as text; or that it was not run, or not evaluated and why."""
        try:
            found = self.shares(label, key)
        except NotEvaluatedError as error:
            return str(error)
        return NOT_RUN if found is None else percent(*found)

    @property
    def images(self) -> list[int]:
        """Number of test images that each network met."""
        return [cell.n for cell in self.of_all(Key("clean"))]

    @property
    def seeds(self) -> int:
        """Number of training seeds."""
        return len({cell.seed for cell in self.all})


def accuracies(several: list[Cell]) -> list[float]:
    """Return the accuracy of each seed.

    Raises:
        NotEvaluatedError: a seed has none.
    """
    if reasons := [f"seed {cell.seed}: {cell.why}" for cell in several if cell.accuracy is None]:
        raise NotEvaluatedError(f"not evaluated: {'; '.join(reasons)}")
    return [cell.accuracy for cell in several if cell.accuracy is not None]


def mean(several: list[Cell]) -> float:
    """Return the mean over seeds.

    Raises:
        NotEvaluatedError: there is no seed, or one has no accuracy.
    """
    if not several:
        raise NotEvaluatedError(f"not evaluated: {NOT_RUN}")
    return sum(accuracies(several)) / len(several)


def wilson_of(several: list[Cell]) -> tuple[float, float]:
    """Return the Wilson interval of the mean over seeds: over n images, not seeds times n, as all saw the same images.

    Raises:
        NotEvaluatedError: a seed has no accuracy.
    """
    n = min(cell.n for cell in several)
    return wilson(mean(several) * n, n)
