"""Names, families, lazy imports, and bad input: one clear error each, before any work is done."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from loss_cases import CASES, make

from isce import losses

every = pytest.mark.parametrize("name", CASES)


@every
def test_name_family_and_class_agree(name):
    objective = losses.build(name)
    assert objective.name == name
    assert type(objective).__module__ == f"isce.losses.{losses.family(name)}"
    assert type(objective).__name__ in losses.__all__


def test_exports():
    assert losses.names() == sorted(losses.names())
    assert all(getattr(losses, name) is not None for name in losses.__all__)
    assert set(losses.__all__) <= set(dir(losses))
    with pytest.raises(AttributeError, match="no attribute 'SquaredError'"):
        losses.SquaredError  # noqa: B018


def test_families_are_imported_when_used():
    """The registry alone imports no torch; an objective brings its own family and no other."""
    code = (
        "import sys, isce.losses as L; assert 'torch' not in sys.modules; L.names(); L.family('mmc');"
        "assert 'torch' not in sys.modules; L.build('isce');"
        "print(sorted(m for m in sys.modules if m.startswith('isce.losses.')))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "['isce.losses.base', 'isce.losses.checks', 'isce.losses.softmax']"


def test_unknown_objective_lists_the_known_ones():
    for call in (losses.build, losses.family):
        with pytest.raises(ValueError, match=r"unknown objective 'foo'; known: arcface, .*, isce, .*, triplet"):
            call("foo")


@every
def test_unknown_parameter_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no parameter nonesuch, zeta; it takes: .*weight, ignore_index, reduction"):
        losses.build(name, zeta=1, nonesuch=2)


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [pytest.param(n, p, e, id=f"{n}-{i}") for n, case in CASES.items() for i, (p, e) in enumerate(case.refused)],
)
def test_own_parameters_out_of_range(name, params, error):
    with pytest.raises(error, match=f"objective '{name}'.*{next(iter(params))}.*it takes: "):
        losses.build(name, **params)


@every
@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "reduction must be one of none, mean, sum, got 'average'"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer, got 1.0"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be at least 0 and at most 1, got -0.1"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number"),
        ({"weight": [1.0, -1.0]}, ValueError, "weight must be"),
        ({"weight": [[1.0, 1.0]]}, ValueError, "weight must be"),
        ({"weight": [1.0, float("nan")]}, ValueError, "weight must be finite"),
        ({"weight": "heavy"}, TypeError, "weight must be numbers"),
    ],
)
def test_common_parameters_out_of_range(name, params, error, message):
    with pytest.raises(error, match=message):
        losses.build(name, **params)


BAD_CALLS = {
    "label-too-large": (lambda s, y, h: (s, y + 2, h), ValueError, r"labels must be in \[0, 4\).*got \[4, 5\]"),
    "label-negative": (lambda s, y, h: (s, y - 1, h), ValueError, r"labels must be in \[0, 4\).*got \[-1\]"),
    "label-float": (lambda s, y, h: (s, y.float(), h), TypeError, "labels must be int64, got torch.float32"),
    "label-int32": (lambda s, y, h: (s, y.int(), h), TypeError, "labels must be int64, got torch.int32"),
    "probabilities": (lambda s, y, h: (s, s.softmax(1), h), TypeError, "labels must be int64"),
    "scores-integer": (lambda s, y, h: (s.long(), y, h), TypeError, "scores must be floating point, got torch.int64"),
    "shape": (lambda s, y, h: (s, y[:3], h), ValueError, r"labels must be shaped as scores \(4, 4\).*got \(3,\)"),
    "batch-of-one": (lambda s, y, h: (s[0], y[:1], h), ValueError, "labels must be shaped as scores"),
    "empty": (lambda s, y, h: (s[:0], y[:0], h[:0]), ValueError, r"the batch is empty: scores \(0, 4\)"),
    "one-class": (lambda s, y, h: (s[:, :1], y, h), ValueError, r"at least 2 classes, got \(4, 1\)"),
    "scalar": (lambda s, y, h: (s[0, 0], y[0], h), ValueError, "must have a class dimension"),
}


@every
@pytest.mark.parametrize("kind", BAD_CALLS)
def test_bad_calls(name, kind):
    spoil, error, message = BAD_CALLS[kind]
    scores, target, embedding = torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3)
    objective = make(name)
    for function in (objective, objective.per_example, objective.matched):
        with pytest.raises(error, match=message):
            function(*spoil(scores, target, embedding))


@every
def test_labels_out_of_range_fail_where_they_cannot_be_read(name):
    """Inside vmap torch's own message is all there is; what matters is that no number comes out."""
    objective = make(name)
    scores, target, embedding = torch.randn(2, 4, 4), torch.full((2, 4), 4), torch.randn(2, 4, 3)
    for function in (objective, objective.matched):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            torch.func.vmap(function)(scores, target, embedding)


@every
def test_class_weight_of_another_length(name):
    objective = make(name, weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"weight must have one entry for each of 4 classes, got \(2,\)"):
        objective(torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3))


@every
def test_missing_or_wrong_embedding(name):
    objective = make(name)
    scores, target = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    if not objective.needs_embedding:
        assert torch.equal(objective(scores, target), objective(scores, target, torch.randn(4, 3)))
        return
    with pytest.raises(ValueError, match=f"{name} needs the embedding"):
        objective(scores, target)
    for wrong in (torch.randn(3, 3), torch.randn(4), torch.randn(4, 3, 1)):
        with pytest.raises(ValueError, match=r"embedding must be \(4, 'D'\)"):
            objective(scores, target, wrong)
    with pytest.raises(TypeError, match="embedding must be floating point"):
        objective(scores, target, torch.zeros(4, 3, dtype=torch.int64))


def test_inference_of_another_number_of_classes():
    scores, target = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    for m in (torch.zeros(3), torch.zeros(3, 3), torch.zeros(4, 3), torch.zeros(1, 4, 4)):
        with pytest.raises(ValueError, match=r"inference must be \(\), \(4,\) or \(4, 4\)"):
            losses.inference_softmax_cross_entropy(scores, target, m)
    with pytest.raises(ValueError, match="inference must be finite, got nan"):
        losses.inference_softmax_cross_entropy(scores, target, float("nan"))


def test_weights_that_are_not_there_yet():
    scores, target, embedding = torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3)
    with pytest.raises(RuntimeError, match=r"call score_map\(embedding_dim, num_classes\) first"):
        losses.build("center")(scores, target, embedding)
    with pytest.raises(RuntimeError, match="call score_map"):
        losses.build("lgm", covariance="diagonal")(scores, target)
    with pytest.raises(ValueError, match=r"embedding must be \(N, 3\), got \(4, 5\)"):
        make("center")(scores, target, torch.randn(4, 5))


def test_simplex_needs_room():
    assert losses.simplex(5, 4).shape == (5, 4)
    with pytest.raises(ValueError, match="5 equally spread centres need at least 2 classes and 4 dimensions, got 3"):
        losses.build("mmc").score_map(3, 5)
    with pytest.raises(ValueError, match="at least 2 classes"):
        losses.simplex(1, 4)
