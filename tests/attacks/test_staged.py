"""The staged attack: which class an image falls to, who goes on, whole batches, and draws."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny import Hidden, Layers, images, predicted
from torch import Tensor, nn

from isce.attacks import AttackResult, Threat, run
from isce.attacks.base import Problem, margin
from isce.attacks.climb import climb
from isce.attacks.spec import AttackSpec
from isce.attacks.staged import FAR, STAGES, _State
from isce.losses import build


def staged(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps=20, restarts=1, **more) -> AttackResult:
    spec = AttackSpec(attack="staged", steps=steps, restarts=restarts)
    return run(spec, model, build("sce"), x, y, threat, seed=0, **more)


class LastClass(nn.Module):
    """Class 0 holds against classes 1 to 5, which rise with a pixel each; the last, far below all, rises steeply."""

    def forward(self, x):
        pixels = x.flatten(1) - 0.5
        others = 0.5 + 0.4 * (20 * pixels[:, 1:6]).tanh()
        return torch.cat([1 + 0 * pixels[:, :1], others, -3 + 60 * pixels[:, 6:7]], 1)


@pytest.mark.parametrize("threat", [Threat("linf", 0.1), Threat("l2", 0.1)], ids=lambda threat: threat.label)
def test_an_image_that_falls_only_to_the_class_of_the_lowest_clean_logit_is_found(threat):
    x, y, model = torch.full((3, 1, 3, 3), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64), LastClass()
    assert model(x).argmin(1).tolist() == [6] * 3
    misled = AttackSpec(attack="matched", objective="margin", steps=50)
    assert not run(misled, model, build("sce"), x, y, threat, seed=0).success.any()
    result = staged(model, x, y, threat)
    assert result.success.all()
    assert model(result.adversarial).argmax(1).tolist() == [6] * 3
    assert (result.first_success > 0).all()


class BatchLayers(Layers):
    """Logits depend on the batch; notes the size of each."""

    batch_dependent = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def forward(self, x):
        self.sizes.add(len(x))
        logits = super().forward(x)
        return logits - logits.mean(0)


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_batch_that_must_stay_together_is_shown_whole_and_its_best_points_come_back(restarts):
    model, x, threat = BatchLayers(), images(9), Threat("linf", 0.05)
    y = predicted(model, x)
    result = staged(model, x, y, threat, restarts=restarts)
    assert model.sizes == {9}
    assert torch.equal(result.success, predicted(model, result.adversarial) != y)
    assert threat.inside(result.adversarial, x).all()
    one = AttackSpec(attack="matched", objective="targeted", steps=10)  # the first of the wrong classes, as many steps
    assert result.success.sum() >= run(one, model, build("sce"), x, y, threat, seed=0).success.sum() > 0


@pytest.mark.parametrize("restarts", [1, 3])
def test_climbs_a_few_at_once_find_what_all_at_once_do(restarts, monkeypatch):
    model, x, threat = Layers(seed=2).double(), images(8).double(), Threat("linf", 0.05)
    y, rows = predicted(model, x), list[int]()
    whole = staged(model, x, y, threat, restarts=restarts)
    monkeypatch.setattr("isce.attacks.staged.AT_ONCE", x[0].numel() * 2 * len(model(x[:1])[0]))  # two images or three
    monkeypatch.setattr(
        "isce.attacks.staged.climb", lambda part, *a, **k: rows.append(len(part.y)) or climb(part, *a, **k)
    )
    parts = staged(model, x, y, threat, restarts=restarts)
    assert torch.allclose(parts.adversarial, whole.adversarial, atol=1e-9, rtol=0)
    assert torch.equal(parts.first_success, whole.first_success)
    assert 0 < whole.success.sum() < 8
    assert max(rows) <= 2 * len(model(x[:1])[0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("restarts", [1, 3])
def test_the_batch_does_not_matter_and_the_index_of_an_image_keys_its_draws(norm, restarts):
    model, x, threat = Layers(seed=2).double(), images(8).double(), Threat(norm, 0.05 if norm == "linf" else 0.15)
    y, index = predicted(model, x), torch.arange(100, 108)
    whole = staged(model, x, y, threat, restarts=restarts, index=index)
    assert 0 < whole.success.sum() < 8
    parts = [staged(model, x[r], y[r], threat, restarts=restarts, index=index[r]) for r in torch.arange(8).split(3)]
    assert torch.allclose(torch.cat([part.adversarial for part in parts]), whole.adversarial, atol=1e-9, rtol=0)
    assert torch.equal(torch.cat([part.first_success for part in parts]), whole.first_success)


def test_restarts_draw_by_the_index():
    """Where gradients are hidden, squares alone move the point."""
    x, y = torch.full((4, 1, 4, 4), 0.45), torch.zeros(4, dtype=torch.int64)
    given = Hidden(), x, y, Threat("linf", 0.1)
    one, again, other = (
        staged(*given, steps=2, restarts=2, index=torch.arange(4) + at).adversarial for at in (0, 0, 9)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_an_image_whose_margin_has_not_moved_is_never_stopped():
    x, y = torch.full((4, 1, 4, 4), 0.45), torch.zeros(4, dtype=torch.int64)
    threat = Threat("linf", 0.1)
    assert not staged(Hidden(), x, y, threat, steps=60).success.any()
    found = staged(Hidden(), x, y, threat, steps=60, restarts=4)
    assert found.success.all()
    assert (found.first_success >= 60).all()


class Stuck(nn.Module):
    """The margin falls to a share of the clean one, and no further; notes the sizes of batches with a gradient."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.sizes: list[int] = []

    def forward(self, x):
        if torch.is_grad_enabled() and x.requires_grad:
            self.sizes.append(len(x))
        rise = (1 - self.share) * (100 * (x.flatten(1).mean(1) - 0.2)).tanh()
        return torch.stack([1 - rise, torch.zeros_like(rise), torch.zeros_like(rise) - 0.5], 1)


