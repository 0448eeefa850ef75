"""Curves by eps, looked up, and by steps: closed forms of a linear model."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mean_model import BatchMean, Mean, flat
from spying import KilledError, Spy
from torch import nn

from isce import attacks
from isce.attacks import AttackResult, ForeignError
from isce.attacks.spec import AttackSpec
from isce.evaluation import convergence, evaluate, sweep, wilson
from isce.losses import build
from isce.parameters.attack import AttackParameters
from isce.strict import ConfigError, validate

PGD = AttackSpec(attack="pgd", steps=4)
MATCHED = AttackSpec(attack="matched", objective="margin", steps=5)
FMN = AttackSpec(attack="fmn", steps=30)


class Blind(nn.Module):
    """Class 0 whatever it is shown."""

    def forward(self, x):
        return x.flatten(1)[:, :2] * 0 + x.new_tensor([1.0, 0.0])


VALUES = [0.05, 0.25, 0.35, 0.38, 0.42, 0.44, 0.6, 0.7]  # distances to fall: .45 .25 .15 .12 .08 .06, 2 wrong


def parameters(rows, norm="linf", eps=(0.1,), batch_size=256):
    values = {"checkpoint": "", "suite": {"name": "s", "rows": list(rows)}, "norm": norm, "eps": list(eps)}
    return validate(AttackParameters, values | {"batch_size": batch_size}, "here")


def looked_up(model, values, rows=(PGD, FMN), norm="linf", eps=(0.1,), **more):
    """The curve by eps of an evaluation of flat images, and the evaluation."""
    x, y = flat(values)
    given = parameters(rows, norm, eps, **more)
    found = evaluate(model, build("sce"), x, y, given, progress=False)
    return sweep(given, found, x[0].numel()), found


def converged(values, spec=MATCHED, eps=0.1, steps=(1, 2, 5), **more):
    x, y = flat(values)
    given = parameters([spec], eps=[eps])
    return convergence(Mean(), build("sce"), x, y, given, steps, progress=False, **more)


@pytest.fixture
def calls(monkeypatch):
    return Spy(monkeypatch).calls


@pytest.mark.parametrize(("norm", "scale"), [("linf", 1), ("l2", 2)])
def test_a_sweep_is_the_closed_form_of_a_linear_model_and_ends_at_zero(norm, scale):
    rows, _ = looked_up(Mean(), VALUES, norm=norm, eps=[0.1 * scale])
    assert [row["eps"] for row in rows] == [0.05 * scale * 2 ** (k / 4) for k in range(14)]
    assert [row["correct"] for row in rows] == [6, 6, 5, 4, 4, 4, 3, 2, 2, 2, 1, 1, 1, 0]
    for row in rows:
        assert row["n"] == 8
        assert row["accuracy"] == row["correct"] / 8
        assert (row["low"], row["high"]) == wilson(row["correct"], 8)
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(("norm", "cap"), [("linf", 1.0), ("l2", 2.0)])
def test_a_sweep_of_what_never_falls_ends_at_the_whole_box(norm, cap):
    rows, _ = looked_up(Blind(), [0.2, 0.3], norm=norm)
    assert rows[-1]["eps"] == cap
    assert all(row["correct"] == 2 for row in rows)
    assert rows[-2]["eps"] < 0.99 * cap <= 0.99 * 2**0.25 * rows[-2]["eps"] + 1e-9


#: Rows that are no look for the smallest change at the evaluation's own eps on all images.
NOT_MINIMAL = {
    "none": [PGD],
    "some images": [PGD, FMN.model_copy(update={"images": 4})],
    "another threat": [PGD, FMN.model_copy(update={"norm": "l2", "eps": 0.5})],
}


@pytest.mark.parametrize("name", NOT_MINIMAL)
def test_a_sweep_ends_at_the_largest_eps_where_nothing_is_known_beyond(name):
    rows, _ = looked_up(Mean(), VALUES, NOT_MINIMAL[name], eps=[0.07, 0.13])
    assert [row["eps"] for row in rows] == sorted({*(0.035 * 2 ** (k / 4) for k in range(8)), 0.07, 0.13})
    assert rows[-1]["correct"] == 3


def test_a_sweep_attacks_nothing(calls):
    x, y = flat(VALUES)
    given = parameters([PGD])
    found = evaluate(Mean(), build("sce"), x, y, given, progress=False)
    calls.clear()
    sweep(given, found, 4)
    assert calls == []


def test_what_has_no_outcome_has_no_curve(monkeypatch):
    Spy(monkeypatch, ["pgd4-training linf@0.1"], ForeignError("no"))
    rows, _ = looked_up(Mean(), VALUES, [PGD, MATCHED], eps=[0.1, 0.2])
    assert len(rows) == 9
    assert {row["accuracy"] for row in rows} == {None}
    assert {row["why"] for row in rows} == {"pgd4-training: no (no outcome for 2 of 8 images)"}, "what fell is known"
    rows, _ = looked_up(Mean(), VALUES[2:], [PGD, MATCHED], eps=[0.1, 0.2])
    assert rows[-1]["correct"] == 0, "each has fallen to another row"


def test_a_batch_dependent_networks_curve_never_rises():
    x, _ = flat([0.1, 0.2, 0.3, 0.4, 0.5])
    y = torch.tensor([0, 1, 0, 1, 0])
    given = parameters([PGD], eps=[0.05, 0.2, 0.4], batch_size=2)
    found = evaluate(BatchMean(), build("sce"), x, y, given, progress=False)
    accuracy = [row["accuracy"] for row in sweep(given, found, 4)]
    assert accuracy == sorted(accuracy, reverse=True)


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    eps=st.lists(st.floats(0.02, 1), min_size=1, max_size=3, unique_by=lambda eps: f"{eps:.3f}"),
    spec=st.sampled_from([PGD, MATCHED]),
    survivors=st.booleans(),
)
def test_any_sweep_ends_at_zero_counts_what_lies_deeper_and_is_the_worst_case_where_that_is_known(
    values, eps, spec, survivors
):
    grid = sorted(eps)
    rows, found = looked_up(Mean(), values, [FMN, spec.model_copy(update={"survivors": survivors})], eps=grid)
    for row in rows:
        slack = 0.02 * row["eps"]  # of the attack for the smallest change
        surely = sum(0.5 - v > row["eps"] + 1e-5 for v in values)
        perhaps = sum(0.5 - v >= row["eps"] - slack - 1e-5 or v == 0.5 for v in values)
        assert surely <= row["correct"] <= perhaps
    assert [row["correct"] for row in rows] == sorted((row["correct"] for row in rows), reverse=True)
    assert rows[-1]["correct"] == 0
    assert all(row["correct"] for row in rows[:-1])
    at = [row["eps"] for row in rows]
    assert at[0] == grid[0] / 2
    assert sorted(set(at)) == at
    assert at[-1] <= 1
    threats = found.results()["threats"].values()
    for eps, threat in zip(grid, threats, strict=True):
        assert threat["worst"]["correct"] == found.curve("linf", [eps])[0]["correct"]


def test_an_eps_wider_than_the_box_is_a_curve_all_the_same():
    rows, _ = looked_up(Mean(), VALUES, norm="l2", eps=[2.5])
    assert [row["correct"] for row in rows][-1] == 0


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


def test_a_killed_curve_goes_on_and_ends_in_the_same_rows(tmp_path, monkeypatch):
    expected, spy = converged(VALUES), Spy(monkeypatch, [3])
    with pytest.raises(KilledError):
        converged(VALUES, state=tmp_path / "state.npz")
    assert converged(VALUES, state=tmp_path / "state.npz") == expected
    assert len(spy.calls) == len(expected) + 1, "the third twice"
