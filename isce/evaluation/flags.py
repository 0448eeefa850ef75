"""Red flags: signs that an evaluation was fooled, by the network's gradients or by the attacks' budgets.

Some are read off the outcome, others need a few more forward passes and attacks on a probe of at most ``PROBE`` images.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isce import attacks
from isce.attacks import ForeignError, Threat
from isce.attacks.base import Problem, training_loss, untouched
from isce.attacks.checks import check_call, check_index, first_logits
from isce.attacks.keys import keyed_draws
from isce.attacks.spec import BLIND, AttackSpec
from isce.evaluation.intervals import in_percent
from isce.evaluation.memory import device_of
from isce.evaluation.outcome import Evaluation, Outcome
from isce.losses import Objective
from isce.models.randomised import at, is_randomised
from isce.parameters.attack import AttackParameters

PROBE = 64
FEW = 3  # fewer images than this never raise a flag by a difference in accuracy
POINTS = 0.02  # nor does a difference up to this
MISLEADS = 0.05  # nor, between attacks on the training loss alone and the whole suite, up to this
STUCK = 0.1  # share of probe images without a usable gradient
ALONE = 0.02  # share of the spread of an image's logits by which they may change when it is alone
ROUNDING = 16  # or by so many units in the last place of the largest
MORE = 4  # times the steps
RESTARTS = 2  # at most
SEARCH_STEPS = 100
REJECTS = 0.1  # share of clean images that a classifier may reject
DRAWS = 8  # of a classifier that draws at random
_OWN = re.compile(r"-training(-step[\d.e+-]+)?$")  # the row of an attack on the training loss
MATCHED = AttackSpec(attack="matched", objective="margin", steps=50)


def red_flags(
    evaluation: Evaluation,
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    *,
    index: Tensor | None = None,
) -> dict[str, str]:
    """Find everything about an evaluation that should make a reader doubt it.

    Args:
        evaluation: what ``evaluate`` returned for the other arguments.
        classifier: the network; left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64.
        parameters: of the evaluation.
        index: of the evaluation, if it was given one: place of each image in its data set (N,), int64, which keys the
            draws of the further attacks.

    Returns:
        Detail by name of the flag; empty if nothing is wrong. Names: ``attack-failed``, ``rejected-points``,
        ``last-worse-than-best``, ``rises-with-eps``, ``own-loss-misleads``, ``random-output``, ``randomised``,
        ``depends-on-batch``, ``zero-gradient``, ``not-zero-at-large-eps``, ``more-steps-lower``,
        ``black-box-beats-white-box``, ``rejects-clean``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`evaluate`; an evaluation of another number of images.
    """
    check_call(classifier, objective, images, labels)
    if evaluation.clean.shape != labels.shape:
        raise ValueError(f"the evaluation must be of these {len(labels)} images, got one of {evaluation.clean.shape}")
    index = check_index(index, labels)
    found = outcome_flags(evaluation.results())
    if evaluation.clean.any():
        more = _Probe(evaluation, classifier, objective, images, labels, index, parameters).flags()
        failed = [flags["attack-failed"] for flags in (found, more) if "attack-failed" in flags]
        found |= more | ({"attack-failed": "; ".join(failed)} if failed else {})
    return found


def outcome_flags(results: dict[str, Any]) -> dict[str, str]:
    """The flags that show in the results of an evaluation (``Evaluation.results``) alone."""
    found: dict[str, list[str]] = {}
    before: dict[tuple[str, str], float] = {}
    all_images = results["clean"]["n"]
    for threat, outcome in results["threats"].items():
        norm = threat.partition("@")[0]
        for row, cell in outcome["attacks"].items():
            if "error" in cell:
                found.setdefault("attack-failed", []).append(f"{row} {threat}: {cell['error']}")
            if cell["rejected"]:
                found.setdefault("rejected-points", []).append(f"{row} {threat}: {cell['rejected']} of {cell['n']}")
            if cell["accuracy"] is None:
                continue
            targeted = "target_success" in cell  # its best point is one that hits the target, not the one furthest gone
            last = cell["accuracy"] if cell["last_accuracy"] is None else cell["last_accuracy"]
            if not targeted and _matters(last - cell["accuracy"], cell["n"]):
                text = f"{last:.1%} at the last point, {cell['accuracy']:.1%} at the best"
                found.setdefault("last-worse-than-best", []).append(f"{row} {threat}: {text}")
            # What is blind to a detector may well be seen better at a larger eps.
            blind = row.endswith(f"-{BLIND}")
            if not blind and _matters(cell["accuracy"] - before.get((norm, row), 1.0), cell["n"]):
                found.setdefault("rises-with-eps", []).append(f"{row} {threat}: {cell['accuracy']:.1%}")
            before[norm, row] = cell["accuracy"]
        # A row on survivors or on a subset alone says nothing about its own strength.
        full = [(row, c) for row, c in outcome["attacks"].items() if not c["survivors"] and c["n"] == all_images]
        own = [c["accuracy"] for row, c in full if _OWN.search(row) and c["accuracy"] is not None]
        worst = outcome["worst"]["accuracy"]
        if own and worst is not None and _matters(min(own) - worst, outcome["worst"]["n"], MISLEADS):
            text = f"{threat}: {min(own):.1%} under attacks on the training loss, {worst:.1%} under the suite"
            found.setdefault("own-loss-misleads", []).append(text)
    false = results.get("rejection", {}).get("clean_rejected", {"accuracy": 0.0})
    if false["accuracy"] > REJECTS:
        found["rejects-clean"] = [f"{in_percent(false)} of clean images are rejected, and count as handled"]
    return {name: "; ".join(texts) for name, texts in found.items()}


def curve_flags(curves: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return ``{"not-converged": detail}`` for curves (:func:`isce.evaluation.curves`) that still fall at their end.

    Their largest number of steps leaves fewer images than the one before, or one of the two was not evaluated.
    """
    rows = curves.get("convergence", [])[-2:]
    known = all(row["accuracy"] is not None for row in rows)
    if known and (len(rows) < 2 or not _matters(rows[0]["accuracy"] - rows[1]["accuracy"], rows[1]["n"])):
        return {}
    return {"not-converged": ", ".join(f"{in_percent(row)} after {row['steps']} steps" for row in rows)}


