"""Accuracies of attack records, by objective and seed: what tables, figures and comparisons are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from isce.attacks.spec import AttackSpec
from isce.evaluation import mean_interval, wilson
from isce.parameters.training import ObjectiveSpec
from isce.runs.records import Record

NOT_RUN = "not run"


class NotEvaluatedError(ValueError):
    """An accuracy was asked for that an evaluation could not give; the text says so, and why."""


@dataclass(frozen=True)
class Cell:
    """One accuracy of one run: ``key`` names it as the book does (``clean``, ``worst@0.1``, ...); a share in [0, 1].

    ``accuracy`` is None where it was not evaluated, and ``why`` says why;
    ``left``: it is what remains after a row on survivors and all rows before it, not that row's own strength;
    ``part``: of how many images that row was given what was left, where its suite says.
    """

    label: str
    key: str
    seed: str
    accuracy: float | None
    n: int
    source: str
    left: bool = False
    part: int | None = None
    why: str = ""


def label_of(record: Record) -> str:
    """Label of the objective of a run."""
    if record.kind == "train":
        return ObjectiveSpec(**record.parameters["objective"]).label
    return record.run.rsplit("-s", 1)[0]


def at(threat: str, norm: str) -> str:
    """How keys name a threat: ``@0.1`` for an eps of the experiment's own norm, ``@l0@20`` for another threat model."""
    own, _, eps = threat.partition("@")
    return f"@{float(eps):g}" if own == norm else f"@{threat}"


def cells(name: str, record: Record) -> list[Cell]:
    """Every accuracy of an attack record; none of a record of another kind.

    Keys: ``clean``; for each threat ``attack:<row>@...``, for a targeted row ``hit:<row>@...`` (its target success),
    ``own@...`` (the lowest of the rows on the own training loss that are about every image; not evaluated where one of
    them was not), ``worst@...``.
    """
    if record.kind != "attack" or "clean" not in record.figures:
        return []
    norm = record.parameters["norm"]
    older = record.parameters["suite"]["survivors_only"]  # said for the suite alone, before rows said it
    parts = _parts(record)
    label, seed = record.run.rsplit("-s", 1)
    found: list[Cell] = []

    def add(
        key: str, share: dict[str, Any], figure: str = "accuracy", left: bool = False, part: int | None = None
    ) -> None:
        value, why = share[figure], share.get("why", "")
        found.append(
            Cell(label, key, seed, value if value is None else float(value), share["n"], name, left, part, why)
        )

    add("clean", record.figures["clean"])
    for threat, outcome in record.figures["threats"].items():
        where, own = at(threat, norm), list[dict[str, Any]]()
        for row, share in outcome["attacks"].items():
            left = share.get("survivors", older)
            part = parts.get((row, threat.partition("@")[0])) if left else None
            add(f"attack:{row}{where}", share, left=left, part=part)
            if "target_success" in share:
                add(f"hit:{row}{where}", share, "target_success", left, part)
            if row.endswith("-training") and not left and share["n"] == outcome["worst"]["n"]:
                own.append(share)
        if own:  # one that was not evaluated might have been the lowest
            add(f"own{where}", min(own, key=lambda share: -1 if share["accuracy"] is None else share["accuracy"]))
        add(f"worst{where}", outcome["worst"])
    return found


def _parts(record: Record) -> dict[tuple[str, str], int]:
    """How many images the rows are about that the record's suite gives a part of them, by row and norm."""
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
        self._by_place: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.all:
            self._by_place.setdefault((cell.label, cell.key), []).append(cell)
        have = {cell.label for cell in self.all}
        self.labels = [label for label in order if label in have]

    def __iter__(self) -> Iterator[tuple[str, str, list[Cell]]]:
        """Label, key and the cells of all seeds."""
        yield from ((label, key, several) for (label, key), several in self._by_place.items())

    def get(self, label: str, key: str) -> list[Cell]:
        """The cells of all seeds; empty if there are none."""
        return self._by_place.get((label, key), [])

    @property
    def keys(self) -> list[str]:
        """All keys, in the order of the records."""
        return list(dict.fromkeys(key for _, key in self._by_place))

    def percents(self, label: str, key: str) -> list[float]:
        """Mean over seeds, the Wilson interval over images, and the half-width of the interval over several seeds.

        Returns:
            Three or four figures in per cent; none if there are no cells.

        Raises:
            NotEvaluatedError: a seed has no accuracy.
        """
        several = self.get(label, key)
        if not several:
            return []
        found = [100 * mean(several), *(100 * bound for bound in wilson_of(several))]
        if len(several) > 1:
            lower, upper = mean_interval(accuracies(several))
            found.append(50 * (upper - lower))
        return found

    def text(self, label: str, key: str) -> str:
        """What :meth:`percents` returns, in words; or that it was not run, or not evaluated and why."""
        try:
            found = self.percents(label, key)
        except NotEvaluatedError as error:
            return str(error)
        if not found:
            return NOT_RUN
        value, low, high, *half = found
        return f"{value:.1f} [{low:.1f}, {high:.1f}]" + "".join(f" ±{width:.1f}" for width in half)

    @property
    def images(self) -> int:
        """Most images behind one cell."""
        return max(cell.n for cell in self.all)

    @property
    def seeds(self) -> int:
        """How many training seeds there are."""
        return len({cell.seed for cell in self.all})


def accuracies(several: list[Cell]) -> list[float]:
    """The accuracy of each seed.

    Raises:
        NotEvaluatedError: a seed has none.
    """
    if reasons := [f"seed {cell.seed}: {cell.why}" for cell in several if cell.accuracy is None]:
        raise NotEvaluatedError(f"not evaluated: {'; '.join(reasons)}")
    return [cell.accuracy for cell in several if cell.accuracy is not None]


def mean(several: list[Cell]) -> float:
    """Mean over seeds.

    Raises:
        NotEvaluatedError: a seed has no accuracy.
    """
    return sum(accuracies(several)) / len(several)


def wilson_of(several: list[Cell]) -> tuple[float, float]:
    """Wilson interval of the mean over seeds, which all saw the same images: so over n images, not seeds times n.

    Raises:
        NotEvaluatedError: a seed has no accuracy.
    """
    n = min(cell.n for cell in several)
    return wilson(mean(several) * n, n)
