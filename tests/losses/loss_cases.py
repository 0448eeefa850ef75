"""What the suite knows of each objective: the loss written out, values worked by hand, minima, refused parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import loss_formulas as formulas
import torch
from loss_formulas import CENTRES, HALF_LOG_DET, Rows
from torch import Tensor

from isce import losses

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Minimum:
    """A point where the loss has its least value, for a function of one tensor.

    ``direction`` None: smooth there, the gradient is zero. Else there is a kink, and the slopes along the direction
    and against it are both positive.
    """

    point: Tensor
    function: Function
    direction: Tensor | None = None


@dataclass(frozen=True)
class Case:
    """One objective.

    naive: (logits, target, embedding, smoothing, **params) -> loss of each example, from the paper, in plain floats.
    worked: (params, logits, target, embedding or None, loss of each example), worked by hand; the target is labels, or
        probabilities.
    minima: makers of minima.
    variants: parameters to run everything with, beside the defaults.
    bound: logits are drawn in [-bound, bound].
    refused: parameters that the constructor must refuse, with the error.
    """

    naive: Callable[..., list[float]]
    worked: Sequence[tuple[dict[str, Any], Rows, list[int] | Rows, Rows | None, list[float]]]
    minima: Sequence[Callable[[], Minimum]]
    variants: Sequence[dict[str, Any]] = ({},)
    bound: float = 3.0
    refused: Sequence[tuple[dict[str, Any], type[Exception]]] = field(default=())


def make(name: str, **params: Any) -> losses.Objective:
    """An objective with the suite's own weights, in evaluation mode (where center's centres stand still)."""
    objective = losses.build(name, **params)
    logits = objective.score_map(3, 4)
    if isinstance(objective, losses.CenterLoss):
        objective.centres = torch.tensor(CENTRES)
    if isinstance(logits, losses.GaussianScores) and logits.log_variance is not None:
        logits.log_variance.data = torch.tensor(HALF_LOG_DET).reshape(4, 1).expand(4, 3) * 2 / 3
    return objective.eval()


def _y(label: int = 0) -> Tensor:
    return torch.tensor([label])


def _far(name: str, **params: Any) -> Callable[[], Minimum]:
    """The least value is reached where float64 can no longer tell the wrong classes' probability from 0."""
    objective = make(name, **params)
    return lambda: Minimum(torch.tensor([[1000.0, 0, 0, 0]]).double(), lambda z: objective(z, _y()))


def _released_smooth() -> Minimum:
    objective = make("isce-released", clip=False)
    z = torch.full((1, 10), -0.1).double()
    z[0, 0] = 0.9
    return Minimum(z, lambda z: objective(z, _y()))


def _released_kink() -> Minimum:
    """On the sphere at t_y = 0.9, the wrong classes equal; the direction turns towards e_y."""
    objective = make("isce-released")
    z = torch.full((1, 10), -math.sqrt(0.19 / 9)).double()
    z[0, 0] = 0.9
    direction = torch.full((1, 10), 0.9 / 3).double()
    direction[0, 0] = math.sqrt(0.19)
    return Minimum(z, lambda z: objective(z, _y()), direction)


def _smoothing() -> Minimum:
    objective = make("label-smoothing", label_smoothing=0.2)
    z = torch.tensor([[math.log((0.8 + 0.05) / 0.05), 0, 0, 0]]).double()
    return Minimum(z, lambda z: objective(z, _y()))


def _squeezing() -> Minimum:
    """z = a (e_y - 1/C): there the pull of the norm, lam sqrt((C-1)/C), must equal 1 - p_y."""
    objective = make("logit-squeezing", lam=0.1)
    p = 1 - 0.1 * math.sqrt(0.75)
    gap = math.log(3 * p / (1 - p))
    return Minimum(torch.tensor([[0.75, -0.25, -0.25, -0.25]]).double() * gap, lambda z: objective(z, _y()))


def _metric(name: str) -> Callable[[], Minimum]:
    """Embeddings of one class together, of two classes far apart, logits certain."""
    objective = make(name)
    target = torch.tensor([0, 0, 1, 1])
    z = 1000 * torch.nn.functional.one_hot(target, 4).double()
    h = torch.tensor([[5.0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 5, 0]]).double()
    return lambda: Minimum(torch.cat([z, h], 1), lambda x: objective(x[:, :4], target, x[:, 4:]))


