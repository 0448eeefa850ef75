"""Accuracy on images that are worse than those a network was trained on: noise, blur, rotation; no adversary."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from isce.attacks.base import untouched
from isce.attacks.checks import check_images, check_index
from isce.attacks.keys import keyed_normal
from isce.compat import import_transforms
from isce.evaluation.intervals import share
from isce.evaluation.memory import device_of
from isce.losses.checks import known

BATCH = 256
#: Strength of each corruption by severity, from 1: the deviation of the noise in units of [0, 1], that of the blur in
#: widths of the image, the angle of the rotation in degrees.
STRENGTHS = {
    "gaussian noise": (0.1, 0.2, 0.4),
    "gaussian blur": (0.02, 0.04, 0.08),
    "rotation": (15.0, 30.0, 45.0),
}


def corruptions(
    classifier: nn.Module, images: Tensor, labels: Tensor, seed: int, index: Tensor | None = None
) -> list[dict[str, Any]]:
    """Measure the accuracy of a classifier under every corruption and severity.

    A classifier that draws at random is seen at its present draws. Of one that may reject, a rejected image counts as
    wrong here, since nobody attacks it.

    Args:
        classifier: maps images to raw logits (N, K); runs on the device of its parameters, in evaluation mode; left as
            it was.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64.
        seed: of the noise and of the directions of the rotations, with ``index``.
        index: place of each image in its data set (N,), int64; default 0 to N - 1.

    Returns:
        One row for each corruption and severity, ``name``, ``severity`` from 1, ``strength`` as in :data:`STRENGTHS`,
        and the share that is right, as in :meth:`isce.evaluation.Evaluation.results`.

    Raises:
        TypeError, ValueError: images, labels or index that nothing can be evaluated on, see
            :func:`isce.evaluation.evaluate`; or logits that are not finite, of which no accuracy is known.
    """
    check_images(images, labels)
    device = device_of(classifier, images)
    index = check_index(index, labels).cpu()
    rows: list[dict[str, Any]] = []
    with untouched(classifier), torch.no_grad():
        for name, strengths in STRENGTHS.items():
            for severity, strength in enumerate(strengths, 1):
                right: list[Tensor] = []
                for x, y, at in zip(images.split(BATCH), labels.split(BATCH), index.split(BATCH), strict=True):
                    logits = classifier(corrupted(x, name, severity, seed, at).to(device)).cpu()
                    if not logits.isfinite().all():
                        raise ValueError(f"logits under {name} {severity} are not finite")
                    right.append(logits.argmax(1) == y.cpu())
                found = share(torch.cat(right).numpy())
                rows.append({"name": name, "severity": severity, "strength": strength, **found})
    return rows


def corrupted(images: Tensor, name: str, severity: int, seed: int, index: Tensor) -> Tensor:
    """Corrupt images; each depends on itself, ``seed`` and its place ``index`` alone.

    * ``gaussian noise``: normal noise, clipped to [0, 1]; the same draws at each severity.
    * ``gaussian blur``: its kernel reaches as far as three deviations (but not beyond the image, which it mirrors).
    * ``rotation``: one half of the images one way, the others the other way, by draw; bilinear, black outside.

    Args:
        images: (N, C, H, W), floating point in [0, 1].
        name: key of :data:`STRENGTHS`.
        severity: 1 to 3, or 0: the images as they are.
        seed: any integer.
        index: (N,) place of each image in its data set.

    Raises:
        ValueError: unknown name or severity.
    """
    strengths = (0.0, *known("corruption", name, STRENGTHS))
    if severity not in range(len(strengths)):
        raise ValueError(f"severity must be 0 to {len(strengths) - 1}, got {severity}")
    if severity == 0:
        return images
    strength = strengths[severity]
    if name == "gaussian noise":
        noise = keyed_normal(seed, index, images.shape[1:], "noise").to(images)
        return (images + strength * noise).clamp(0, 1)
    transform = import_transforms().functional
    if name == "gaussian blur":
        sigma, room = strength * images.shape[-1], min(images.shape[-2:]) - 1
        reach = min(math.ceil(3 * sigma), room)
        return transform.gaussian_blur(images, [2 * reach + 1] * 2, [sigma, sigma]).clamp(0, 1)
    left = keyed_normal(seed, index, torch.Size([1]), "rotation")[:, 0].to(images.device) > 0
    bilinear = transform.InterpolationMode.BILINEAR
    turned = [transform.rotate(images, angle, interpolation=bilinear) for angle in (strength, -strength)]
    return torch.where(left.view(-1, 1, 1, 1), *turned).clamp(0, 1)
