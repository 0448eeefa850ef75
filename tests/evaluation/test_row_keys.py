"""The key of a row: whatever decides its outcome is in it, whatever does not is not."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from mean_model import ROWS, VALUES, Mean, flat, parameters

from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.evaluation import state
from isce.evaluation.job import Job
from isce.losses import build
from isce.parameters import semantics


class Rounded(Mean):
    """What it is lies in an attribute, an array and a buffer that no checkpoint holds."""

    def __init__(self, levels=6, shift=0.0, scale=1.0, shapes=(1, 2)) -> None:
        super().__init__()
        self.levels, self.shift, self.shapes = levels, np.array([shift]), {"of": [shapes]}
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.bfloat16), persistent=False)

    def forward(self, x):
        return super().forward((self.levels * x).round() / self.levels + float(self.shift[0])) * self.scale.double()


def key_of(model, objective="sce", row=ROWS[0], eps=0.1, standing=8, spared=0, **changes) -> str:
    x, y = flat(VALUES)
    job = Job(model, build(objective), x, y, torch.arange(8), parameters(rows=[row], **changes))
    masks = np.arange(8) < standing, np.arange(8) < spared
    return state.RowKeys(job).key(row, Threat("linf", eps), *masks)


CHANGES = {
    "attribute": (Rounded(levels=5), {}),
    "array": (Rounded(shift=0.01), {}),
    "buffer": (Rounded(scale=2.0), {}),
    "nested": (Rounded(shapes=(1, 3)), {}),
    "class": (Mean(), {}),
    "objective": (Rounded(), {"objective": "lgm"}),
    "row": (Rounded(), {"row": ROWS[1]}),
    "eps beyond six digits": (Rounded(), {"eps": 0.1 + 1e-9}),
    "standing": (Rounded(), {"standing": 7}),
    "spared": (Rounded(), {"spared": 1}),
    "seed": (Rounded(), {"seed": 1}),
    "points": (Rounded(), {"keep_points": True}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_decides_a_row_is_in_its_key(name):
    model, changes = CHANGES[name]
    assert key_of(model, **changes) != key_of(Rounded())


@pytest.mark.parametrize("model", [Rounded(), Rounded().train()])
@pytest.mark.parametrize("changes", [{}, {"batch_size": 3}])
def test_what_does_not_decide_a_row_is_not(model, changes):
    assert key_of(model, **changes) == key_of(Rounded())


GAIN = 2.0


def _scaled(x):
    return GAIN * x


class Through(Mean):
    """A network with a function for an attribute."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return super().forward(self.function(x))


def _by(factor):
    return lambda x: factor * x


def test_what_a_function_of_the_network_does_is_in_the_key(monkeypatch):
    functions = [_by(1.0), _by(2.0), lambda x: x + 1, lambda x: x + 2, _scaled, functools.partial(_scaled), torch.relu]
    keys = [key_of(Through(one)) for one in functions]
    assert len(set(keys)) == len(keys)
    assert key_of(Through(_by(2.0))) == keys[1]
    monkeypatch.setitem(globals(), "GAIN", 3.0)
    assert key_of(Through(_scaled)) != keys[4]


def test_autoattack_draws_for_a_batch_at_once():
    row = AttackSpec(attack="autoattack")
    assert key_of(Mean(), row=row, batch_size=2) != key_of(Mean(), row=row, batch_size=3)


@pytest.mark.parametrize(
    ("part", "counts"),
    [("attack", True), ("attack.fgsm", True), ("attack.matched", False), ("train", False), ("minmax", False)],
)
def test_the_semantics_that_decide_a_row_are_in_its_key(monkeypatch, part, counts):
    before = key_of(Mean())
    monkeypatch.setitem(semantics.CHANGES, part, ["another"] * 9)
    assert (key_of(Mean()) != before) == counts
