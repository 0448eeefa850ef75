"""Names, families, parameters of another kind, and bad input: one clear error each, before any work is done."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from loss_cases import CASES, make
from loss_problems import every, problem
from torch.utils._python_dispatch import TorchDispatchMode

from isce import losses


@every
def test_name_family_and_class_agree(name):
    objective = losses.build(name)
    assert objective.name == name
    assert getattr(losses, type(objective).__name__) is type(objective)
    assert type(objective).__name__ in losses.__all__


def test_exports():
    assert losses.names() == sorted(losses.names())
    assert all(getattr(losses, name) is not None for name in losses.__all__)


def test_unknown_objective_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown objective 'foo'; known: arcface, .*, isce, .*, triplet"):
        losses.build("foo")


@every
def test_takes_the_common_parameters(name):
    options = {"weight": [1.0, 2.0], "ignore_index": 3, "reduction": "sum", "label_smoothing": 0.25}
    if "label_smoothing" in losses.build(name).exempt:
        with pytest.raises(ValueError, match="takes no label_smoothing: the"):
            losses.build(name, **options)
        del options["label_smoothing"]
    objective = losses.build(name, **options)
    assert objective.weight.tolist() == options.pop("weight")
    assert {key: getattr(objective, key) for key in options} == options
    with pytest.raises(ValueError, match=r"no parameter nonesuch, zeta; it takes: .*weight, ignore_index, reduction"):
        losses.build(name, zeta=1, nonesuch=2)


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [pytest.param(n, p, e, id=f"{n}-{i}") for n, case in CASES.items() for i, (p, e) in enumerate(case.refused)],
)
def test_own_parameters_out_of_range(name, params, error):
    with pytest.raises(error, match=f"objective '{name}'.*{next(iter(params))}.*it takes: "):
        losses.build(name, **params)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"reduction": "average"}, ValueError, "reduction must be one of none, mean, sum, got 'average'"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer, got 1.0"),
        ({"ignore_index": True}, TypeError, "ignore_index must be an integer, got True"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be at least 0 and at most 1, got -0.1"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number"),
        ({"weight": [1.0, -1.0]}, ValueError, "weight must be"),
        ({"weight": [[1.0, 1.0]]}, ValueError, "weight must be"),
        ({"weight": [1.0, float("nan")]}, ValueError, "weight must be finite"),
        ({"weight": [1.0, float("inf")]}, ValueError, "weight must be finite"),
        ({"weight": [[1.0], [1.0, 2.0]]}, ValueError, "weight must be finite numbers, in rows of equal length"),
        ({"weight": "heavy"}, TypeError, "weight must be numbers"),
        ({"weight": [True, True]}, TypeError, "weight must be numbers"),
    ],
)
def test_common_parameters_out_of_range(params, error, message):
    with pytest.raises(error, match=message):
        losses.build("sce", **params)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8])
def test_numbers_of_numpy_are_numbers(kind):
    objective = losses.build("isce", inference=kind(2), label_smoothing=kind(1), weight=[kind(1), kind(3)])
    assert (objective.inference, objective.label_smoothing) == (2.0, 1.0)
    assert type(objective.inference) is float
    assert objective.weight.tolist() == [1.0, 3.0]
    assert losses.build("isce", inference=[kind(1), kind(2)]).inference.tolist() == [1.0, 2.0]
    assert losses.build("center", lam=kind(2), alpha=kind(1)).lam == 2.0
    logits, target = torch.zeros(1, 2), torch.tensor([0])
    assert losses.inference_softmax_cross_entropy(logits, target, kind(2)) == pytest.approx(math.log(1 + math.e**2))
    if issubclass(kind, np.integer):
        assert losses.build("sce", ignore_index=kind(7)).ignore_index == 7
        assert losses.build("mmc").score_map(kind(4), kind(3))(torch.zeros(1, 4)).shape == (1, 3)
    for wrong in (np.bool_(1), np.complex64(1)):
        with pytest.raises(TypeError, match="must be numbers"):
            losses.build("isce", inference=wrong)
        with pytest.raises(TypeError, match="lam must be a number"):
            losses.build("center", lam=wrong)


BAD_CALLS = {
    "label-too-large": (lambda s, y, h: (s, y + 2, h), ValueError, r"labels must be in \[0, 4\).*got \[4, 5\]"),
    "label-negative": (lambda s, y, h: (s, y - 1, h), ValueError, r"labels must be in \[0, 4\).*got \[-1\]"),
    "label-float": (lambda s, y, h: (s, y.float(), h), TypeError, "labels must be int64, got torch.float32"),
    "label-int32": (lambda s, y, h: (s, y.int(), h), TypeError, "labels must be int64, got torch.int32"),
    "label-bool": (lambda s, y, h: (s, y > 0, h), TypeError, "labels must be int64, got torch.bool"),
    "logits-integer": (lambda s, y, h: (s.long(), y, h), TypeError, "logits must be floating point, got torch.int64"),
    "shape": (lambda s, y, h: (s, y[:3], h), ValueError, r"labels must be shaped as logits \(4, 4\).*got \(3,\)"),
    "batch-of-one": (lambda s, y, h: (s[0], y[:1], h), ValueError, "labels must be shaped as logits"),
    "empty": (lambda s, y, h: (s[:0], y[:0], h[:0]), ValueError, r"the batch is empty: logits \(0, 4\)"),
    "one-class": (lambda s, y, h: (s[:, :1], y, h), ValueError, r"at least 2 classes, got \(4, 1\)"),
    "scalar": (lambda s, y, h: (s[0, 0], y[0], h), ValueError, "must have a class dimension"),
}


@pytest.mark.parametrize("kind", BAD_CALLS)
def test_bad_calls(kind):
    """The base refuses them for all; the label that is out of range, which it can't see, is tried on each below."""
    spoil, error, message = BAD_CALLS[kind]
    batch = spoil(torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3))
    for name in ("sce", "contrastive"):
        objective = make(name)
        for function in (objective, objective.per_example, objective.matched):
            with pytest.raises(error, match=message if name == "sce" or kind != "label-float" else "int64"):
                function(*batch)


