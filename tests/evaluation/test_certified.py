"""Proofs in an evaluation: certified <= true <= attacked for each image, and what is proved is spared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from trained import trained

from isce import data
from isce.attacks import Threat
from isce.evaluation import evaluate, outcome
from isce.evaluation import job as jobs
from isce.minmax import certificates, certified, upper_bounds
from isce.minmax.interval import proves
from isce.minmax.linear import linear_bounds
from isce.parameters.attack import AttackParameters
from isce.runs.key import deciding, key

SUITE = {"name": "s", "rows": [
    {"attack": "fgsm", "objective": "matched"},
    {"attack": "matched", "objective": "matched", "steps": 10, "survivors": True},
]}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    classifier, objective = trained("sce")
    test = data.load("digits").test.subset(30)
    return classifier, objective, test.unit(), test.labels


def parameters(certify="linear", eps=(0.001, 0.004), **more):
    return AttackParameters(checkpoint="none", suite=SUITE, eps=list(eps), certify=certify, **more)  # pyright: ignore[reportArgumentType]


def test_certified_is_at_most_attacked_for_every_image_and_falls_with_eps(digits):
    found = evaluate(*digits, parameters("linear", (0.004, 0.04)), progress=False)
    small, large = found.proved["linf@0.004"], found.proved["linf@0.04"]
    assert small.any()
    assert not large.all()
    assert not (large & ~small).any()
    for threat, proved in found.proved.items():
        assert not (proved & ~found.robust(threat)).any()
        results = found.results()["threats"][threat]
        assert results["certified"]["correct"] == proved.sum() <= results["worst"]["correct"]
        assert results["certified"]["low"] < results["certified"]["accuracy"] <= results["certified"]["high"]


def test_proofs_go_from_the_largest_ball_down_and_find_what_each_ball_alone_gives(digits, monkeypatch):
    asked = []

    def spy(classifier, x, y, threat, method):
        asked.append((threat.eps, len(x)))
        return certified(classifier, x, y, threat, method)

    monkeypatch.setattr(jobs, "certified", spy)
    sizes = (0.001, 0.004, 0.012)
    found = evaluate(*digits, parameters("linear", sizes), progress=False)
    assert [eps for eps, _ in asked] == sorted(sizes, reverse=True)
    counts = [found.proved[f"linf@{eps}"].sum() for eps in sorted(sizes, reverse=True)]
    assert [n for _, n in asked] == [30, 30 - counts[0], 30 - counts[1]]
    assert 0 < counts[0] < counts[1] <= counts[2]
    for eps in sizes:
        alone = proves(upper_bounds(digits[0], *digits[2:], Threat("linf", eps), "linear"), digits[3])
        assert np.array_equal(found.proved[f"linf@{eps}"], alone.numpy())


def test_linear_bounds_are_computed_where_intervals_prove_nothing(digits, monkeypatch):
    seen = []

    def spy(parts, x, y, eps):
        seen.append(len(x))
        return linear_bounds(parts, x, y, eps)

    monkeypatch.setattr(certificates, "linear_bounds", spy)
    classifier, _, x, y = digits
    threat = Threat("linf", 0.0005)
    first = certified(classifier, x, y, threat, "interval")
    both = certified(classifier, x, y, threat, "linear")
    assert 0 < first.sum() < both.sum()
    assert seen == [30 - first.sum()]
    assert torch.equal(both, proves(upper_bounds(classifier, x, y, threat, "linear"), y))
    with pytest.raises(ValueError, match="no linear bounds in l2; known: linf"):
        certified(classifier, x, y, Threat("l2", 0.1), "linear")


def test_what_is_proved_is_spared_by_rows_on_survivors_alone(digits):
    found = evaluate(*digits, parameters(), progress=False)
    for threat, proved in found.proved.items():
        first, second = found.outcomes[threat].values()
        assert proved.any()
        assert not (first.attacked & proved).sum() < (proved & found.clean).sum()  # fgsm saw them all
        assert not (second.attacked & proved).any()
        assert (second.spared | ~proved).all()


def test_worst_cases_are_the_same_without_proofs(digits):
    plain = evaluate(*digits, parameters(None), progress=False)
    proved = evaluate(*digits, parameters(), progress=False)
    assert plain.proved == {}
    assert "certified" not in plain.results()["threats"]["linf@0.001"]
    for threat in plain.outcomes:
        assert np.array_equal(plain.robust(threat), proved.robust(threat))


def test_an_image_that_is_proved_and_broken_ends_the_evaluation(digits, monkeypatch):
    monkeypatch.setattr(
        jobs, "certified", lambda classifier, x, y, threat, method: torch.ones(len(x), dtype=torch.bool)
    )
    with pytest.raises(RuntimeError, match=r"proved and yet broken in linf@0\.3: images \[\d+"):
        evaluate(*digits, parameters(eps=(0.3,)), progress=False)


def test_a_proof_that_contradicts_a_mistake_on_the_image_itself_is_caught(digits):
    found = evaluate(*digits, parameters(), progress=False)
    wrong = np.flatnonzero(~found.clean)[:1].tolist() or [0]
    clean = found.clean.copy()
    clean[wrong] = False
    with pytest.raises(RuntimeError, match="proved and yet broken"):
        replace(found, clean=clean, proved={"linf@0.001": np.ones_like(clean)})


def test_a_point_beyond_eps_by_the_tolerance_takes_the_proof_away_and_contradicts_none(digits, monkeypatch):
    classifier, objective, x, y = digits
    eps = 0.3
    threat = Threat("linf", eps)
    radii: list[float] = []

    def tight(network, x, y, threat, method):  # proves all images up to eps, and none beyond
        radii.append(threat.eps)
        return torch.full((len(x),), threat.eps <= eps)

    monkeypatch.setattr(jobs, "certified", tight)
    found = evaluate(classifier, objective, x, y, parameters(eps=(eps,)), progress=False)
    proved, stands = found.proved["linf@0.3"], found.standing("linf@0.3")
    assert np.array_equal(proved, stands)
    assert not stands.all()
    assert radii == [eps, threat.reach]
    whole = evaluate(classifier, objective, x, y, parameters(eps=(1.0,)), progress=False)
    assert radii[2:] == [1.0], "nothing is proved in the whole box, so nothing is asked again"
    assert not whole.proved["linf@1"].any()


def test_bounds_that_fail_end_the_evaluation(digits, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(jobs, "certified", fails)
    with pytest.raises(ZeroDivisionError, match="planted"):
        evaluate(*digits, parameters(), progress=False)


def test_a_network_of_others_is_refused(digits):
    classifier, objective, x, y = digits
    with pytest.raises(ValueError, match=r"no bounds for Sequential: certify needs an isce\.models\.Classifier"):
        evaluate(torch.nn.Sequential(classifier), objective, x, y, parameters(), progress=False)


def test_bounds_of_another_norm_are_refused_with_the_parameters():
    with pytest.raises(ValueError, match="no linear bounds in l2; known: linf"):
        parameters("linear", (0.5,), norm="l2")


def test_proofs_are_refused_where_no_row_is_on_the_grid():
    row = {"attack": "fgsm", "norm": "l2", "eps": 0.5}
    with pytest.raises(ValueError, match="certify is about eps, where suite 's' has no row"):
        AttackParameters.model_validate(
            {"checkpoint": "none", "suite": {"name": "s", "rows": [row]}, "eps": [0.1], "certify": "interval"}
        )


def test_the_key_of_a_run_without_proofs_stays_as_it_was():
    plain, proved = parameters(None), parameters()
    assert "certify" not in deciding(plain, {})
    assert key("attack", plain, "d", {}) != key("attack", proved, "d", {})


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        outcome.Evaluation(np.ones(3, bool), {"linf@0.1": {}}, 3, proved={"linf@0.1": np.ones(2, bool)})
