"""The example that the book's first page works by hand: three logits, computed when the book is built."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from isce.losses import inference_softmax_cross_entropy
from isce.report.exhibits import Table
from isce.report.reference import Files

CLASSES = ("cat", "dog", "fox")  # the first is the true one
LOGITS = (4.0, 2.5, 1.0)
INFERENCE = 2.0
RADIUS = INFERENCE / 2  # of the box of logits whose worst point the loss is the value at


@dataclass(frozen=True)
class Worked:
    """What one loss makes of the logits.

    Attributes:
        seen: the logits after the term.
        probabilities: their softmax.
        loss: in nats.
        gradient: of the loss by the logits.
    """

    seen: list[float]
    probabilities: list[float]
    loss: float
    gradient: list[float]


def work(m: float, logits: tuple[float, ...] = LOGITS) -> Worked:
    """Work the example, in float64; ``m`` = 0 is softmax cross-entropy."""
    z = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    loss = _loss(z, m)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    seen = z.detach() - m * torch.eye(len(logits), dtype=z.dtype)[:1]
    return Worked(seen[0].tolist(), seen.softmax(1)[0].tolist(), loss.item(), gradient[0].tolist())


def worst() -> tuple[tuple[float, ...], float]:
    """Return the corner of the box of logits with the largest softmax cross-entropy, and that loss."""
    moves = itertools.product((-RADIUS, RADIUS), repeat=len(LOGITS))
    corners = [tuple(z + d for z, d in zip(LOGITS, move, strict=True)) for move in moves]
    losses = _loss(torch.tensor(corners, dtype=torch.float64), 0.0)
    return corners[int(losses.argmax())], losses.max().item()


def numbers() -> dict[str, str]:
    """Return the texts that sentences name: ``sce.loss``, ``isce.p-cat``, ``weight``, ``worst.loss``, ..."""
    every = {"sce": work(0.0), "isce": work(INFERENCE)}
    found: dict[str, str] = {"worst.loss": f"{worst()[1]:.3f}"}
    for name, made in every.items():
        found[f"{name}.loss"] = f"{made.loss:.3f}"
        for label, share, slope in zip(CLASSES, made.probabilities, made.gradient, strict=True):
            found |= {f"{name}.p-{label}": f"{share:.0%}", f"{name}.pull-{label}": f"{abs(slope):.2f}"}
    found["weight"] = f"{every['isce'].gradient[0] / every['sce'].gradient[0]:.2f}"
    return found


def example(files: Files) -> Table:
    """Return the example as a table: every quantity for both losses, and for SCE at the worst point of the box."""
    corner, _ = worst()
    every = (work(0.0), work(INFERENCE), work(0.0, corner))
    rows = [["logits in the loss", *(_row(made.seen, 1) for made in every)]]
    rows.append(["probabilities", *(_row(made.probabilities, 2) for made in every)])
    rows.append(["loss", *(f"{made.loss:.3f}" for made in every)])
    rows.append(["gradient", *(_row(made.gradient, 2) for made in every)])
    columns = [
        ", ".join(CLASSES),
        "SCE",
        f"I-SCE (text, m = {INFERENCE:g})",
        f"SCE where each logit moved by {RADIUS:g} at worst",
    ]
    return Table(columns=columns, rows=rows, caption=f"One image of a {CLASSES[0]}, worked by hand.")


def _loss(logits: Tensor, m: float) -> Tensor:
    return inference_softmax_cross_entropy(logits, torch.zeros(len(logits)).long(), m, reduction="none")


def _row(values: list[float], digits: int) -> str:
    return f"({', '.join(f'{value:.{digits}f}' for value in values)})"
