"""What an evaluation found, image by image, and the results that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from isce.evaluation.intervals import percent, wilson

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def _no_points() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros((0, 1, 1, 1), dtype=np.float32)


@dataclass(frozen=True)
class Outcome:
    """What one row of a suite did to each image in one threat model; all masks (N,).

    Attributes:
        asked: bool, the row is about this image (all of them, unless the row names a subset).
        attacked: bool, the attack was run on this image (not: misclassified anyway, broken by an earlier row, or left
            when the attack failed).
        broken: bool, classified right but misclassified at the verified point.
        rejected: bool, the attack returned a point outside ball or box, or not finite, or met logits or gradients that
            are not finite; it says nothing of the image unless it broke it all the same.
        last_broken: bool, broken by the attack's last point alone.
        hit: bool, broken, and predicted as the class that a targeted attack was after.
        first_success: int64, steps to the first misclassified point, -1 where none.
        survivors: the row attacked only what the rows before it, and smaller eps, had not broken.
        targeted: the attack was after one wrong class.
        error: why the attack failed on some images, or empty.
        points: (k, C, H, W) float32, the adversarial points of the k broken images, where they are kept; else none.
    """

    asked: Mask
    attacked: Mask
    broken: Mask
    rejected: Mask
    last_broken: Mask
    hit: Mask
    first_success: np.ndarray[Any, np.dtype[np.int64]]
    survivors: bool = False
    targeted: bool = False
    error: str = ""
    points: np.ndarray[Any, np.dtype[np.float32]] = field(default_factory=_no_points)


@dataclass(frozen=True)
class _Step:
    """A row of a suite in its threat: its outcome, the images that it was to attack, and those that stand after it."""

    row: str
    outcome: Outcome
    before: Mask
    left: Mask

    @property
    def unknown(self) -> Mask:
        """Images that the row should have attacked, and says nothing of."""
        outcome = self.outcome
        return self.before & outcome.asked & ~outcome.broken & ~(outcome.attacked & ~outcome.rejected)

    @property
    def error(self) -> str:
        """Why there are such images; else empty, but for a failure that left none."""
        return self.outcome.error or ("no valid point" if self.unknown.any() else "")


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation found, image by image.

    Attributes:
        clean: bool (N,), classified right.
        outcomes: by threat (``linf@0.1``; eps rising within a norm), then by row of the suite (``pgd50-training``).
        batch_size: images that were attacked at once.

    Raises:
        ValueError: masks of different shapes.
    """

    clean: Mask
    outcomes: dict[str, dict[str, Outcome]]
    batch_size: int

    def __post_init__(self) -> None:
        n = len(self.clean)
        for threat, outcomes in self.outcomes.items():
            for row, outcome in outcomes.items():
                shapes = {f.name: np.shape(getattr(outcome, f.name)) for f in fields(Outcome) if f.name != "points"}
                if wrong := {name: shape for name, shape in shapes.items() if shape not in ((n,), ())}:
                    raise ValueError(f"masks of {row} {threat} must have shape ({n},), got {wrong}")

    def robust(self, threat: str, row: str | None = None) -> Mask:
        """Which images are known to be robust, bool (N,): none of :meth:`unknown` is.

        Args:
            threat: such as ``linf@0.1``.
            row: under this attack alone; None: under all rows of this threat and of smaller eps in the same norm.

        Raises:
            KeyError: no such threat or row.
        """
        steps = self._steps(threat)
        if row is not None:
            step = {step.row: step for step in steps}[row]
            return self.clean & ~step.outcome.broken & ~step.unknown
        return steps[-1].left & ~self.unknown(threat)

    def unknown(self, threat: str) -> Mask:
        """Which images a row of this threat should have attacked, and did not, while no row broke them; bool (N,).

        Raises:
            KeyError: no such threat.
        """
        steps = self._steps(threat)
        return np.logical_or.reduce([step.unknown for step in steps]) & steps[-1].left

    def _steps(self, threat: str) -> list[_Step]:
        """The rows of a threat, each with the images that were left for it and by it."""
        left, steps = self.clean, list[_Step]()
        for at, row, outcome in self._up_to(threat):
            before = left if outcome.survivors else self.clean
            left = left & ~outcome.broken
            if at == threat:
                steps.append(_Step(row, outcome, before, left))
        return steps

    def worst_points(self, threat: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The first adversarial point that was found for each image that is not robust, where points were kept.

        Returns:
            Positions among the images (k,), int64, rising; points (k, C, H, W), float32.
        """
        found: dict[int, np.ndarray[Any, Any]] = {}
        for _, _, outcome in self._up_to(threat):
            for position, point in zip(np.flatnonzero(outcome.broken), outcome.points, strict=False):
                found.setdefault(int(position), point)
        index = np.array(sorted(found), dtype=np.int64)
        return index, np.stack([found[i] for i in index.tolist()]) if found else _no_points()

    def asked(self, threat: str) -> Mask:
        """Which images at least one row of this threat is about, bool (N,): of the others nothing is known."""
        return np.logical_or.reduce([outcome.asked for outcome in self.outcomes[threat].values()])

    def _up_to(self, threat: str) -> Iterator[tuple[str, str, Outcome]]:
        """Threat, row and outcome, of a threat and, in the same norm, of smaller eps."""
        if threat not in self.outcomes:
            raise KeyError(threat)
        for label, outcomes in self.outcomes.items():
            if label.partition("@")[0] == threat.partition("@")[0]:
                yield from ((label, row, outcome) for row, outcome in outcomes.items())
            if label == threat:
                return

    def results(self) -> dict[str, Any]:
        """All accuracies as plain JSON values.

        An image that a row should have attacked and did not, or that the attack said nothing about, has no outcome
        there. A row with such images has no accuracy, whatever the others did, and a row on survivors none where the
        rows before it left such images and nothing broke them since. Nor has the worst case, where such an image of any
        row stands. What has no accuracy holds None for every figure that depends on it, and says ``why``.

        Returns:
            ``{"clean": share, "threats": {"linf@0.1": {"attacks": {"pgd50-training": row}, "worst": share}}}`` with
            share = ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low`` and ``high``; or
            these but ``n`` None, and ``why``. row = share with counts ``attacked`` and ``rejected``, ``last_accuracy``
            (under the attack's last points alone), ``survivors``, ``error`` where the attack failed, and for a targeted
            row ``target_success``: the share of its images that it brought to the target. Clean mistakes count as not
            robust. A row's accuracy is over the images it is about, the worst case over those that at least one row is
            about; a row on survivors alone gives what is left, after it and everything before it, of the images that
            they were about.
        """
        threats: dict[str, Any] = {}
        for threat in self.outcomes:
            steps, rows = self._steps(threat), dict[str, Any]()
            for number, step in enumerate(steps):
                before = steps[: number + 1] if step.outcome.survivors else [step]
                asked = np.logical_or.reduce([one.outcome.asked for one in before])
                rows[step.row] = _row(step, asked, _why(before, step.left if step.outcome.survivors else self.clean))
            worst = _share(steps[-1].left[self.asked(threat)], _why(steps, steps[-1].left))
            threats[threat] = {"attacks": rows, "worst": worst}
        return {"clean": _share(self.clean), "threats": threats}


def _why(steps: list[_Step], standing: Mask) -> str:
    """Why an accuracy isn't known: rows, their errors, and how many of the standing images have no outcome there."""
    counts = [(step, int((step.unknown & standing).sum()), int(step.outcome.asked.sum())) for step in steps]
    return "; ".join(f"{step.row}: {step.error} (no outcome for {k} of {n} images)" for step, k, n in counts if k)


def _row(step: _Step, asked: Mask, why: str) -> dict[str, Any]:
    outcome = step.outcome
    row: dict[str, Any] = _share((step.before & ~outcome.broken)[asked], why)
    doubtful = bool(why) or bool((step.before & outcome.rejected & ~outcome.last_broken).any())
    row |= {
        "attacked": int(outcome.attacked.sum()),
        "rejected": int(outcome.rejected.sum()),
        "last_accuracy": None if doubtful else float((step.before & ~outcome.last_broken)[asked].mean()),
        "survivors": outcome.survivors,
    }
    if outcome.targeted:
        row["target_success"] = None if why else float(outcome.hit[asked].mean())
    return row | ({"error": step.error} if step.error else {})


def _share(mask: Mask, why: str = "") -> dict[str, Any]:
    """Share of a mask's images; no figure but their number where there is a reason ``why`` it is not known."""
    correct, n = int(mask.sum()), len(mask)
    if why:
        return {"accuracy": None, "correct": None, "n": n, "low": None, "high": None, "why": why}
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "correct": correct, "n": n, "low": low, "high": high}


def in_percent(share: dict[str, Any], *, interval: bool = False) -> str:
    """An accuracy of :meth:`Evaluation.results` in words, or that it was not evaluated and why.

    Args:
        share: the accuracy.
        interval: with its Wilson interval, as tables have it: without the sign of per cent.
    """
    if share["accuracy"] is None:
        return f"not evaluated: {share['why']}"
    if not interval:
        return percent(share["accuracy"], unit="%")
    return percent(share["accuracy"], (share["low"], share["high"]))