@pytest.mark.parametrize(("share", "goes_on"), [(0.1, True), (0.25, True), (0.5, False), (0.85, False), (0.95, True)])
def test_who_stands_far_off_after_two_stages_is_left_and_who_may_fall_or_is_blind_goes_on(share, goes_on):
    """The image is climbed from in two stages (2 and 4 steps of 20 each), or in all four, and in a restart."""
    model, x, steps = Stuck(share), torch.full((1, 1, 3, 3), 0.2, dtype=torch.float64), 20
    staged(model, x, torch.zeros(1, dtype=torch.int64), Threat("linf", 0.1), steps=steps, restarts=2)
    climbs = [round(part * steps) for part, _ in STAGES]
    expected = climbs + climbs[-1:] if goes_on else climbs[:2]
    assert len(model.sizes) - 1 == sum(expected)  # one shows that there is a gradient
    assert set(model.sizes[1:]) == {2}, "two wrong classes"


def test_the_rule_has_no_place_for_an_unmoved_margin_nor_for_a_tie():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    x, y = images(5), torch.zeros(5, dtype=torch.int64)
    model = _Table(logits)
    problem = Problem(model, build("sce"), x, y, torch.arange(5), Threat("linf", 0.1), 0, logits, best=x)
    state = _State(problem, x)
    assert state.standing(far=False).tolist() == [0, 1, 2, 3, 4]
    state.lowest = torch.tensor([2.0, 2 * (FAR[0] + FAR[1]) / 2, 2 * FAR[0] - 0.01, 0.0, -1.0])
    state.first[4] = 3
    assert state.standing(far=False).tolist() == [0, 2, 3]
    assert state.standing(far=True).tolist() == [0, 1, 2, 3]


class _Table(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[: len(x)]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_only_lower(norm):
    model, x = Layers(hidden=40, gain=2.0, seed=4).double(), images(24).double()
    y, threat = predicted(model, x), Threat(norm, 0.06 if norm == "linf" else 0.2)
    runs = [staged(model, x, y, threat, steps=6, restarts=restarts) for restarts in (1, 2, 4)]
    for few, more in pairwise(runs):
        assert (more.success | ~few.success).all()
        still = ~more.success
        low, high = (margin(model(result.adversarial), y)[still] for result in (more, few))
        assert (low <= high + 1e-9).all()
    assert (~runs[-1].success).any()


def test_a_gradient_that_is_no_number_gives_no_outcome_unless_the_image_falls():
    class Blind(nn.Module):
        """The way to class 2 has no gradient; class 1 is near for the first image alone."""

        def forward(self, x):
            mean = 10 * (x.flatten(1).mean(1) - 0.5)
            lost = mean + 0 * (mean - mean).sqrt()
            return torch.stack([-mean, mean, lost - 5], 1)

    x = torch.tensor([0.47, 0.2]).view(-1, 1, 1, 1).repeat(1, 1, 3, 3)
    result = staged(Blind(), x, torch.zeros(2, dtype=torch.int64), Threat("linf", 0.05), restarts=2)
    assert result.success.tolist() == [True, False]
    assert result.rejected[1]


def test_the_class_that_came_closest_is_the_first_of_the_next_stage():
    x, y, model = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), LastClass()
    logits = model(x)
    state = _State(Problem(model, build("sce"), x, y, torch.arange(2), Threat("linf", 0.065), 0, logits, x), x)
    assert state.classes[:, -1].tolist() == [6, 6]
    state.stage(torch.arange(2), 10, None, 2.0)
    assert state.classes[:, 0].tolist() == [6, 6], "1 - (60 * 0.065 - 3) = 0.1, and 1 - 0.5 - 0.4 tanh(1.3) = 0.16"
    assert state.first.tolist() == [-1, -1]
