"""A few images under attacks of every family, to look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isce import attacks
from isce.attacks import Threat
from isce.losses import Objective
from isce.parameters.attack import Suite


@dataclass(frozen=True)
class Gallery:
    """Images and what each attack of a suite made of them.

    Attributes:
        index: places of the images among those given, (n,) int64.
        clean: uint8 (n, C, H, W), rounded to 255 levels.
        adversarial: uint8 (rows, n, C, H, W); the image itself where an attack's point was rejected.
        predictions: float32 (rows + 1, n, 2): predicted class and its softmax probability on the raw logits, at the
            image and at each row's points (before they were rounded).
        rows: label and threat of each row.
    """

    index: Tensor
    clean: Tensor
    adversarial: Tensor
    predictions: Tensor
    rows: list[tuple[str, str]]


def gallery(
    classifier: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    suite: Suite,
    threat: Threat,
    *,
    count: int,
    seed: int,
    index: Tensor,
) -> Gallery:
    """Run every attack of a suite on the first image of each of ``count`` classes, broken or not.

    Args:
        classifier: see :func:`isce.attacks.run`.
        objective: the objective it was trained with.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) int64 labels.
        suite: the attacks; each gets all images. None may need a source.
        threat: for the rows without one of their own.
        count: how many images at most; the classes are the lowest labels.
        seed: keys the attacks' randomness.
        index: places of the images in their data set, (N,) int64.
    """
    firsts = [(y == label).nonzero()[0, 0] for label in y.unique()[:count]]
    chosen = torch.stack(firsts)
    images, labels = x[chosen], y[chosen]
    points, found = list[Tensor](), [_predict(classifier, images)]
    for row in suite.rows:
        within = row.threat or threat
        result = attacks.run(row, classifier, objective, images, labels, within, seed=seed, index=index[chosen])
        points.append(_bytes(result.adversarial))
        found.append(_predict(classifier, result.adversarial))
    rows = [(row.label, (row.threat or threat).label) for row in suite.rows]
    return Gallery(chosen.cpu(), _bytes(images), torch.stack(points), torch.stack(found), rows)


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8).cpu()


def _predict(classifier: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        confidence, predicted = classifier(x).softmax(1).max(1)
    return torch.stack([predicted.to(confidence), confidence], 1).cpu()