def _matters(difference: float, n: int, points: float = POINTS) -> bool:
    return difference > points and round(difference * n) >= FEW


@dataclass
class _Probe:
    """The evaluation's inputs, and a few extra attacks on a few of its images."""

    evaluation: Evaluation
    classifier: nn.Module
    objective: Objective
    images: Tensor
    labels: Tensor
    index: Tensor
    parameters: AttackParameters
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = device_of(self.classifier, self.images)
        with untouched(self.classifier, self.objective):
            x, y, _ = self._batch(self.evaluation.clean)
            self.differentiable = first_logits(self.classifier, self.objective, x, y, gradients=True).requires_grad

    def flags(self) -> dict[str, str]:
        """All flags that need the network."""
        found = {
            "random-output": self._random_output(),
            "randomised": self._randomised(),
            "depends-on-batch": self._depends_on_batch(),
            "zero-gradient": self._zero_gradient(),
            "not-zero-at-large-eps": self._large_eps(),
        }
        black = self._black_box_rows()
        threat = self._contested()
        white = [row for row in self.parameters.suite.rows if row.white_box]
        if threat and white and (left := self.evaluation.robust(threat.label)).any():
            longer = [self._at_stake(_longer(row), threat, left) for row in self._strongest(white, threat)]
            found["more-steps-lower"] = next(filter(None, longer), "")
            black.append(self._at_stake(_search(), threat, left))
        found["black-box-beats-white-box"] = "; ".join(filter(None, black))
        found["attack-failed"] = "; ".join(self.failed)
        return {name: detail for name, detail in found.items() if detail}

    def _strongest(self, white: list[AttackSpec], threat: Threat) -> list[AttackSpec]:
        """The row that broke most by itself, and the one with the largest budget: on survivors that says little."""
        known = [row for row in white if row.label in self._known(threat.label)]
        alone = min(known or white, key=lambda row: int(self.evaluation.robust(threat.label, row.label).sum()))
        largest = max(white, key=lambda row: row.steps * row.restarts)
        return [alone] if largest is alone else [alone, largest]

    def _known(self, threat: str) -> list[str]:
        """The rows of a threat that have an accuracy, and did not fail."""
        rows = self.evaluation.results()["threats"][threat]["attacks"]
        return [row for row, cell in rows.items() if cell["accuracy"] is not None and "error" not in cell]

    def _black_box_rows(self) -> list[str]:
        """Threat models in which a row without gradients breaks more than every row with them, of images of both."""
        found: list[str] = []
        for threat, outcomes in self.evaluation.outcomes.items():
            known = self._known(threat)
            rows = [(row, outcomes[row.label]) for row in self.parameters.suite.rows if row.label in known]
            alone = [(r, o) for r, o in rows if not (r.targeted or o.survivors or r.source)]
            white = [(row.label, o) for row, o in alone if not attacks.about(row.attack).black_box]
            for row, outcome in alone:
                if white and attacks.about(row.attack).black_box:
                    lead, n, name = min((*_lead(outcome, other), name) for name, other in white)
                    if _matters(lead, n):
                        found.append(f"{threat}: {row.label} breaks {lead:.1%} of {n} images more than {name}")
        return found

    def _batch(self, mask: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.from_numpy(np.flatnonzero(mask)[:PROBE]).to(self.labels.device)
        x, y, index = (part[rows].to(self.device) for part in (self.images, self.labels, self.index))
        return x, y, index

    def _random_output(self) -> str:
        x, _, _ = self._batch(self.evaluation.clean)
        with untouched(self.classifier), torch.no_grad():
            one, two = self.classifier(x), self.classifier(x)
        if torch.equal(one, two):
            return ""
        return f"logits of the same batch differ by up to {float((one - two).abs().max()):.2g}"

    def _randomised(self) -> str:
        """Say of a classifier with keyed draws by how much its logits differ from draw to draw."""
        if not is_randomised(self.classifier):
            return ""
        x, y, _ = self._batch(self.evaluation.clean)
        every = list[Tensor]()
        with untouched(self.classifier), torch.no_grad():
            for draw in keyed_draws(self.parameters.seed, "flag", DRAWS):
                with at(self.classifier, (draw,)):
                    every.append(self.classifier(x))
        several = torch.stack(every)
        apart = float((several.amax(0) - several.amin(0)).max())
        right = (several.argmax(2) == y).all(0)
        return (
            f"logits differ by up to {apart:.2g} between {DRAWS} draws, and {int((~right).sum())} of {len(x)} images "
            "that are right get another class at one of them; accuracies with fixed draws are no robust accuracy"
        )

    def _depends_on_batch(self) -> str:
        """Compare logits of images in one batch with those of each alone, unless the classifier says that they differ.

        A change no larger than that from one call to the next is left to the flag for random output.
        """
        if getattr(self.classifier, "batch_dependent", False):
            return ""
        x, _, _ = self._batch(self.evaluation.clean)
        with untouched(self.classifier), torch.no_grad():
            together, again = self.classifier(x), self.classifier(x)
            alone = torch.cat([self.classifier(image) for image in x.split(1)])
        apart, noise = ((together - other).abs().amax(1) for other in (alone, again))
        spread, rounding = together.amax(1) - together.amin(1), ROUNDING * torch.finfo(together.dtype).eps
        moved = apart > torch.maximum(ALONE * spread, rounding * together.abs().amax(1)) + 2 * noise.max()
        found = f"logits of {int(moved.sum())} of {len(x)} images differ by up to {float(apart.max()):.2g} alone"
        return f"{found}: set batch_dependent = True on the classifier and evaluate again" if moved.any() else ""

    def _zero_gradient(self) -> str:
        """As a plain attack computes it: the training loss, in the network's own precision."""
        x, y, index = self._batch(self.evaluation.clean)
        texts: list[str] = []
        with untouched(self.classifier, self.objective):
            problem = Problem(self.classifier, self.objective, x, y, index, Threat("linf", 1), 0, x, x)
            own = {"training loss": training_loss(self.objective), "matched": self.objective.matched}
            for name, function in own.items():
                point = x.clone().requires_grad_()
                logits, embedding = problem.outputs(point)
                value = function(logits, y, embedding).sum()
                gradient = torch.autograd.grad(value, point)[0] if value.requires_grad else torch.zeros_like(x)
                stuck = ~gradient.isfinite().flatten(1).all(1) | (gradient == 0).flatten(1).all(1)
                if float(stuck.double().mean()) > STUCK:
                    texts.append(f"{name}: {int(stuck.sum())} of {len(x)} images")
        return "; ".join(texts)

    def _large_eps(self) -> str:
        """With eps as wide as the box any image may be shown, so nothing should be robust."""
        x, y, index = self._batch(self.evaluation.clean)
        eps = 1.0 if self.parameters.norm == "linf" else math.sqrt(x[0].numel())
        threat = Threat(self.parameters.norm, eps)
        broken = self._attack(MATCHED if self.differentiable else _search(), threat, x, y, index)
        return "" if broken.all() else f"{int((~broken).sum())} of {len(x)} images stand at {threat.label}"

    def _contested(self) -> Threat | None:
        """The eps whose worst case is nearest to half of the clean accuracy, the larger of two; if any was attacked."""
        middle = self.evaluation.clean.mean() / 2

        def distance(threat: Threat) -> float:
            return abs(float(self.evaluation.robust(threat.label).mean()) - middle)

        threats = (Threat(self.parameters.norm, eps) for eps in reversed(self.parameters.eps))
        found = [threat for threat in threats if threat.label in self.evaluation.outcomes]  # a row may have its own eps
        return min(found, key=distance, default=None)

    def _at_stake(self, spec: AttackSpec, threat: Threat, left: np.ndarray[Any, Any]) -> str:
        """What an attack takes off the survivors, if that is worth a flag."""
        x, y, index = self._batch(left)
        broken = self._attack(spec, threat, x, y, index)
        n, stake = int(broken.sum()), float(broken.double().mean()) * float(left.mean())
        if n < FEW or stake <= POINTS:
            return ""
        return f"{spec.label} {threat.label} breaks {n} of {len(x)} survivors, {stake:.1%} of all images"

    def _attack(self, spec: AttackSpec, threat: Threat, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Which images an attack breaks; a failure is noted."""
        seed, name = self.parameters.seed, f"{spec.label} {threat.label}, beside the suite"
        try:
            result = attacks.run(spec, self.classifier, self.objective, x, y, threat, seed=seed, index=index)
        except ForeignError as error:
            self.failed.append(f"{name}: {error}")
            return torch.zeros_like(y, dtype=torch.bool)
        if bool((result.rejected & ~result.success).any()):
            self.failed.append(f"{name}: no valid point")
        return result.success


def _lead(one: Outcome, other: Outcome) -> tuple[float, int]:
    """By how much of the images that both are about one row breaks more than another, and how many those are."""
    both = one.asked & other.asked
    n = int(both.sum())
    return (float((one.broken[both].sum() - other.broken[both].sum()) / n) if n else 0.0), n


def _longer(spec: AttackSpec) -> AttackSpec:
    """With more steps; of its restarts only as many as need be, so that a restart from a random start is among them."""
    changes = {"steps": MORE * spec.steps, "restarts": min(spec.restarts, RESTARTS), "images": None}
    changes |= {"attack": "bim"} if spec.attack == "fgsm" else {}
    return AttackSpec.model_validate(spec.model_dump() | changes)


def _search() -> AttackSpec:
    return AttackSpec(attack="search", objective="margin", steps=SEARCH_STEPS)
