from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mean_model import ROWS, VALUES, BatchMean, Mean, evaluated, flat, parameters
from spying import Spy
from torch import nn

from isce import evaluation
from isce.attacks import Threat, base
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, examples, mcnemar, mean_interval, wilson
from isce.losses import build
from isce.parameters.attack import AttackParameters, load_suite


def test_accuracies_are_the_closed_form_of_a_linear_model():
    results = evaluated(parameters()).results()
    assert results["clean"]["correct"] == 6
    for threat, correct in (("linf@0.1", 4), ("linf@0.2", 2)):
        outcome = results["threats"][threat]
        assert set(outcome["attacks"]) == {"fgsm-training", "pgd4-training", "pgd1-matched"}
        assert [row["correct"] for row in outcome["attacks"].values()] == [correct] * 3
        low, high = wilson(correct, 8)
        assert outcome["worst"] == {"accuracy": correct / 8, "correct": correct, "n": 8, "low": low, "high": high}
        assert [row["attacked"] for row in outcome["attacks"].values()] == [6] * 3
    assert json.loads(json.dumps(results)) == results


def test_l2_needs_the_square_root_of_the_pixels_more():
    wider = parameters(norm="l2", eps=(0.2, 0.4))  # four pixels: 0.2 in l_2 moves each by 0.1
    results = evaluated(wider).results()
    assert [results["threats"][t]["worst"]["correct"] for t in ("l2@0.2", "l2@0.4")] == [4, 2]


def test_survivors_only_attacks_less_and_ends_in_the_same_worst_case():
    every = evaluated(parameters()).results()
    fewer = evaluated(parameters(survivors_only=True)).results()
    for threat, outcome in fewer["threats"].items():
        assert outcome["worst"] == every["threats"][threat]["worst"]
    attacked = [row["attacked"] for outcome in fewer["threats"].values() for row in outcome["attacks"].values()]
    assert attacked == [4, 2, 2, 6, 2, 2]  # the two that stand at the larger eps are spared at the smaller


def test_rows_on_a_part_of_the_images_say_nothing_of_the_others():
    x, y = flat([0.45, 0.45, 0.42, 0.42, 0.35, 0.35, 0.35, 0.6])
    weak = AttackSpec(attack="bim", steps=1, step_size=0.6, norm="l2", eps=0.2, images=6)
    last = AttackSpec(attack="bim", steps=3, norm="l2", eps=0.2, images=4, survivors=True)
    found = evaluate(Mean(), build("sce"), x, y, parameters(rows=[ROWS[0], weak, last]), progress=False)
    outcome = found.results()["threats"]["l2@0.2"]
    rows = outcome["attacks"].values()
    asked = found.asked("l2@0.2")
    assert int(asked.sum()) == 6
    assert [row["n"] for row in rows] == [6, 6]  # the last one on what the first left of its six
    assert (
        [row["correct"] for row in rows][-1] == outcome["worst"]["correct"] == int(found.robust("l2@0.2")[asked].sum())
    )
    assert found.asked("linf@0.1").all()


def test_what_falls_at_a_smaller_eps_is_not_robust_at_a_larger_one():
    def outcome(*broken):
        none, every = np.zeros(3, dtype=bool), np.ones(3, dtype=bool)
        return evaluation.Outcome(every, every, np.array(broken), none, none, none, np.full(3, -1))

    one, two, aside = outcome(True, False, False), outcome(False, True, False), outcome(True, True, True)
    outcomes = {"linf@0.1": {"a": one}, "linf@0.2": {"a": two}, "l0@1": {"a": aside}}
    found = evaluation.Evaluation(np.ones(3, dtype=bool), outcomes, 3)
    assert found.robust("l0@1").tolist() == [False] * 3  # another threat model, which touches no other worst case
    assert found.results()["threats"]["l0@1"]["worst"]["correct"] == 0
    assert found.robust("linf@0.1").tolist() == [False, True, True]
    assert found.robust("linf@0.2").tolist() == [False, False, True]
    assert found.robust("linf@0.2", "a").tolist() == [True, False, True]
    assert found.results()["threats"]["linf@0.2"]["worst"]["correct"] == 1
    assert found.results()["threats"]["linf@0.2"]["attacks"]["a"]["correct"] == 2
    with pytest.raises(KeyError):
        found.robust("linf@0.3")


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batch_size_changes_nothing(batch_size):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (20,), generator=generator)
    whole = evaluate(Mean(), build("sce"), x, y, parameters(batch_size=20), progress=False)
    parts = evaluate(Mean(), build("sce"), x, y, parameters(batch_size=batch_size), progress=False)
    assert whole.results() == parts.results()
    for threat, rows in whole.outcomes.items():
        for row, outcome in rows.items():
            assert np.array_equal(outcome.first_success, parts.outcomes[threat][row].first_success)


def test_index_keys_the_randomness(monkeypatch):
    spy = Spy(monkeypatch)
    x, y = flat([0.6, 0.45, 0.4, 0.3])
    index = torch.tensor([7, 5, 3, 1])
    some = parameters(rows=ROWS[1:2], eps=[0.1], batch_size=2)
    evaluate(Mean(), build("sce"), x, y, some, index=index, progress=False)
    assert [index for _, _, index in spy.calls] == [[5, 3], [1]]  # the clean mistake is not attacked


