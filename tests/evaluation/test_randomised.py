"""Classifiers that draw at random: shares known in closed form, and nothing that goes wrong looks like robustness."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mean_model import BatchMean, Mean
from spying import KilledError
from torch import nn

from isce import attacks, data
from isce.attacks import Threat, expectation
from isce.attacks.base import Problem
from isce.attacks.keys import keyed_draws
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, outcome, randomised, red_flags
from isce.evaluation.intervals import wilson, wilson_and_draws
from isce.losses import build
from isce.models.assembly import assemble
from isce.models.randomised import at
from isce.parameters.attack import AttackParameters, Suite
from isce.parameters.training import TrainParameters
from isce.runs.session import accuracy_table

SUITE = Suite(name="s", rows=[AttackSpec(attack="fgsm")])
SEED = 3
JUDGE, ATTACK, NAIVE = keyed_draws(SEED, "judge", 9), keyed_draws(SEED, "attack", 5), keyed_draws(SEED, "naive", 1)[0]


class Drawing(nn.Module):
    """Two classes; the logits are the mean over draws of what a subclass computes with one."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: tuple[int, ...] = (0,)
        self.gain = nn.Parameter(torch.tensor(5.0))

    def value(self, x, draw):
        raise NotImplementedError

    def forward(self, x):
        value = torch.stack([self.value(x, draw) for draw in self.draws]).mean(0)
        return torch.stack([-value, value], 1)


class Halves(Drawing):
    """Class 1 where the mean of one half of the image exceeds 0.5; the draw says which half."""

    def value(self, x, draw):
        return self.gain * (x.chunk(2, 3)[draw % 2].flatten(1).mean(1) - 0.5)


class Opposed(Drawing):
    """Class 1 where the mean exceeds 0.55 at an odd draw, where it is below 0.45 at an even one: never at both."""

    def value(self, x, draw):
        mean = x.flatten(1).mean(1)
        return self.gain * (mean - 0.55 if draw % 2 else 0.45 - mean)


def grey(value=0.45, images=3):
    return torch.full((images, 1, 16, 16), value), torch.zeros(images, dtype=torch.int64)


def parameters(eps=(0.1,), **changes):
    draws = {"attack": len(ATTACK), "judge": len(JUDGE), "steps": 10} | changes.pop("draws", {})
    return AttackParameters.model_validate(
        {"checkpoint": "none", "suite": SUITE, "eps": list(eps), "seed": SEED, "draws": draws} | changes
    )


def found(classifier, images=None, chosen=None, **more):
    return evaluate(classifier, build("sce"), *(images or grey()), chosen or parameters(), progress=False, **more)


def test_an_attack_on_one_draw_leaves_the_others_and_one_who_knows_leaves_none():
    results = found(Halves()).results()["randomised"]
    left = sum(draw % 2 != NAIVE % 2 for draw in JUDGE) / len(JUDGE)
    assert 0 < left < 1
    threat = results["threats"]["linf@0.1"]
    assert results["clean"]["accuracy"] == 1
    assert threat["naive"]["accuracy"] == pytest.approx(left)
    assert threat["knowing"]["accuracy"] == 0
    assert (threat["knowing"]["n"], threat["knowing"]["low"]) == (3, 0)
    assert results["draws"] == {"attack": 5, "judge": 9, "steps": 10}


def test_nobody_breaks_what_is_out_of_reach():
    results = found(Halves(), grey(0.38)).results()["randomised"]["threats"]["linf@0.1"]
    assert results["naive"]["accuracy"] == results["knowing"]["accuracy"] == 1


def test_of_draws_that_no_point_fools_together_the_larger_part_falls():
    odd = sum(draw % 2 for draw in ATTACK) > len(ATTACK) / 2
    left = sum(draw % 2 != odd for draw in JUDGE) / len(JUDGE)
    results = found(Opposed(), grey(0.5)).results()["randomised"]["threats"]["linf@0.1"]
    assert results["knowing"]["accuracy"] == pytest.approx(left)
    assert 0 < left < 1, "one fooled draw is not a broken image"


