"""Everything that explains the results of one trained model: what the explain notebook runs and records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import attacks
from isce.attacks import Threat
from isce.attacks.base import training_loss, untouched
from isce.attacks.checks import check_images
from isce.attacks.rejection import rejects
from isce.attacks.spec import AttackSpec
from isce.evaluation.intervals import wilson
from isce.explain.features import Features, embeddings_seen
from isce.explain.gallery import Gallery, gallery
from isce.explain.gradients import TINY, Gradients, gradients
from isce.explain.paths import Ascent, ascend, on_the_sphere
from isce.losses import Objective, ReleasedInferenceSoftmaxCrossEntropy
from isce.parameters.analysis import ExplainParameters

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
TRAJECTORIES = 16
TRAJECTORY_STEPS = 26  # points of each that are kept, at most
FUNCTIONS = ("training", "matched", "ce", "margin", "dlr", "targeted")


@dataclass(frozen=True)
class Explanation:
    """Measures of one model on some images.

    Attributes:
        y: labels (N,), on the CPU.
        ascents: plain ascents on ``training`` and ``matched``, on the CPU.
        gradients: see :class:`Gradients`.
        features: of the images and of the last points of the ascent on ``matched``.
        alone: for each function whether the adaptive attack on it alone leaves the image standing, bool (N,).
        gallery: see :class:`Gallery`.
        kink: the t_y at which the released reading's clip begins, or None for another loss.
    """

    y: Tensor
    ascents: dict[str, Ascent]
    gradients: Gradients
    features: Features
    alone: dict[str, Tensor]
    gallery: Gallery
    kink: float | None

    def results(self, eps: float) -> dict[str, Any]:
        """The numbers of the record: shares in [0, 1], quantiles at ``QUANTILES``, counts."""
        found, seen = self.gradients, self.features
        last = self.ascents["matched"].margins(self.y)[-1]
        standing = {
            "clean": _share(found.margin > 0),
            "promised": _share(found.distance > eps),
            **{f"one-step-{name}": _share(right) for name, right in found.one_step.items()},
            **{f"plain-{name}": _share(a.margins(self.y).amin(0) > 0) for name, a in self.ascents.items()},
            **{f"adaptive-{name}": _share(right) for name, right in self.alone.items()},
        }
        return {
            "n": len(self.y),
            "eps": eps,
            "standing": standing,
            "gradients": {
                "zero": _mean(found.size == 0),
                "tiny": _mean(found.size < TINY),
                "matched_zero": _mean(found.matched_size == 0),
                "matched_tiny": _mean(found.matched_size < TINY),
                "kept": _quantiles(found.kept),
                "aim": _quantiles(found.aim),
                "margin": _quantiles(found.margin),
                "slope": _quantiles(found.slope),
                "distance": _quantiles(found.distance),
            },
            "features": {
                "separation": seen.separation,
                "adversarial_separation": seen.adversarial_separation,
                "moved": _quantiles(seen.moved),
                "nearest": seen.nearest[0],
                "adversarial_nearest": seen.nearest[1],
                "shown": seen.shown,
                "adversarial_margin": _quantiles(last),
            },
            "sphere": self._sphere(),
            "gallery": {"rows": self.gallery.rows, "labels": self.y[self.gallery.index].tolist()},
        }

    def _sphere(self) -> dict[str, Any] | None:
        """Of images classified right: how many start beyond the kink, and what each ascent does to them.

        ``rises``: share of those beyond whose t_y is higher after the first step than before. ``widens``: share of
        them whose margin on the sphere is. ``standing`` and ``standing_others``: share of those beyond, and of the
        others, that no step misclassified. None where there is no such image.
        """
        if self.kink is None:
            return None
        right = self.gradients.margin > 0
        start = on_the_sphere(self.ascents["training"].logits[0], self.y)[:, 0]
        beyond = right & (start > self.kink)
        results: dict[str, Any] = {"kink": self.kink, "right": int(right.sum()), "beyond": int(beyond.sum())}
        for name, ascent in self.ascents.items():
            t = on_the_sphere(ascent.logits[:2], self.y)
            margins = t[..., 0] - t[..., 1]
            stood = ascent.margins(self.y).amin(0) > 0
            results[name] = {
                "rises": _mean_of(t[1, :, 0] > t[0, :, 0], beyond),
                "widens": _mean_of(margins[1] > margins[0], beyond),
                "standing": _mean_of(stood, beyond),
                "standing_others": _mean_of(stood, right & ~beyond),
            }
        return results

    def arrays(self) -> dict[str, Tensor]:
        """The tensors of the side file, small: what the report draws."""
        found: dict[str, Tensor] = {}
        for name, ascent in self.ascents.items():
            entropy = torch.stack([F.cross_entropy(s.double(), self.y, reduction="none") for s in ascent.logits])
            every = {"loss": ascent.loss, "entropy": entropy, "margin": ascent.margins(self.y)}
            found |= {f"{name}.{what}": _bands(values) for what, values in every.items()}
            found[f"{name}.standing"] = ascent.standing(self.y).float()
            found[f"{name}.sphere"] = self._trajectories(ascent)
        of = self.gradients
        for what in ("margin", "size"):
            found[f"gradients.{what}"] = getattr(of, what).float()
        for what in ("distance", "kept", "aim"):
            found[f"gradients.{what}"] = getattr(of, what).half()
        found["features.plane"] = self.features.plane.half()
        found["features.distances"] = self.features.distances.half()
        found["features.adversarial_margin"] = self.ascents["matched"].margins(self.y)[-1].float()
        found["labels"] = self.y.to(torch.uint8)
        found["gallery.clean"], found["gallery.adversarial"] = self.gallery.clean, self.gallery.adversarial
        found["gallery.predictions"] = self.gallery.predictions
        return {name: tensor.contiguous() for name, tensor in found.items()}

    def _trajectories(self, ascent: Ascent) -> Tensor:
        """Paths on the sphere of some images that are classified right, evenly over their t_y: half (S', n, 2)."""
        right = (self.gradients.margin > 0).nonzero()[:, 0]
        order = right[on_the_sphere(self.ascents["training"].logits[0], self.y)[right, 0].argsort()]
        chosen = order[torch.linspace(0, max(len(order) - 1, 0), min(TRAJECTORIES, len(order))).round().long()]
        steps = torch.linspace(0, len(ascent.logits) - 1, min(TRAJECTORY_STEPS, len(ascent.logits))).round().long()
        return on_the_sphere(ascent.logits[steps][:, chosen], self.y[chosen]).half()


def explain(
    classifier: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    parameters: ExplainParameters,
    *,
    index: Tensor,
    progress: Callable[[str], None] = lambda _: None,
) -> Explanation:
    """Measure everything on one batch of images.

    Args:
        classifier: :class:`isce.models.Classifier`; left as it was.
        objective: the objective it was trained with.
        x: (N, C, H, W) float32 images in [0, 1], on the classifier's device.
        y: (N,) int64 labels, there too.
        parameters: eps, budgets and the gallery's suite.
        index: places of the images in their data set, (N,) int64.
        progress: called with the name of each part before it starts.

    Raises:
        ValueError: images or labels that can't be used, or a classifier whose logits depend on the batch, or that may
            reject.
        RuntimeError: an attack met logits or gradients that are not finite, and says nothing of some images.
    """
    check_images(x, y)
    if getattr(classifier, "batch_dependent", False):
        raise ValueError("the network depends on the batch: freeze its statistics first")
    if rejects(classifier):
        raise ValueError("the network may reject images, which this analysis does not know of: give it its `unguarded`")
    threat, loss = Threat("linf", parameters.eps), training_loss(objective)
    with untouched(classifier, objective):
        progress("paths")
        functions = {"training": loss, "matched": objective.matched}
        ascents = {n: ascend(classifier, loss, f, x, y, threat, parameters.steps) for n, f in functions.items()}
        progress("gradients")
        found = gradients(classifier, loss, objective.matched, x, y, parameters.eps)
        progress("embeddings")
        with torch.no_grad():
            clean, moved = (classifier(p, return_embedding=True)[1] for p in (x, ascents["matched"].last))
        alone: dict[str, Tensor] = {}
        for name in FUNCTIONS:
            progress(f"adaptive attack on {name}")
            spec = _adaptive(name, parameters.steps)
            result = attacks.run(spec, classifier, objective, x, y, threat, seed=parameters.seed, index=index)
            if bool((result.rejected & ~result.success).any()):
                raise RuntimeError(f"the adaptive attack on {name} met values that are not finite")
            alone[name] = ~result.success.cpu()
        progress("gallery")
        given = (classifier, objective, x, y, parameters.gallery, threat)
        shown = gallery(*given, count=parameters.gallery_images, seed=parameters.seed, index=index)
    here = {n: Ascent(a.logits.cpu(), a.loss.cpu(), a.last.cpu()) for n, a in ascents.items()}
    return Explanation(y.cpu(), here, found, embeddings_seen(clean, moved, y), alone, shown, _kink(objective))


def _adaptive(name: str, steps: int) -> AttackSpec:
    return AttackSpec(attack="matched", objective=name, steps=steps)


def _kink(objective: Objective) -> float | None:
    """Return the t_y at which the released reading's clip begins, 1 / s - m; None for other losses."""
    if not isinstance(objective, ReleasedInferenceSoftmaxCrossEntropy) or not objective.clip:
        return None
    return 1 / objective.scale - objective.inference


def _share(right: Tensor) -> dict[str, Any]:
    """Accuracy with its Wilson 95% interval, as attack records have it."""
    correct, n = int(right.sum()), len(right)
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "correct": correct, "n": n, "low": low, "high": high}


def _mean(which: Tensor) -> float:
    return float(which.double().mean())


def _mean_of(which: Tensor, among: Tensor) -> float | None:
    return _mean(which[among]) if bool(among.any()) else None


def _quantiles(values: Tensor) -> list[float]:
    return values.double().quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist()


def _bands(values: Tensor) -> Tensor:
    """A tenth, the median and nine tenths of the images at each step, float32 (3, S + 1)."""
    return values.double().quantile(torch.tensor(QUANTILES[::2], dtype=torch.float64), dim=1).float()