def test_rejected_points_are_counted_and_never_count_as_broken(monkeypatch):
    real = base.verify

    def outside(problem, points, **named):
        return real(problem, points + 0.5, **named)

    monkeypatch.setattr("isce.attacks.driver.verify", outside)
    results = evaluated(parameters()).results()
    row = results["threats"]["linf@0.1"]["attacks"]["fgsm-training"]
    assert row["rejected"] == 6
    assert row["accuracy"] is None
    assert row["why"] == "fgsm-training: no valid point (no outcome for 6 of 8 images)"


def test_a_batch_dependent_model_is_attacked_in_fixed_batches(monkeypatch):
    spy = Spy(monkeypatch)
    x, _ = flat([0.1, 0.2, 0.3, 0.4, 0.5])
    y = torch.tensor([0, 1, 0, 1, 0])
    some = parameters(rows=ROWS[:1], eps=[0.2], batch_size=2)
    found = evaluate(BatchMean(), build("sce"), x, y, some, progress=False)
    assert found.clean.tolist() == [True, True, True, True, True]
    assert [index for _, _, index in spy.calls] == [[0, 1], [2, 3], [4]]


def test_wilson_by_hand():
    """Wilson (1927): centre (k + z^2/2) / (n + z^2)."""
    z, k, n = 1.959963984540054, 8, 10
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_in_the_unit_interval(n, share):
    low, high = wilson(share * n, n)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_counts_that_cannot_be(correct, n):
    with pytest.raises(ValueError, match="need n >= 1"):
        wilson(correct, n)


def test_mean_interval_by_hand():
    """Three values: half-width t(0.975, 2) s / sqrt(3), t = 4.302653."""
    low, high = mean_interval([0.5, 0.6, 0.7])
    assert (low, high) == pytest.approx((0.6 - 4.302653 * 0.1 / math.sqrt(3), 0.6 + 4.302653 * 0.1 / math.sqrt(3)))


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
def test_mean_interval_refuses_what_has_no_spread(values):
    with pytest.raises(ValueError, match="at least two finite"):
        mean_interval(values)


def test_examples_fell_and_say_what_is_predicted():
    x, y = flat(VALUES)
    spec, threat = AttackSpec(attack="pgd", steps=4), Threat("linf", 0.2)
    shown = examples(Mean(), build("sce"), x, y, spec, threat, count=3, batch_size=2)
    assert shown.index.tolist() == [2, 3, 4]
    assert torch.equal(shown.clean, x[2:5])
    assert threat.inside(shown.adversarial, shown.clean).all()
    assert shown.predictions[:, 0].tolist() == [0, 0, 0]
    assert shown.predictions[:, 2].tolist() == [1, 1, 1]
    probability = Mean()(shown.adversarial).softmax(1)[:, 1]
    assert shown.predictions[:, 3].tolist() == pytest.approx(probability.tolist())


def test_examples_take_the_classes_in_turn():
    x, _ = flat([0.45, 0.46, 0.55, 0.56])
    y = torch.tensor([0, 0, 1, 1])
    shown = examples(Mean(), build("sce"), x, y, AttackSpec(attack="fgsm"), Threat("linf", 0.1), count=3)
    assert shown.labels.tolist() == [0, 1, 0]


def test_no_examples_where_nothing_falls():
    x, y = flat([0.05])
    shown = examples(Mean(), build("sce"), x, y, AttackSpec(attack="fgsm"), Threat("linf", 0.1))
    assert shown.clean.shape == (0, 1, 2, 2)
    assert shown.predictions.shape == (0, 4)


def test_mcnemar_by_hand():
    """Five images differ, all one way: 2 (1/2)^5."""
    first = np.array([True] * 8 + [False] * 2)
    second = np.array([True] * 3 + [False] * 7)
    paired = mcnemar(first, second)
    assert (paired.only_first, paired.only_second) == (5, 0)
    assert paired.p_value == pytest.approx(2 / 2**5)
    assert mcnemar(first, first).p_value == 1


@pytest.mark.parametrize("second", [np.ones(3, dtype=bool), np.ones(2)])
def test_mcnemar_refuses_what_is_not_paired(second):
    with pytest.raises(ValueError, match="two bool masks over the same images"):
        mcnemar(np.ones(2, dtype=bool), second)


@pytest.mark.parametrize("name", ["basic", "paper", "adaptive"])
def test_suites_run_as_they_stand_in_their_files(name):
    """On three classes, as ``dlr`` needs; pixel 0 and 1 are the logits of classes 1 and 2."""

    class Three(nn.Module):
        def forward(self, x):
            return torch.cat([x.flatten(1)[:, 2:3] * 0 + 0.5, x.flatten(1)[:, :2]], 1)

    x = torch.tensor([0.1, 0.35, 0.45], dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 1, 3).contiguous()
    chosen = AttackParameters(checkpoint="none", suite=load_suite(name), eps=[0.1, 0.2])
    y = torch.zeros(3, dtype=torch.int64)
    results = evaluate(Three(), build("sce"), x, y, chosen, progress=False).results()
    assert [results["threats"][threat]["worst"]["correct"] for threat in ("linf@0.1", "linf@0.2")] == [2, 1]
