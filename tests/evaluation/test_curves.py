"""A sweep over eps and over steps: closed forms of a linear model, and what is attacked when."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mean_model import BatchMean, Mean, flat
from torch import nn

from isce import attacks
from isce.attacks import AttackResult
from isce.attacks.spec import AttackSpec
from isce.evaluation import convergence, sweep, wilson
from isce.losses import build
from isce.parameters.attack import AttackParameters
from isce.strict import ConfigError, validate

PGD = AttackSpec(attack="pgd", steps=4)
MATCHED = AttackSpec(attack="matched", objective="margin", steps=5)


class Blind(nn.Module):
    """Class 0 whatever it is shown."""

    def forward(self, x):
        return x.flatten(1)[:, :2] * 0 + x.new_tensor([1.0, 0.0])


VALUES = [0.05, 0.25, 0.35, 0.38, 0.42, 0.44, 0.6, 0.7]  # distances to fall: .45 .25 .15 .12 .08 .06, 2 wrong


def parameters(spec, norm, eps, batch_size=256):
    values = {"checkpoint": "", "suite": {"name": "s", "rows": [spec]}, "norm": norm, "eps": [eps]}
    return validate(AttackParameters, values | {"batch_size": batch_size}, "here")


def swept(model, values, spec=PGD, norm="linf", start=0.1, batch_size=256, **more):
    x, y = flat(values)
    given = parameters(spec, norm, start, batch_size)
    return sweep(model, build("sce"), x, y, given, progress=False, **more)


def converged(values, spec=MATCHED, eps=0.1, steps=(1, 2, 5), **more):
    x, y = flat(values)
    given = parameters(spec, "linf", eps)
    return convergence(Mean(), build("sce"), x, y, given, steps, progress=False, **more)


@pytest.fixture
def calls(monkeypatch):
    """Every call of ``attacks.run``: label of the attack, threat, places of its images."""
    seen, real = [], attacks.run

    def spy(spec, classifier, objective, x, y, threat, **more):
        seen.append((spec.label, threat.label, more["index"].tolist()))
        return real(spec, classifier, objective, x, y, threat, **more)

    monkeypatch.setattr(attacks, "run", spy)
    return seen


@pytest.mark.parametrize(("norm", "scale"), [("linf", 1), ("l2", 2)])
def test_a_sweep_is_the_closed_form_of_a_linear_model_and_ends_at_zero(norm, scale):
    rows = swept(Mean(), VALUES, norm=norm, start=0.05 * scale)
    expected = [0.05 * scale * 2 ** (k / 2) for k in range(8)]
    assert [row["eps"] for row in rows] == expected
    assert [row["correct"] for row in rows] == [6, 5, 4, 3, 2, 1, 1, 0]
    for row in rows:
        assert row["n"] == 8
        assert row["accuracy"] == row["correct"] / 8
        assert (row["low"], row["high"]) == wilson(row["correct"], 8)
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(("norm", "cap"), [("linf", 1.0), ("l2", 2.0)])
def test_a_sweep_of_what_never_falls_ends_at_the_whole_box(norm, cap):
    rows = swept(Blind(), [0.2, 0.3], norm=norm)
    assert rows[-1]["eps"] == cap
    assert all(row["correct"] == 2 for row in rows)
    assert rows[-2]["eps"] < 0.99 * cap <= 0.99 * math.sqrt(2) * rows[-2]["eps"] + 1e-9


def test_a_sweep_attacks_only_what_stands(calls):
    swept(Mean(), VALUES, start=0.05)
    eight = [f"linf@{0.05 * 2 ** (k / 2):g}" for k in range(8)]
    attacked = [6, 6, 5, 4, 3, 2, 1, 1]
    assert [(threat, len(index)) for _, threat, index in calls] == list(zip(eight, attacked, strict=True))


def test_a_batch_dependent_network_keeps_its_batches(calls):
    x, _ = flat([0.1, 0.2, 0.3, 0.4, 0.5])
    y = torch.tensor([0, 1, 0, 1, 0])
    rows = sweep(BatchMean(), build("sce"), x, y, parameters(PGD, "linf", 0.05, 2), progress=False)
    assert {tuple(index) for _, _, index in calls} <= {(0, 1), (2, 3), (4,)}
    accuracy = [row["accuracy"] for row in rows]
    assert accuracy == sorted(accuracy, reverse=True)


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    start=st.floats(0.02, 1),
    spec=st.sampled_from([PGD, MATCHED]),
)
def test_any_sweep_ends_at_zero_and_counts_what_lies_deeper(values, start, spec):
    rows = swept(Mean(), values, spec, start=start)
    for row in rows:
        slack = 1e-9
        surely = sum(0.5 - v > row["eps"] + slack for v in values)
        perhaps = sum(0.5 - v >= row["eps"] - slack or v == 0.5 for v in values)
        assert surely <= row["correct"] <= perhaps
    assert rows[-1]["correct"] == 0
    assert all(row["correct"] for row in rows[:-1])
    eps = [row["eps"] for row in rows]
    assert eps[0] == start or start >= 0.99
    assert sorted(set(eps)) == eps
    assert eps[-1] <= 1


@pytest.mark.parametrize(
    ("norm", "start", "words"),
    [
        ("linf", 0.0, r"\(0, 1\] for linf"),
        ("linf", 1.5, r"\(0, 1\] for linf"),
        ("l2", -1.0, "above 0 for l2"),
        ("l2", 2.5, r"start must lie in \(0, 2\]"),
        ("l2", math.nan, "finite"),
    ],
)
def test_a_start_that_is_no_radius_is_refused(norm, start, words):
    with pytest.raises((ValueError, ConfigError), match=words):
        swept(Mean(), VALUES, norm=norm, start=start)


def test_convergence_is_the_closed_form_for_an_attack_that_needs_no_steps(calls):
    rows = converged(VALUES, AttackSpec(attack="bim", steps=3))
    assert [(row["steps"], row["correct"], row["n"]) for row in rows] == [(1, 4, 8), (2, 4, 8), (5, 4, 8)]
    for row in rows:
        assert row["accuracy"] == 0.5
        assert (row["low"], row["high"]) == wilson(4, 8)
    assert [label for label, _, _ in calls] == ["bim1-training", "bim2-training", "bim5-training"]
    assert json.loads(json.dumps(rows)) == rows


def test_convergence_does_not_hide_that_more_steps_break_less(monkeypatch):
    attacked = []

    def worse_with_steps(spec, classifier, objective, x, y, threat, **more):
        attacked.append(len(x))
        success = torch.arange(len(x)) < {1: 1, 2: 5, 5: 2}[spec.steps]
        none = torch.zeros(len(x), dtype=torch.bool)
        first = torch.full((len(x),), -1)
        return AttackResult(x, success, first, none, success, hit=none, raw=x)

    monkeypatch.setattr(attacks, "run", worse_with_steps)
    assert [row["correct"] for row in converged(VALUES)] == [5, 1, 4]
    assert attacked == [6, 6, 6]


@pytest.mark.parametrize("steps", [(), (10, 5), (5, 5)])
def test_steps_must_rise(steps):
    with pytest.raises(ValueError, match="steps must rise strictly"):
        converged(VALUES, steps=steps)


def test_an_attack_that_cannot_take_steps_is_refused():
    with pytest.raises(ConfigError, match="fgsm with 2 steps: fgsm takes no number of steps"):
        converged(VALUES, AttackSpec(attack="fgsm"), steps=(1, 2))


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("curve", ["sweep", "convergence"])
def test_a_killed_curve_goes_on_and_ends_in_the_same_rows(tmp_path, monkeypatch, curve):
    def run(state=None):
        return swept(Mean(), VALUES, start=0.05, state=state) if curve == "sweep" else converged(VALUES, state=state)

    expected, real, left = run(), attacks.run, [2]

    def dies(*args, **named):
        if not left[0]:
            raise KilledError
        left[0] -= 1
        return real(*args, **named)

    monkeypatch.setattr(attacks, "run", dies)
    with pytest.raises(KilledError):
        run(tmp_path / "state.npz")
    left[0] = len(expected) - 2
    assert run(tmp_path / "state.npz") == expected
    assert left == [0]