def test_an_image_that_is_wrong_anyway_counts_by_its_share():
    assert found(Halves(), grey(0.6)).results()["randomised"]["clean"]["accuracy"] == 0


def test_keys_of_the_three_purposes_are_disjoint_and_the_same_again():
    every = [keyed_draws(SEED, purpose, 100) for purpose in ("attack", "judge", "naive", "flag")]
    assert len(set().union(*every)) == 400
    assert keyed_draws(SEED, "judge", 9) == JUDGE
    assert not set(keyed_draws(SEED + 1, "judge", 9)) & set(JUDGE)


def test_points_are_judged_by_fresh_draws_alone_and_found_without_them(monkeypatch):
    seen: dict[str, set[int]] = {"find": set(), "judge": set()}

    class Spying(Halves):
        def value(self, x, draw):
            seen["judge" if judging else "find"].add(draw)
            return super().value(x, draw)

    judging, real = False, randomised.FreshDraws.right

    def right(self, *given):
        nonlocal judging
        judging = True
        try:
            return real(self, *given)
        finally:
            judging = False

    model = Spying()
    monkeypatch.setattr(randomised.FreshDraws, "_check_keyed", lambda self: None)
    monkeypatch.setattr(randomised.FreshDraws, "right", right)
    found(model)
    assert seen["judge"] == set(JUDGE)
    assert seen["find"] == {0, NAIVE, *ATTACK}  # 0: what the suite sees
    assert model.draws == (0,)


def test_a_point_of_a_smaller_eps_is_known_at_a_larger_one():
    results = found(Halves(), chosen=parameters(eps=(0.1, 0.2, 0.3))).results()["randomised"]["threats"]
    assert [cell["knowing"]["accuracy"] for cell in results.values()] == [0, 0, 0]


def test_l2_too():
    results = found(Halves(), chosen=parameters(eps=(2.0,), norm="l2")).results()["randomised"]["threats"]["l2@2"]
    assert results["knowing"]["accuracy"] == 0


class Broken(Halves):
    """Goes wrong at one draw, and once images have moved."""

    def __init__(self, kind, draw) -> None:
        super().__init__()
        self.kind, self.draw = kind, draw

    def forward(self, x):
        logits = super().forward(x)
        if self.draws != (self.draw,) or bool((x == x.flatten()[0]).all()):
            return logits
        if self.kind == "exception":
            raise ArithmeticError("planted")
        if self.kind == "gradient":  # 0 times infinity on the way back
            return logits + 0 * (x.flatten(1).sum(1, keepdim=True) * 0).sqrt()
        wrong = {"nan": logits * math.nan, "inf": logits / 0, "fewer": logits[:-1], "more": logits[None]}
        return wrong[self.kind]


@pytest.mark.parametrize("draw", [JUDGE[4], ATTACK[2]], ids=["judge", "attack"])
@pytest.mark.parametrize("kind", ["exception", "nan", "inf", "fewer", "more"])
def test_a_draw_that_goes_wrong_ends_the_evaluation(kind, draw):
    with pytest.raises((RuntimeError, ArithmeticError)):
        found(Broken(kind, draw))


def test_a_gradient_that_is_not_finite_ends_it_too():
    with pytest.raises(RuntimeError, match="gradients of draw"):
        found(Broken("gradient", ATTACK[2]))


def test_a_naive_attack_without_a_valid_point_ends_it(monkeypatch):
    real = attacks.run

    def rejects(spec, *given, **named):
        result = real(spec, *given, **named)
        bad = torch.ones_like(result.success)
        return replace(result, rejected=bad, success=~bad) if spec == randomised.NAIVE else result

    monkeypatch.setattr(attacks, "run", rejects)
    with pytest.raises(RuntimeError, match="no valid point"):
        found(Halves())


