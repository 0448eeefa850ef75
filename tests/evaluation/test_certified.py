"""Proofs in an evaluation: certified <= true <= attacked for each image, and what is proved is spared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from trained import trained

from isce import data
from isce.evaluation import evaluate, outcome
from isce.evaluation import job as jobs
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


def test_the_key_of_a_run_without_proofs_stays_as_it_was():
    plain, proved = parameters(None), parameters()
    assert "certify" not in deciding(plain, {})
    assert key("attack", plain, "d", {}) != key("attack", proved, "d", {})


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        outcome.Evaluation(np.ones(3, bool), {"linf@0.1": {}}, 3, proved={"linf@0.1": np.ones(2, bool)})
