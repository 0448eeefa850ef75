"""What an evaluation found, image by image, and the results that follow from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from isce.attacks.threat import TOLERANCE
from isce.evaluation.drawn import Mask, Randomised
from isce.evaluation.intervals import share


def _no_points() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros((0, 1, 1, 1), dtype=np.float32)


@dataclass(frozen=True)
class Outcome:
    """What one row of a suite did to each image in one threat model; all masks (N,).

    Attributes:
        asked: bool, the row is about this image (all of them, unless the row names a subset).
        attacked: bool, the attack was run on this image (not: misclassified anyway, broken by an earlier row, spared,
            or left when the attack failed).
        broken: bool, classified right but misclassified at the verified point.
        rejected: bool, the attack returned a point outside ball or box, or not finite, or met logits or gradients that
            are not finite; it says nothing of the image unless it broke it all the same.
        last_broken: bool, broken by the attack's last point alone.
        hit: bool, broken, and predicted as the class that a targeted attack was after.
        first_success: int64, steps to the first misclassified point, -1 where none.
        survivors: the row attacked only what the rows before it, and smaller eps, had not broken.
        targeted: the attack was after one wrong class.
        spared: bool, not attacked: proved, or this row, among others, left the image standing at a larger eps.
        distance: float64, of the verified point from its image, in the norm of the threat; inf where it is not broken.
            Of an attack for the smallest change also where that point lies beyond eps.
        forwards: images that the network classified for the row, those on the way to a gradient too.
        gradients: images for which it was differentiated.
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
    spared: Mask = field(default_factory=lambda: np.zeros((), dtype=bool))
    distance: np.ndarray[Any, np.dtype[np.float64]] = field(default_factory=lambda: np.full((), math.inf))
    forwards: int = 0
    gradients: int = 0
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
        known = (outcome.attacked & ~outcome.rejected) | outcome.spared
        return self.before & outcome.asked & ~outcome.broken & ~known

    @property
    def error(self) -> str:
        """Why there are such images; else empty, but for a failure that left none."""
        return self.outcome.error or ("no valid point" if self.unknown.any() else "")


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation found, image by image.

    Attributes:
        clean: bool (N,), classified right; of a classifier that may reject: right, or rejected.
        outcomes: by threat (``linf@0.1``; eps rising within a norm), then by row of the suite (``pgd50-training``).
        batch_size: images that were attacked at once.
        seconds: that each row took, by threat and row.
        proved: bool (N,), proved to be robust, by threat; empty where no bounds were asked for.
        refused: bool (N,), the clean image is rejected, and so rejected falsely; None: the classifier can't reject.
        randomised: how the classifier stands as one that draws at random; None: not asked for.

    Raises:
        ValueError: masks of different shapes.
        RuntimeError: an image is both proved and broken.
    """

    clean: Mask
    outcomes: dict[str, dict[str, Outcome]]
    batch_size: int
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    proved: dict[str, Mask] = field(default_factory=dict)
    refused: Mask | None = None
    randomised: Randomised | None = None

    def __post_init__(self) -> None:
        n = len(self.clean)
        for threat, outcomes in self.outcomes.items():
            for row, outcome in outcomes.items():
                shapes = {f.name: np.shape(getattr(outcome, f.name)) for f in fields(Outcome) if f.name != "points"}
                if wrong := {name: shape for name, shape in shapes.items() if shape not in ((n,), ())}:
                    raise ValueError(f"masks of {row} {threat} must have shape ({n},), got {wrong}")
        if self.refused is not None and (self.refused.shape != (n,) or (self.refused & ~self.clean).any()):
            raise ValueError(f"what is rejected must be among {n} images that are handled, got {self.refused.shape}")
        for threat, proved in self.proved.items():
            if proved.shape != (n,):
                raise ValueError(f"what is proved in {threat} must have shape ({n},), got {proved.shape}")
            wrong = proved & ~self.standing(threat)
            if wrong.any():
                raise RuntimeError(f"proved and yet broken in {threat}: images {np.flatnonzero(wrong).tolist()}")

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

    def distance(self, norm: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Distance of the nearest verified adversarial point of each image, over all rows and eps of a norm, (N,).

        0 where the image is misclassified as it stands; inf where nothing broke it.
        """
        nearest = np.where(self.clean, math.inf, 0.0)
        for threat, outcomes in self.outcomes.items():
            if threat.partition("@")[0] == norm:
                for outcome in outcomes.values():
                    nearest = np.minimum(nearest, outcome.distance)
        return nearest

    def _steps(self, threat: str) -> list[_Step]:
        """The rows of a threat, each with the images that were left for it and by it."""
        left, steps = self.clean & ~self._near(threat), list[_Step]()
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
        inside = [(outcome, outcome.broken) for _, _, outcome in self._up_to(threat)]
        inside += [(outcome, outcome.distance <= _reach(threat)) for outcome in self._beyond(threat)]
        for outcome, near in inside:
            near = np.broadcast_to(near, self.clean.shape)
            for position, point in zip(np.flatnonzero(outcome.broken), outcome.points, strict=False):
                if near[position]:
                    found.setdefault(int(position), point)
        index = np.array(sorted(found), dtype=np.int64)
        return index, np.stack([found[i] for i in index.tolist()]) if found else _no_points()

    def standing(self, threat: str) -> Mask:
        """Which images no row has broken within this eps, bool (N,)."""
        left = self.clean & ~self._near(threat)
        return np.logical_and.reduce([left, *(~outcome.broken for _, _, outcome in self._up_to(threat))])

    def spared(self, threat: str, row: str) -> Mask:
        """Which images the row need not attack in this threat: known to be robust at the next larger eps that it has.

        Bool (N,); none where a row of that eps is wanting.
        """
        alike = self._alike(threat)
        for label in alike[alike.index(threat) + 1 :]:
            if row in self.outcomes[label]:
                return self.robust(label) & self.outcomes[label][row].asked
        return np.zeros_like(self.clean)

    def asked(self, threat: str) -> Mask:
        """Which images at least one row of this threat is about, bool (N,): of the others nothing is known."""
        return np.logical_or.reduce([outcome.asked for outcome in self.outcomes[threat].values()])

    def _alike(self, threat: str) -> list[str]:
        """The threats in the norm of one of them, eps rising (:class:`KeyError`: there is no such threat)."""
        if threat not in self.outcomes:
            raise KeyError(threat)
        return [label for label in self.outcomes if label.partition("@")[0] == threat.partition("@")[0]]

    def _up_to(self, threat: str) -> Iterator[tuple[str, str, Outcome]]:
        """Threat, row and outcome, of a threat and, in the same norm, of smaller eps."""
        alike = self._alike(threat)
        for label in alike[: alike.index(threat) + 1]:
            yield from ((label, row, outcome) for row, outcome in self.outcomes[label].items())

    def _beyond(self, threat: str) -> Iterator[Outcome]:
        """Outcomes of larger eps in the same norm: some of their points lie within this eps."""
        alike = self._alike(threat)
        for label in alike[alike.index(threat) + 1 :]:
            yield from self.outcomes[label].values()

    def _near(self, threat: str) -> Mask:
        """Which images a row of a larger eps broke within this one, bool (N,)."""
        near = np.zeros_like(self.clean)
        for outcome in self._beyond(threat):
            near = near | (outcome.distance <= _reach(threat))
        return near

    def curve(self, norm: str, grid: Sequence[float]) -> list[dict[str, Any]]:
        """Robust accuracy at any eps, looked up: an image counts up to its nearest adversarial point.

        At an eps that was attacked this is the worst case; between two of them an attack might leave less.

        Args:
            norm: ``linf`` or ``l2``.
            grid: values of eps.

        Returns:
            For each eps a row with ``eps`` and a share as in :meth:`results`, of the images that every eps of this norm
            is about; no accuracy where an image has no outcome in it.

        Raises:
            KeyError: nothing was attacked in this norm.
        """
        labels = [label for label in self.outcomes if label.partition("@")[0] == norm]
        if not labels:
            raise KeyError(norm)
        asked = np.logical_and.reduce([self.asked(label) for label in labels])
        steps = [step for label in labels for step in self._steps(label)]
        distance = self.distance(norm)
        why = _why(steps, asked & (distance == math.inf))
        return [{"eps": eps, **share(distance[asked] > eps + TOLERANCE * (1 + eps), why)} for eps in grid]

    def results(self) -> dict[str, Any]:
        """All accuracies as plain JSON values.

        An image that a row should have attacked and did not, or that the attack said nothing about, has no outcome
        there. A row with such images has no accuracy, whatever other rows did. A row on survivors has none either where
        the rows before it left such images and nothing has broken them since. The worst case has none where an image
        without outcome in any row still stands. What has no accuracy holds None for every figure that depends on it,
        and says ``why``.

        Returns:
            ``{"clean": share, "threats": {"linf@0.1": {"attacks": {"pgd50-training": row}, "worst": share}}}`` with
            share = ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low`` and ``high``; or
            these but ``n`` None, and ``why``. row = share with counts ``attacked`` and ``rejected``, ``last_accuracy``
            (under the attack's last points alone), ``survivors``, ``spared`` where the row spared images, ``error``
            where the attack failed, and for a targeted row ``target_success``: the share of its images that it brought
            to the target. Clean mistakes count as not robust. A row's accuracy is over the images it is about, the
            worst case over those that at least one row is about, as is ``certified``, the share that is proved, where
            proofs were asked for; a row on survivors alone gives what is left, after it and everything before it, of
            the images that they were about. And ``randomised``, see :meth:`Randomised.results`, where it was asked for.

            Of a classifier that may reject also ``rejection``, with the shares ``clean_rejected`` and
            ``clean_right_and_accepted``: all other accuracies count a rejected image as handled, the clean one too, so
            that one that rejects everything would have 100% everywhere.
        """
        threats: dict[str, Any] = {}
        for threat in self.outcomes:
            steps, rows = self._steps(threat), dict[str, Any]()
            for number, step in enumerate(steps):
                before = steps[: number + 1] if step.outcome.survivors else [step]
                asked = np.logical_or.reduce([one.outcome.asked for one in before])
                rows[step.row] = _row(step, asked, _why(before, step.left if step.outcome.survivors else self.clean))
            worst = share(steps[-1].left[self.asked(threat)], _why(steps, steps[-1].left))
            threats[threat] = {"attacks": rows, "worst": worst}
            if threat in self.proved:
                threats[threat]["certified"] = share(self.proved[threat][self.asked(threat)])
        results = {"clean": share(self.clean), "threats": threats}
        if self.refused is not None:
            shares = {"clean_rejected": self.refused, "clean_right_and_accepted": self.clean & ~self.refused}
            results["rejection"] = {name: share(mask) for name, mask in shares.items()}
        if self.randomised is not None:
            results["randomised"] = self.randomised.results()
        return results