def _center() -> Minimum:
    objective = make("center")
    x = torch.tensor([[1000.0, 0, 0, 0, *CENTRES[0]]]).double()
    return Minimum(x, lambda x: objective(x[:, :4], _y(), x[:, 4:]))


def _lgm() -> Minimum:
    """Means on a simplex of radius 1, h = 2 mu_y: the likelihood's pull lam equals the push C p_k of a wrong class."""
    gap = 2 * 4 / 3
    objective = make("lgm", alpha=0.0, lam=4 / (math.exp(gap) + 3))
    logits = losses.GaussianScores(3, 4).double()
    logits.means.data = losses.simplex(4, 3)
    return Minimum(2 * losses.simplex(4, 3)[:1], lambda h: objective(logits(h), _y()))


def _mmc() -> Minimum:
    objective = make("mmc")
    logits = objective.score_map(3, 4).double()
    return Minimum(logits.centres[:1].clone(), lambda h: objective(logits(h), _y()))


def _aligned(name: str) -> Minimum:
    """Class directions on a simplex, the embedding along its own. ArcFace's angle makes a cone there: a kink."""
    objective = make(name, scale=4.0)
    logits = objective.score_map(3, 4).double()
    logits.weight.data = losses.simplex(4, 3)
    h = 2 * losses.simplex(4, 3)[:1]
    across = torch.tensor([[0.0, 1.0, 0.5]]).double()
    return Minimum(h, lambda h: objective(logits(h), _y()), across if name == "arcface" else None)


LN2, E = math.log(2), math.e
EQUAL = [[0.0, 0.0, 0.0, 0.0]]
MIXED = [[0.25, 0.75]]  # a soft target: a quarter of the loss of class 0 and three quarters of that of class 1


def _mixed(first: float, second: float) -> list[float]:
    return [0.25 * first + 0.75 * second]