@pytest.mark.parametrize(
    "points",
    [lambda x: x + 0.11, lambda x: x * math.nan, lambda x: x[:-1], lambda x: x[None], lambda x: x - 1],
    ids=["outside", "nan", "fewer", "more", "box"],
)
@pytest.mark.parametrize("place", ["ascent", "expectation"])
def test_points_that_are_none_end_it(monkeypatch, points, place):
    where = expectation if place == "ascent" else randomised
    real = getattr(where, place)
    monkeypatch.setattr(where, place, lambda *given: points(real(*given)))
    with pytest.raises(RuntimeError):
        found(Halves())


def test_margins_and_shares_that_are_wrong_end_it(monkeypatch):
    monkeypatch.setattr(expectation, "margin", lambda logits, y: torch.full(y.shape, math.nan))
    with pytest.raises(RuntimeError, match="margins"):
        found(Halves())
    monkeypatch.undo()
    real = randomised.FreshDraws.right
    monkeypatch.setattr(randomised.FreshDraws, "right", lambda self, *given: real(self, *given)[:, :-1])
    with pytest.raises(RuntimeError, match="images by draws"):
        found(Halves())


def test_a_classifier_whose_draws_decide_nothing_is_refused():
    class Noisy(Halves):
        def value(self, x, draw):
            return super().value(x, draw) + torch.randn(len(x))

    with pytest.raises(RuntimeError, match="a draw must decide"):
        found(Noisy())


def test_draws_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match="Mean has none"):
        found(Mean(), (grey()[0].double(), grey()[1]))
    with pytest.raises(ValueError, match="depend on the batch"):
        found(type("Both", (BatchMean,), {"draws": (0,)})())
    with pytest.raises(TypeError, match="no draws"), at(Mean(), (1,)):
        pass


def test_without_draws_in_the_parameters_the_results_are_as_ever():
    assert "randomised" not in found(Halves(), chosen=parameters(draws={}).model_copy(update={"draws": None})).results()


def digits():
    """A network on digits that is hardly trained, and few images."""
    whole = data.load("digits")
    shape = {name: getattr(whole, name) for name in ("input_shape", "mean", "std", "num_classes")}
    given = TrainParameters.model_validate({"defence": {"name": "resize-pad"}})
    classifier, objective = assemble(given, shape)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.005)
    some = whole.train.subset(200)
    for step in range(40):
        optimizer.zero_grad()
        classifier.drawn = step
        objective(classifier(some.unit()), some.labels).backward()
        optimizer.step()
    classifier.drawn = None
    return classifier.eval(), objective, whole.test.subset(15)


def test_on_digits_the_one_who_knows_is_no_weaker_and_batches_change_nothing(tmp_path):
    classifier, objective, test = digits()
    given = (classifier, objective, test.unit(), test.labels)
    chosen = parameters(eps=(0.05, 0.1), draws={"attack": 4, "judge": 12, "steps": 5})
    whole = evaluate(*given, chosen, index=test.index, progress=False)
    parts = evaluate(*given, chosen.model_copy(update={"batch_size": 7}), index=test.index, progress=False)
    one, two = whole.randomised, parts.randomised
    assert one is not None
    assert two is not None
    assert one.clean.mean() > 0.6
    for threat in ("linf@0.05", "linf@0.1"):
        assert one.knowing[threat].mean() < one.naive[threat].mean() < one.clean.mean()
        assert abs(one.knowing[threat].mean() - two.knowing[threat].mean()) <= 1 / 15  # rounding alone
    table = accuracy_table(whole)
    assert {"clean, over draws", "naive, over draws", "knowing, over draws"} <= set(table.index)