def _reach(threat: str) -> float:
    """The largest distance that counts as inside: see ``Threat.inside``; inf where there is no eps."""
    norm, _, eps = threat.partition("@")
    slack = 0 if norm == "l0" else TOLERANCE * (1 + float(eps or 0))
    return float(eps) + slack if eps else math.inf


def _why(steps: list[_Step], standing: Mask) -> str:
    """Why an accuracy isn't known: rows, their errors, and how many of the standing images have no outcome there."""
    counts = [(step, int((step.unknown & standing).sum()), int(step.outcome.asked.sum())) for step in steps]
    return "; ".join(f"{step.row}: {step.error} (no outcome for {k} of {n} images)" for step, k, n in counts if k)


def _row(step: _Step, asked: Mask, why: str) -> dict[str, Any]:
    outcome = step.outcome
    row: dict[str, Any] = share((step.before & ~outcome.broken)[asked], why)
    doubtful = bool(why) or bool((step.before & outcome.rejected & ~outcome.last_broken).any())
    row |= {
        "attacked": int(outcome.attacked.sum()),
        "rejected": int(outcome.rejected.sum()),
        "last_accuracy": None if doubtful else float((step.before & ~outcome.last_broken)[asked].mean()),
        "survivors": outcome.survivors,
    }
    if outcome.spared.any():
        row["spared"] = int((outcome.spared & step.before).sum())
    if outcome.targeted:
        row["target_success"] = None if why else float(outcome.hit[asked].mean())
    return row | ({"error": step.error} if step.error else {})
