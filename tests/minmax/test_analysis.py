"""The analysis that the min-max notebook runs: its results obey the theory and are plain JSON."""

import json

import pytest
import torch
from torch import nn

from isce.minmax import analyse
from isce.models import Classifier
from isce.parameters.analysis import MinmaxParameters

PARAMETERS = MinmaxParameters(checkpoint="", eps=[0.001, 0.05], inference=[0.0, 2.0, 50.0], steps=10, restarts=2)


@pytest.fixture(scope="module")
def analysis(digits):
    return analyse(*digits, PARAMETERS, progress=False)


def test_attack_loss_and_bound_are_in_the_order_that_the_theory_proves(analysis):
    for ball in analysis.balls:
        found = ball.summary
        assert found["mean_loss"] <= found["mean_inner"] <= found["mean_bound"]
        assert found["certified"] <= found["robust"] <= found["clean"]
        assert found["violations"] == 0


def test_larger_ball_is_worse_in_every_respect(analysis):
    small, large = (ball.summary for ball in analysis.balls)
    assert small["mean_inner"] < large["mean_inner"]
    assert small["mean_bound"] < large["mean_bound"]
    assert small["certified"] >= large["certified"]
    assert small["robust"] > large["robust"]


def test_larger_m_covers_more_and_a_huge_one_everything(analysis):
    for ball in analysis.balls:
        covered = list(ball.gap["covered"])
        assert covered == sorted(covered)
        assert covered[-1] == 1.0


def test_bound_of_a_two_class_linear_model_is_what_the_ascent_reaches(linear_classifier):
    weight = torch.tensor([[0.5, -1.0, 0.2], [-0.3, 0.4, 0.1]], dtype=torch.float64)
    classifier = linear_classifier(weight, torch.zeros(2, dtype=torch.float64))
    x = torch.rand(20, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    y = (torch.arange(20) % 2).long()
    parameters = MinmaxParameters(checkpoint="", eps=[0.1], inference=[0.0])
    found = analyse(classifier, x, y, parameters, progress=False).balls[0].summary
    assert found["mean_inner"] == pytest.approx(found["mean_bound"], rel=1e-5)
    assert found["violations"] == 0
    assert found["robust"] == found["certified"]


def test_wrong_bound_is_counted(digits, monkeypatch):
    import isce.minmax.analysis as module

    monkeypatch.setattr(module, "network_constants", lambda *_: torch.zeros(10, 10, dtype=torch.float64))
    found = analyse(*digits, PARAMETERS, progress=False).balls[-1].summary
    assert found["violations"] > 0


def test_network_without_a_known_bound_says_so_and_is_measured_all_the_same(digits):
    classifier, x, y = digits
    other = Classifier(classifier.backbone, nn.Sequential(classifier.score_map, nn.Tanh())).eval()
    analysis = analyse(other, x, y, PARAMETERS, progress=False)
    assert analysis.constant is None
    assert "Sequential" in analysis.without
    assert analysis.balls[0].summary["mean_bound"] is None
    assert analysis.balls[0].summary["mean_inner"] >= analysis.balls[0].summary["mean_loss"]


def test_figures_are_plain_json_without_nan(digits, analysis):
    results = analysis.results()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert list(results["threats"]) == ["linf@0.001", "linf@0.05"]
    assert results["threats"]["linf@0.05"]["region"]["all"]["examples"] == len(digits[1])
    classifier, x, y = digits
    alone = analyse(classifier, x[:1], y[:1], PARAMETERS, progress=False).results()
    assert alone["threats"]["linf@0.05"]["region"]["all"]["frechet_distance"] is None
