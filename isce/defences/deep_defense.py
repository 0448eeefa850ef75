"""Deep defense (Yan, Guo and Zhang 2018): fine-tuning on the length of DeepFool's perturbation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isce.defences.base import Batch, Defence
from isce.losses.checks import integer, number
from isce.models import Classifier

OVERSHOOT, RIVALS = 0.02, 3
FLAT = 1e-12  # a gradient whose square is less is no direction: its derivatives would overflow


class DeepDefense(Defence):
    r"""Go on with a trained network on loss + weight R (Yan et al. 2018, eq. 5 and 6).

    R is the mean over the batch of exp(-c rho / \|\|x\|\|) for an image that is right and of exp(d rho / \|\|x\|\|) for
    one that is wrong, rho the l_2 length of DeepFool's perturbation, see :func:`perturbation`. The paper has sums over
    the images in both terms; with means the weight between them is the same.

    rho counts up to \|\|x\|\|, which the paper does not say: where a gradient is nearly 0 DeepFool goes far away, and
    one wrong image would outweigh all others, or overflow.

    First the same run without a defence is trained; this run starts with its weights, and has the same number of
    epochs. Fine-tuning needs a smaller learning rate, so the gradient is multiplied by ``rate``: with SGD that is the
    run's learning rate times ``rate``, with Adam it is nothing. The paper has 5 epochs at 0.0005 on MNIST.

    Args:
        weight: lambda, above 0; 15 in the paper.
        c: for images that are right, above 0; 25 in the paper.
        d: for images that are wrong, above 0; 5 in the paper.
        steps: of DeepFool, at least 1.
        rate: of the run's learning rate, in (0, 1].
    """

    name = "deep-defense"
    title = "deep defense"
    source = "Yan et al. 2018"

    def __init__(
        self, weight: float = 15.0, c: float = 25.0, d: float = 5.0, steps: int = 5, rate: float = 0.1
    ) -> None:
        super().__init__()
        self.weight, self.c, self.d = (number(n, v, above=0) for n, v in {"weight": weight, "c": c, "d": d}.items())
        self.steps = integer("steps", steps, at_least=1)
        self.rate = number("rate", rate, above=0, at_most=1)

    def before(self) -> dict[str, Any]:
        """Name the same run without a defence."""
        return {}

    def begin(self, classifier: Classifier, first: Classifier) -> None:
        """Take over the weights."""
        classifier.load_state_dict(copy.deepcopy(first.state_dict()))

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Objective and regulariser; the logits are those of the images."""
        logits, embedding = batch.outputs(batch.x)

        def scores(point: Tensor) -> Tensor:
            return batch.outputs(point)[0]

        rho = lengths(perturbation(scores, batch.x, batch.y, self.steps))
        share = (rho / lengths(batch.x).clamp(min=torch.finfo(rho.dtype).tiny)).clamp(max=1)
        right = logits.argmax(1) == batch.y
        regulariser = torch.where(right, -self.c * share, self.d * share).exp().mean()
        loss = batch.objective(logits, batch.y, embedding) + self.weight * regulariser
        return loss.detach() + self.rate * (loss - loss.detach()), logits


def perturbation(scores: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int) -> Tensor:
    r"""DeepFool's perturbation (Moosavi-Dezfooli et al. 2016), as a differentiable function of the network.

    Each step adds r = g w / \|\|w\|\|^2, with g = f_own - f_rival at the point of now and w its gradient, turned
    downhill: the way to the hyperplane on which the two are equal if g is linear. An image that is right has its label
    as own class, and as rival, of the 3 with the largest other logits at the image, the one whose hyperplane is
    nearest. An image that is wrong has the largest other logit of now as own class, and its label as rival. It stops
    once 1.02 times the sum of its steps has changed the prediction, or made it right, or is longer than the image. As
    in the authors' code the points themselves move without that factor; the perturbation is the plain sum, which for a
    linear network is exact.

    The whole recursion is differentiated, by double backward: each r depends on the weights by g, by w and by the point
    before. Which rival, which prediction and when to stop are taken as constants, as they are almost everywhere.

    Args:
        scores: logits (N, K) of images.
        x: images (N, C, H, W); not clipped to the box.
        y: labels (N,).
        steps: at most so many.

    Returns:
        Perturbations, shaped as ``x``, with a graph to the weights; no step is taken where w is shorter than 1e-6.
    """
    x = x.detach()
    total, going = torch.zeros_like(x), torch.arange(len(x), device=x.device)
    candidates, right = going[:, None], going.bool()  # the first step sets them
    for step in range(steps):
        point = x[going] + total[going]
        if not point.requires_grad:
            point.requires_grad_()
        with torch.enable_grad():
            logits = scores(point)
        labels = y[going]
        if step == 0:
            right = logits.argmax(1) == labels
            nearby = _others(logits, labels).topk(min(RIVALS, logits.shape[1] - 1), dim=1).indices
            candidates = torch.where(right[:, None], nearby, labels[:, None])
        own = torch.where(right, labels, _others(logits, labels).argmax(1))
        rival = _nearest(logits, point, own, candidates)
        move = _towards(logits, point, own, rival)
        total = total.index_add(0, going, move)
        with torch.no_grad():
            moved = (1 + OVERSHOOT) * total[going]
            kept = (scores(x[going] + moved).argmax(1) == labels) == right
            kept &= lengths(moved) <= lengths(x[going])
        going, candidates, right = going[kept], candidates[kept], right[kept]
        if not len(going):
            break
    return total


def lengths(x: Tensor) -> Tensor:
    """l_2 norm of each image (N, ...), whose gradient at 0 is 0."""
    squares = x.flatten(1).square().sum(1)
    return torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)


def _others(logits: Tensor, y: Tensor) -> Tensor:
    """Logits, with that of the label at minus infinity; without a graph."""
    return logits.detach().scatter(1, y[:, None], -torch.inf)


def _gap(logits: Tensor, own: Tensor, rival: Tensor) -> Tensor:
    return (logits.gather(1, own[:, None]) - logits.gather(1, rival[:, None]))[:, 0]


def _nearest(logits: Tensor, point: Tensor, own: Tensor, candidates: Tensor) -> Tensor:
    """The candidate (N,) of (N, R) whose linearised boundary is nearest."""
    distances = list[Tensor]()
    for rival in candidates.T:
        gap = _gap(logits, own, rival)
        (slope,) = torch.autograd.grad(gap.sum(), point, retain_graph=True)
        distances.append(gap.detach().abs() / slope.flatten(1).norm(dim=1).clamp(min=torch.finfo(gap.dtype).tiny))
    return candidates.gather(1, torch.stack(distances, 1).argmin(1, keepdim=True))[:, 0]


def _towards(logits: Tensor, point: Tensor, own: Tensor, rival: Tensor) -> Tensor:
    """The step to the linearised boundary, differentiable."""
    gap = _gap(logits, own, rival)
    (slope,) = torch.autograd.grad(gap.sum(), point, create_graph=True)
    squares = slope.square().flatten(1).sum(1)
    flat = squares < FLAT
    factor = torch.where(flat, 0.0, gap / torch.where(flat, 1.0, squares))
    return -factor[:, None, None, None] * slope