CASES: dict[str, Case] = {
    "sce": Case(
        formulas.sce,
        [
            ({}, [[0.0, 0.0], [LN2, 0.0]], [0, 0], None, [LN2, math.log(1.5)]),
            ({}, [[LN2, 0.0]], MIXED, None, _mixed(math.log(1.5), math.log(3))),
        ],
        [_far("sce")],
        refused=[({"inference": 1.0}, ValueError)],
    ),
    "isce-certified": Case(  # called without bounds, as here, it is softmax cross-entropy: see test_losses_certified.py
        formulas.sce,
        [({"eps": 0.3}, [[0.0, 0.0], [LN2, 0.0]], [0, 0], None, [LN2, math.log(1.5)])],
        [_far("isce-certified")],
        refused=[({"eps": 0.0}, ValueError), ({"eps": "wide"}, TypeError)],
    ),
    "isce": Case(
        formulas.isce,
        [
            ({"inference": LN2}, [[0.0, 0.0], [0.0, 0.0, 0.0][:2]], [0, 1], None, [math.log(3), math.log(3)]),
            ({"inference": [0.0, LN2]}, [[0.0, 0.0], [0.0, 0.0]], [0, 1], None, [LN2, math.log(3)]),
            ({"inference": [[9.0, LN2], [0.0, 9.0]]}, [[0.0, 0.0], [0.0, 0.0]], [0, 1], None, [math.log(3), LN2]),
            ({"inference": LN2}, [[LN2, 0.0]], MIXED, None, _mixed(LN2, math.log(5))),
            ({"inference": [0.0, LN2]}, [[LN2, 0.0]], MIXED, None, _mixed(math.log(1.5), math.log(5))),
            ({"inference": [[9.0, LN2], [0.0, 9.0]]}, [[LN2, 0.0]], MIXED, None, _mixed(LN2, math.log(3))),
        ],
        [_far("isce"), _far("isce", inference=-2.0)],
        variants=[
            {},
            {"inference": -1.5},
            {"inference": [0.5, 1.0, -1.0, 2.0]},
            {"inference": [[0.0, 1.0, 0.5, 2.0], [0.5, 0.0, 1.0, 1.5], [-1.0, 0.5, 3.0, 0.0], [0.0, 0.0, 1.0, 0.0]]},
        ],
        refused=[
            ({"inference": math.nan}, ValueError),
            ({"inference": math.inf}, ValueError),
            ({"inference": [1.0, -math.inf]}, ValueError),
            ({"inference": []}, ValueError),
            ({"inference": [1.0]}, ValueError),
            ({"inference": [[1.0, 2.0]]}, ValueError),
            ({"inference": [[1.0, 2.0], [3.0]]}, ValueError),
            ({"inference": torch.zeros(2, 2, 2)}, ValueError),
            ({"inference": "two"}, TypeError),
            ({"inference": None}, TypeError),
            ({"inference": True}, TypeError),
            ({"inference": [True, False]}, TypeError),
            ({"inference": [1j, 2.0]}, TypeError),
            ({"inference": 10**400}, ValueError),
        ],
    ),
    "isce-released": Case(
        formulas.isce_released,
        [
            # t = (0.6, 0.8), class 1 predicted: outputs 0.6 and 0.9.
            ({}, [[3.0, 4.0], [3.0, 4.0]], [0, 1], None, [math.log(1 + E**0.3), math.log(1 + E**-0.3)]),
            # t = (1, 0): the term is clipped away, or not.
            ({}, [[7.0, 0.0]], [0], None, [math.log(1 + E**-1)]),
            ({"clip": False}, [[7.0, 0.0]], [0], None, [math.log(1 + E**-1.1)]),
            ({"scale": 2.0, "clip": False}, [[3.0, 4.0]], [1], None, [math.log(1 + E**-1.2)]),
            ({}, [[3.0, 4.0]], MIXED, None, _mixed(math.log(1 + E**0.3), math.log(1 + E**-0.3))),
        ],
        [_released_smooth, _released_kink],
        variants=[{}, {"clip": False}, {"inference": 0.3, "scale": 1.5}],
        refused=[
            ({"inference": math.nan}, ValueError),
            ({"inference": [0.1, 0.1]}, TypeError),
            ({"scale": 0.0}, ValueError),
            ({"scale": math.inf}, ValueError),
            ({"clip": "yes"}, TypeError),
            ({"clip": 1}, TypeError),
        ],
    ),
    "contrastive": Case(
        formulas.contrastive,
        [
            # Examples 0 and 1 share the class, at distance 5; example 2 lies 0.5 from 0 and beyond the margin from 1.
            (
                {"lam": 1.0},
                EQUAL * 3,
                [0, 0, 1],
                [[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.5]],
                [2 * LN2 + (12.5 + 0.125) / 2, 2 * LN2 + 12.5 / 2, 2 * LN2 + 0.125 / 2],
            )
        ],
        [_metric("contrastive")],
        variants=[{}, {"margin": 3.0, "lam": 0.7}],
        refused=[({"margin": 0.0}, ValueError), ({"lam": -1.0}, ValueError), ({"margin": "1"}, TypeError)],
    ),
    "triplet": Case(
        formulas.triplet,
        [
            # Unit embeddings at 0, 60 and 90 degrees, classes 0, 0, 1: squared distances 1, 2 and 2 - sqrt(3).
            # Anchor 0: its negative is farther than the positive and outside the margin. Anchor 1: none is farther.
            (
                {},
                EQUAL * 3,
                [0, 0, 1],
                [[2.0, 0.0, 0.0], [0.5, math.sqrt(0.75), 0.0], [0.0, 3.0, 0.0]],
                [2 * LN2, 2 * LN2 + 1 - (2 - math.sqrt(3)) + 0.2, 2 * LN2],
            )
        ],
        [_metric("triplet")],
        variants=[{}, {"margin": 0.8, "lam": 0.5}],
        refused=[({"margin": -0.2}, ValueError), ({"lam": math.nan}, ValueError)],
    ),
    "center": Case(
        formulas.center,
        [({"lam": 2.0}, EQUAL, [1], [[1.0, 1.0, 2.0]], [2 * LN2 + 5.0])],
        [_center],
        variants=[{}, {"lam": 0.5}],
        refused=[({"alpha": 1.5}, ValueError), ({"lam": -0.1}, ValueError), ({"alpha": None}, TypeError)],
    ),
    "lgm": Case(
        formulas.lgm,
        [
            # d = (1, 1 + ln 2, ...): with the margin the true class is 2 away.
            ({"alpha": 1.0, "lam": 0.0}, [[-1.0, -2.0]], [0], None, [LN2]),
            ({"alpha": 1.0, "lam": 0.5}, [[-1.0, -2.0]], [0], None, [LN2 + 0.5]),
            ({"alpha": 1.0, "lam": 0.5}, [[-1.0, -2.0]], MIXED, None, _mixed(LN2 + 0.5, math.log(1 + E**3) + 1)),
        ],
        [_lgm],
        variants=[{}, {"alpha": 0.0, "lam": 0.0}, {"alpha": 0.1, "lam": 0.3, "covariance": "diagonal"}],
        refused=[
            ({"alpha": -0.1}, ValueError),
            ({"lam": math.inf}, ValueError),
            ({"covariance": "full"}, ValueError),
        ],
    ),
    "mmc": Case(
        formulas.mmc,
        [
            ({}, [[-3.0, -5.0], [-3.0, -5.0]], [0, 1], None, [1.5, 2.5]),
            ({}, [[-3.0, -5.0]], MIXED, None, _mixed(1.5, 2.5)),
        ],
        [_mmc],
        refused=[
            ({"c_mm": 0.0}, ValueError),
            ({"c_mm": True}, TypeError),
            ({"c_mm": 10**400}, ValueError),
            ({"label_smoothing": 0.1}, ValueError),
        ],
    ),
    "cosface": Case(
        formulas.cosface,
        [
            ({"scale": 2.0, "margin": 0.5}, [[1.0, 0.0]], [0], None, [LN2]),
            ({"scale": 2.0, "margin": 0.5}, [[1.0, 0.0]], MIXED, None, _mixed(LN2, math.log(1 + E**2))),
        ],
        [lambda: _aligned("cosface")],
        variants=[{}, {"scale": 3.0}],
        refused=[({"scale": 0.0}, ValueError), ({"margin": -0.1}, ValueError), ({"margin": "0"}, TypeError)],
    ),
    "arcface": Case(
        formulas.arcface,
        [
            # 60 degrees turned by 30: cosine 0; 180 degrees can't be turned further: -1 - m sin(m).
            ({"scale": 2.0, "margin": math.pi / 6}, [[1.0, 0.0]], [0], None, [LN2]),
            (
                {"scale": 2.0, "margin": math.pi / 6},
                [[-2.0, 0.0]],
                [0],
                None,
                [math.log(1 + math.exp(2 + math.pi / 6))],
            ),
            # The second class, at 90 degrees, is turned to 120: cosine -1/2.
            ({"scale": 2.0, "margin": math.pi / 6}, [[1.0, 0.0]], MIXED, None, _mixed(LN2, math.log(1 + E**2))),
        ],
        [lambda: _aligned("arcface")],
        variants=[{}, {"scale": 3.0, "margin": 1.2}],
        bound=2.9,
        refused=[({"scale": -1.0}, ValueError), ({"margin": 2.0}, ValueError)],
    ),
    "label-smoothing": Case(
        formulas.sce,
        [
            ({"label_smoothing": 0.5}, [[LN2, 0.0]], [0], None, [math.log(3) - 0.75 * LN2]),
            ({"label_smoothing": 0.5}, [[LN2, 0.0]], MIXED, None, [math.log(3) - 0.375 * LN2]),
        ],
        [_smoothing],
        variants=[{}, {"label_smoothing": 0.3}],
        refused=[({"label_smoothing": 1.5}, ValueError), ({"label_smoothing": None}, TypeError)],
    ),
    "logit-squeezing": Case(
        formulas.logit_squeezing,
        [
            ({"lam": 0.1}, [[3.0, 3.0, 3.0, 3.0]], [2], None, [2 * LN2 + 0.6]),
            ({"lam": 0.1}, [[3.0, 3.0, 3.0, 3.0]], [[0.1, 0.2, 0.3, 0.4]], None, [2 * LN2 + 0.6]),
        ],
        [_squeezing],
        variants=[{}, {"lam": 0.05}],
        refused=[({"lam": -0.5}, ValueError)],
    ),
}