@every
def test_labels_out_of_range(name):
    logits, target, embedding = problem(name)
    target[2] = -1
    target[4] = 4
    for params in CASES[name].variants:
        objective = make(name, **params)
        for function in (objective, objective.per_example, objective.matched):
            with pytest.raises(ValueError, match=r"labels must be in \[0, 4\) or ignore_index -100, got \[-1, 4\]"):
                function(logits, target, embedding)


PUBLIC = {
    "inference_softmax_cross_entropy": lambda s, y: losses.inference_softmax_cross_entropy(s, y, 2.0),
    "released_inference_softmax_cross_entropy": losses.released_inference_softmax_cross_entropy,
}


@pytest.mark.parametrize("name", ["sce", "lgm", "center", "mmc", "arcface", *PUBLIC])
@pytest.mark.parametrize("kind", [tuple, list, np.asarray, lambda _: None], ids=["tuple", "list", "array", "None"])
def test_what_is_no_tensor(name, kind):
    """A network that returns a tuple, data that are still NumPy's."""
    logits, target, embedding = torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3)
    functions = [PUBLIC[name]] if name in PUBLIC else [make(name), make(name).per_example, make(name).matched]
    for function in functions:
        rest = () if name in PUBLIC else (embedding,)
        for wrong, what in (((kind(logits), target, *rest), "logits"), ((logits, kind(target), *rest), "target")):
            with pytest.raises(TypeError, match=f"^{what} must be a torch.Tensor, got {type(kind(logits)).__name__}$"):
                function(*wrong)
        if rest and kind(logits) is not None:
            with pytest.raises(TypeError, match=r"^embedding must be a torch\.Tensor, got"):
                function(logits, target, kind(embedding))
    score_map = None if name in PUBLIC else losses.build(name).score_map(3, 4)
    if score_map is not None and not isinstance(score_map, torch.nn.Linear):
        with pytest.raises(TypeError, match=r"^embedding must be a torch\.Tensor, got"):
            score_map(kind(embedding))


@every
def test_labels_out_of_range_fail_where_they_cannot_be_read(name):
    """Inside vmap torch's own message is all there is; what matters is that no number comes out."""
    objective = make(name)
    logits, target, embedding = torch.randn(2, 4, 4), torch.full((2, 4), 4), torch.randn(2, 4, 3)
    for function in (objective, objective.matched):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            torch.func.vmap(function)(logits, target, embedding)


def test_class_weight_of_another_length():
    objective = make("sce", weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"weight must have one entry for each of 4 classes, got \(2,\)"):
        objective(torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3))


@every
def test_missing_or_wrong_embedding(name):
    objective = make(name)
    logits, target = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    if not objective.needs_embedding:
        assert torch.equal(objective(logits, target), objective(logits, target, torch.randn(4, 3)))
        return
    with pytest.raises(ValueError, match=f"{name} needs the embedding"):
        objective(logits, target)
    for wrong in (torch.randn(3, 3), torch.randn(4), torch.randn(4, 3, 1)):
        with pytest.raises(ValueError, match=r"embedding must be \(4, 'D'\)"):
            objective(logits, target, wrong)
    with pytest.raises(TypeError, match="embedding must be floating point"):
        objective(logits, target, torch.zeros(4, 3, dtype=torch.int64))


def test_inference_of_another_number_of_classes():
    logits, target = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    for m in (torch.zeros(3), torch.zeros(3, 3), torch.zeros(4, 3), torch.zeros(1, 4, 4)):
        with pytest.raises(ValueError, match=r"inference must be \(\), \(4,\) or \(4, 4\)"):
            losses.inference_softmax_cross_entropy(logits, target, m)
    with pytest.raises(ValueError, match="inference must be finite, got nan"):
        losses.inference_softmax_cross_entropy(logits, target, float("nan"))
    with pytest.raises(TypeError, match=r"inference must be a number, got \[1.0, 2.0\]"):
        losses.inference_softmax_cross_entropy(logits, target, [1.0, 2.0])


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return out


def test_a_matrix_of_inference_information_is_not_copied():
    """Only the rows of the labels at hand are, forward and backward."""
    classes, n = 50, 4
    objective = losses.build("isce", inference=torch.randn(classes, classes))
    logits, target = torch.randn(n, classes, requires_grad=True), torch.arange(n)
    with Largest() as largest:
        objective(logits, target).backward()
    assert largest.size == n * classes


def test_weights_that_are_not_there_yet():
    logits, target, embedding = torch.randn(4, 4), torch.tensor([0, 1, 2, 3]), torch.randn(4, 3)
    with pytest.raises(RuntimeError, match=r"call score_map\(embedding_dim, num_classes\) first"):
        losses.build("center")(logits, target, embedding)
    with pytest.raises(RuntimeError, match="call score_map"):
        losses.build("lgm", covariance="diagonal")(logits, target)
    with pytest.raises(ValueError, match=r"embedding must be \(N, 3\), got \(4, 5\)"):
        make("center")(logits, target, torch.randn(4, 5))


def test_simplex_needs_room():
    assert losses.simplex(5, 4).shape == (5, 4)
    with pytest.raises(ValueError, match="5 equally spread centres need at least 2 classes and 4 dimensions, got 3"):
        losses.build("mmc").score_map(3, 5)
    with pytest.raises(ValueError, match="at least 2 classes"):
        losses.simplex(1, 4)