def test_no_candidate_is_better_on_the_draws_of_the_attack():
    classifier, objective, test = digits()
    x, y, draws = test.unit(), test.labels, tuple(range(6))
    classifier.requires_grad_(False)
    with torch.no_grad():
        logits = classifier(x)
    problem = Problem(classifier, objective, x, y, test.index, Threat("linf", 0.05), 0, logits, best=x)
    other = problem.random_start(1)
    chosen = expectation.standing(problem, expectation.expectation(problem, draws, 5, other), draws)
    for points in (x, other):
        assert not bool(expectation.standing(problem, points, draws).below(chosen).any())


def test_a_killed_evaluation_goes_on_with_the_points_that_it_has(tmp_path, monkeypatch):
    chosen, state = parameters(eps=(0.1, 0.2)), tmp_path / "state.npz"
    expected = found(Halves(), chosen=chosen).results()
    real, calls = randomised.expectation, list[float]()

    def dies_at_second(problem, *given):
        calls.append(problem.threat.eps)
        if len(calls) == 2:
            raise KilledError
        return real(problem, *given)

    monkeypatch.setattr(randomised, "expectation", dies_at_second)
    with pytest.raises(KilledError):
        found(Halves(), chosen=chosen, state=state)
    assert found(Halves(), chosen=chosen, state=state).results() == expected
    assert calls == [0.1, 0.2, 0.2]
    assert found(Halves(), chosen=chosen, state=state).results() == expected
    assert len(calls) == 3
    found(Halves(), chosen=parameters(eps=(0.1, 0.2), draws={"attack": 4}), state=state)
    assert len(calls) == 5, "other draws, other points"


def test_the_flag_says_that_it_draws_and_by_how_much():
    model, chosen = Halves(), parameters(draws={})
    x, y = grey()
    x[:, :, :, 8:] = 0.52  # right at one half alone
    model.draws = (0,)
    flags = red_flags(found(model, (x, y)), model, build("sce"), x, y, chosen)
    assert flags["randomised"].startswith("logits differ by up to 0.35 between 8 draws, and 3 of 3 images")
    assert "random-output" not in flags
    x, y = grey()
    plain = found(Halves(), chosen=chosen.model_copy(update={"draws": None}))
    assert "randomised" in red_flags(plain, model, build("sce"), x, y, chosen)


class TestInterval:
    def test_is_never_narrower_than_that_of_as_many_images(self):
        for share in (0.0, 0.3, 1.0):
            right = np.arange(50)[:, None].repeat(8, 1) < 50 * share
            low, high = wilson_and_draws(right)
            least, most = wilson(float(right[:, 0].sum()), 50)
            assert low <= least < most <= high

    def test_draws_that_differ_widen_it(self):
        right = np.zeros((1000, 4), dtype=bool)
        right[:, 2:] = True  # of four draws two get all, two none: nobody knows the share
        low, high = wilson_and_draws(right)
        assert low <= 0.1
        assert high >= 0.9

    def test_holds_the_true_mean_at_least_as_often_as_it_says(self):
        generator, held = np.random.default_rng(1), 0
        for _ in range(100):
            images, draws = generator.normal(size=(60, 1)), generator.normal(size=(1, 10))
            right = images + 0.5 * draws + 0.5 * generator.normal(size=(60, 10)) > 0
            low, high = wilson_and_draws(right)
            held += low <= 0.5 <= high
        assert held >= 93

    @pytest.mark.parametrize("mask", [np.zeros((0, 3), dtype=bool), np.zeros(3, dtype=bool), np.ones((2, 2))])
    def test_refuses_what_is_no_mask(self, mask):
        with pytest.raises(ValueError, match="images by draws"):
            wilson_and_draws(mask)


def test_masks_of_other_sizes_are_refused():
    mask = np.ones((2, 9), dtype=bool)
    draws = {"attack": 5, "judge": 9, "steps": 10}
    with pytest.raises(RuntimeError, match="images by draws"):
        outcome.Randomised(draws, mask, {"linf@0.1": mask[:1]}, {"linf@0.1": mask})
    with pytest.raises(RuntimeError, match="threats differ"):
        outcome.Randomised(draws, mask, {}, {"linf@0.1": mask})
