"""A few adversarial examples to look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isce import attacks
from isce.attacks import ForeignError, Threat
from isce.attacks.base import untouched
from isce.attacks.checks import check_call, check_index
from isce.attacks.rejection import Blind, refused, rejects
from isce.attacks.spec import AttackSpec
from isce.evaluation.memory import device_of
from isce.losses import Objective


@dataclass(frozen=True)
class Examples:
    """A few images beside their adversarial versions.

    Attributes:
        index: positions among the images (n,), int64.
        clean: (n, C, H, W) in [0, 1].
        adversarial: (n, C, H, W) in [0, 1], verified inside the ball.
        labels: true labels (n,), int64.
        predictions: (n, 4): predicted class and its softmax probability on the raw logits, clean then adversarial.
    """

    index: Tensor
    clean: Tensor
    adversarial: Tensor
    labels: Tensor
    predictions: Tensor


def examples(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    spec: AttackSpec,
    threat: Threat,
    *,
    count: int = 5,
    seed: int = 0,
    batch_size: int = 256,
    index: Tensor | None = None,
) -> Examples:
    """Show the first images, class by class in turn, that are classified right and fall to an attack.

    Of a classifier that may reject only those whose clean version is accepted. A batch on which the package that runs
    the attack fails shows none.

    Args:
        classifier: see :func:`evaluate`.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64.
        spec: the attack.
        threat: norm and eps.
        count: how many to return at most; fewer, or none, where fewer fall.
        seed: keys the attack's randomness.
        batch_size: images attacked at once.
        index: of the evaluation that they are shown for: place of each image in its data set (N,), int64, which keys
            the attack's randomness; default 0 to N - 1.

    Returns:
        The examples, on the CPU.

    Raises:
        TypeError, ValueError, RuntimeError: arguments that can't be used, see ``attacks.run``.
    """
    check_call(classifier, objective, images, labels)
    places = check_index(index, labels)
    device = device_of(classifier, images)
    found = [(torch.arange(0), images[:0].cpu())]
    for rows in torch.arange(len(images)).split(batch_size):
        x, y = images[rows].to(device), labels[rows].to(device)
        try:
            result = attacks.run(spec, classifier, objective, x, y, threat, seed=seed, index=places[rows].to(device))
        except ForeignError:
            continue
        with untouched(classifier), torch.no_grad():
            accepted = ~refused(classifier, classifier(x))
        fallen = (result.success & (result.first_success != 0) & accepted).cpu()
        found.append((rows[fallen], result.adversarial.cpu()[fallen]))
        if sum(len(fallen_rows) for fallen_rows, _ in found) >= count:
            break
    index, adversarial = (torch.cat(parts) for parts in zip(*found, strict=True))
    chosen = _in_turn(labels[index].tolist())[:count]
    index, adversarial = index[chosen], adversarial[chosen]
    clean = images[index].cpu()
    predictions = torch.cat([_predict(classifier, clean.to(device)), _predict(classifier, adversarial.to(device))], 1)
    return Examples(index, clean, adversarial, labels[index].cpu(), predictions)


def _in_turn(labels: list[int]) -> list[int]:
    """Positions in the order: the first of every class, the second of every class, and so on."""
    rank = [labels[:position].count(label) for position, label in enumerate(labels)]
    return sorted(range(len(labels)), key=lambda position: (rank[position], position))


def _predict(classifier: nn.Module, x: Tensor) -> Tensor:
    with untouched(classifier), torch.no_grad():
        network = Blind(classifier) if rejects(classifier) else classifier
        confidence, predicted = network(x).softmax(1).max(1)
    return torch.stack([predicted.to(confidence), confidence], 1).cpu()
