"""A detector of adversarial images beside a trained classifier (Metzen et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.attacks.ascent import REACH
from isce.defences.adversarial import pgd
from isce.defences.base import Batch, Defence, Setting
from isce.losses import Objective
from isce.losses.checks import integer, number
from isce.models import Classifier, Guarded
from isce.models.base import Shape
from isce.models.detector import GUARDABLE

EPS, STEPS, REJECTED, WIDTH, WEIGHT = 0.1, 5, 0.05, 32, 10.0


class Detector(Defence):
    """Train a branch of a trained, frozen network to tell clean images from adversarial ones (Metzen et al. 2017).

    The same run without a defence comes first; its weights stay as they are. Then each image of a batch is, by chance
    of a half, replaced by an adversarial one, made on the fly against the frozen network, and the branch goes down the
    binary cross-entropy, times a weight: plain SGD then moves it so many times as fast as it moved the network, which
    it needs here (Adam doesn't care).

    The paper tries several attacks and layers. Here the attack is its basic iterative one in l_inf, up the objective's
    matched function, and its last point counts whether it fools the network or not; the branch sees what follows the
    network's second stage, see :class:`isce.models.Guarded`. The paper's dynamic adversary, who knows the detector
    while that is trained, is not here.

    After each epoch the threshold is set so that at most a share of the clean validation images is rejected. The best
    epoch is the one whose detector then rejects the largest share of the adversarial validation images
    (``validation_detected``; ``validation_rejected`` of the clean ones). Accuracies and losses of validation, and the
    accuracy while training, are the frozen network's.

    Args:
        eps: radius of the attack, in units of [0, 1].
        steps: of the attack, each of 2.5 eps / steps.
        rejected: share of clean validation images that may be rejected, in [0, 1).
        width: channels of the branch's convolution.
        weight: of the loss, above 0.
    """

    name = "detector"
    title = "detector"
    source = "Metzen et al. 2017"
    measure = "validation_detected"

    def __init__(
        self,
        eps: float = EPS,
        steps: int = STEPS,
        rejected: float = REJECTED,
        width: int = WIDTH,
        weight: float = WEIGHT,
    ) -> None:
        super().__init__()
        self.eps = number("eps", eps, above=0, at_most=1)
        self.steps, self.width = integer("steps", steps, at_least=1), integer("width", width, at_least=1)
        self.weight = number("weight", weight, above=0)
        self.rejected = number("rejected", rejected, at_least=0)
        if self.rejected >= 1:
            raise ValueError(f"rejected must be below 1, got {rejected}")

    def check_run(self, run: Setting) -> None:
        """Refuse networks without a place for the branch, and adversarial training, whose images are not clean."""
        if run.model not in GUARDABLE:
            raise ValueError(f"{self.name} needs a place for its branch: model must be one of {', '.join(GUARDABLE)}")
        if run.adversarial:
            raise ValueError(f"{self.name} learns from clean images: adversarial must be None")

    def wrap(self, classifier: Classifier, shape: Shape) -> Guarded:
        """Add the branch, with fresh weights."""
        return Guarded(classifier, self.width)

    def learnt(self, classifier: Classifier, objective: Objective) -> list[nn.Parameter]:
        """The branch's weights alone."""
        return list(_guarded(classifier).detector.parameters())

    def before(self) -> dict[str, Any]:
        """Name the same run without a defence."""
        return {}

    def begin(self, classifier: Classifier, first: Classifier) -> None:
        """Take over the weights of the trained network."""
        classifier.backbone.load_state_dict(first.backbone.state_dict())
        classifier.score_map.load_state_dict(first.score_map.state_dict())

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy of the branch on clean and moved images; logits of the frozen network at these."""
        guarded = _guarded(batch.classifier)
        chosen = (torch.rand(len(batch.y), generator=batch.draws) < 0.5).to(batch.y.device)
        images = batch.x.detach().clone()
        images[chosen] = self.attacked(batch, chosen)
        with torch.no_grad():
            inside, logits = guarded.inside(images), batch.outputs(images)[0]
        loss = F.binary_cross_entropy_with_logits(guarded.evidence(inside), chosen.to(images))
        return self.weight * loss, logits

    def attacked(self, batch: Batch, chosen: Tensor) -> Tensor:
        """Adversarial versions (n, C, H, W) of the chosen images, bool (N,): sign steps up the matched function."""
        x, y = batch.x[chosen].detach(), batch.y[chosen]
        if len(y) == 0:
            return x
        return pgd(batch.outputs, batch.objective, x, y, x, self.eps, self.steps, REACH * self.eps / self.steps)

    def after_epoch(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Set the threshold; return the shares of clean and of adversarial validation images that are rejected."""
        split = list(batches)
        guarded = _guarded(split[0].classifier)
        clean = torch.cat([guarded.evidence(guarded.inside(batch.x)) for batch in split])
        points = [self.attacked(batch, torch.ones_like(batch.y, dtype=torch.bool)) for batch in split]
        adversarial = torch.cat([guarded.evidence(guarded.inside(point)) for point in points])
        threshold = clean.sort(descending=True).values[int(self.rejected * len(clean))]
        guarded.threshold.copy_(threshold)
        if not bool(clean.isfinite().all() & adversarial.isfinite().all()):
            return {"validation_rejected": float("nan"), "validation_detected": float("nan")}
        shares = {"validation_rejected": clean > threshold, "validation_detected": adversarial > threshold}
        return {name: float(mask.double().mean()) for name, mask in shares.items()}


def _guarded(classifier: Classifier) -> Guarded:
    assert isinstance(classifier, Guarded)
    return classifier
