"""Images and logits of every precision, images of every shape, batches of every size."""

from __future__ import annotations

import pytest
import torch
from mean_model import parameters
from tiny import ROWS, Layers, attack, images, predicted, threat_of
from torch import nn

from isce import attacks
from isce.attacks.base import Found, Problem
from isce.attacks.foreign.lent import cast
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.losses import build

PACKAGES = [name for name in attacks.names() if attacks.about(name).package]


class Rounded(nn.Module):
    """Logits in half precision, as autocast inside a network returns them; ``lead`` keeps class 0 from falling."""

    def __init__(self, dtype: torch.dtype, lead: float) -> None:
        super().__init__()
        self.layers, self.dtype, self.lead = Layers(), dtype, lead

    def forward(self, x):
        return (self.layers(x) + self.lead * (torch.arange(4) == 0)).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("name", "lead"), [*((name, 0) for name in attacks.names()), ("autoattack", 20)])
def test_logits_in_any_precision_can_be_attacked(name, dtype, lead):
    """AutoAttack and C&W write logits into buffers of float32; with a lead every part of AutoAttack is run."""
    model, x = Rounded(dtype, lead), images(3)
    found = attack(ROWS[name], model, x, predicted(model, x))
    assert found.adversarial.dtype == torch.float32
    assert torch.equal(found.success, predicted(model, found.adversarial) != predicted(model, x))
    assert lead or found.success.any() or name in ("local-search", "spatial")


@pytest.mark.parametrize("name", attacks.names())
def test_images_in_double_precision_can_be_attacked(name):
    model, x = Layers().double(), images(6).double() * (1 - 1e-9)  # no float32 is quite equal to these
    spec = ROWS[name]
    found = attack(spec, model, x, predicted(model, x))
    assert found.adversarial.dtype == torch.float64
    assert threat_of(spec).inside(found.adversarial, x).all()
    assert found.success.any()
    assert not found.rejected.any()


def test_pixels_that_a_package_left_alone_keep_their_value_in_double_precision():
    """In float32 no pixel is quite its own, and each would count as changed in the l_0 norm."""
    x, seen = images(2).double() / 3, {}

    def first_pixel(spec: AttackSpec, problem: Problem, restart: int) -> Found:
        seen.update(x=problem.x.dtype, logits=problem.logits.dtype, now=problem.classifier(problem.x).dtype)
        points = problem.x.clone()
        points[:, :, 0, 0] = 1
        return Found.only(points)

    spec, threat, model = ROWS["single-pixel"], threat_of(ROWS["single-pixel"]), Layers().double()
    y = predicted(model, x)
    problem = Problem(model, build("sce"), x, y, torch.arange(2), threat, 0, model(x).detach(), best=x)
    points = cast(first_pixel, double=False)(spec, problem, 0).points
    assert set(seen.values()) == {torch.float32}
    assert points.dtype == torch.float64
    assert (threat.distance(points, x) == 1).all()
    cast(first_pixel, double=True)(spec, problem, 0)
    assert set(seen.values()) == {torch.float64}


class OnePixel(nn.Module):
    """Class 1 where one pixel is black; the blacker the likelier."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column

    def forward(self, x):
        assert x.shape[2:] == (2, 5)
        score = 0.005 - x[:, :, self.row, self.column].mean(1)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", ["single-pixel", "local-search"])
def test_a_single_pixel_is_found_wherever_it_is(name, turned):
    """advertorch takes rows for columns in images that are not square."""

    class Turned(OnePixel):
        def forward(self, x):
            return super().forward(x.transpose(2, 3) if turned else x)

    x = 0.2 * images(1, (2, 5, 2) if turned else (2, 2, 5)) + 0.01  # these change when 0.5 is taken off and put on
    more = {"steps": 10} if name == "single-pixel" else {"steps": 8, "norm": "l0", "eps": 1}
    for place in range(10):
        found = attack(AttackSpec(attack=name, **more), Turned(*divmod(place, 5)), x, torch.tensor([0]))
        assert found.success.all()
        assert threat_of(ROWS["single-pixel"]).distance(found.adversarial, x) == 1


ODD = [
    *((name, (3, 4, 7)) for name in attacks.names()),
    *((name, shape) for name in ("local-search", "single-pixel") for shape in ((1, 1, 9), (2, 3, 3), (1, 1, 1))),
]


@pytest.mark.parametrize(("name", "shape"), ODD)
def test_images_of_any_shape_can_be_attacked(name, shape):
    model, x = Layers(shape), images(2, shape)
    spec = ROWS[name]
    found = attack(spec, model, x, predicted(model, x))
    assert found.adversarial.shape == x.shape
    assert threat_of(spec).inside(found.adversarial, x).all()
    assert not found.rejected.any()


class RoundedByBatch(Layers):
    """Logits of class 1 are larger in a larger batch, by what rounding may do."""

    def forward(self, x):
        return super().forward(x) + 2e-6 * len(x) * (torch.arange(4) == 1)


def test_what_moves_pixels_about_finds_the_same_in_batches_of_any_size():
    """Its points used to lie on the boundary, where the rounding of a batch decides."""
    model = RoundedByBatch((1, 6, 6), hidden=40, seed=3)
    x = images(24, (1, 6, 6))
    x = x[predicted(model, x) == 1][:6]

    def broken(batch_size: int) -> list[bool]:
        given = parameters([AttackSpec(attack="spatial", steps=15)], [0.1], batch_size=batch_size)
        found = evaluate(model, build("sce"), x, torch.ones_like(x[:, 0, 0, 0]).long(), given, progress=False)
        return (~found.robust("spatial")).tolist()

    whole = broken(6)
    assert any(whole)
    assert all(broken(size) == whole for size in (1, 4))


def test_what_moves_pixels_about_ends_clearly_beyond_the_boundary():
    x, model = images(8, (1, 6, 6)), Layers((1, 6, 6), hidden=40, seed=3)
    found = attack(AttackSpec(attack="spatial", steps=15), model, x, predicted(model, x))
    logits = model(found.adversarial[found.success]).detach()
    best = logits.topk(2, dim=1).values
    assert ((best[:, 0] - best[:, 1]) / (logits.amax(1) - logits.amin(1)) > 1e-5).all()
