"""What can't be attacked is refused by name, at every public entry point, before any attack is begun."""

from __future__ import annotations

import pytest
import torch
from tiny import ROWS, Mean, attack, flat
from torch import nn

from isce import attacks
from isce.attacks import Threat, driver
from isce.attacks.spec import AttackSpec
from isce.evaluation import convergence, curves, evaluate, examples, red_flags
from isce.losses import build
from isce.parameters.attack import AttackParameters, Suite

SPEC = AttackSpec(attack="matched", objective="margin", steps=3)
SCORES_ALONE = [name for name in attacks.names() if attacks.about(name).black_box]
X, Y = flat(0.3, 0.45, 0.6)


def parameters(*rows: AttackSpec, **changes) -> AttackParameters:
    suite = Suite(name="s", rows=list(rows) or [SPEC])
    return AttackParameters(checkpoint="none", suite=suite, eps=[0.1], **changes)


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(Mean(), build("sce"), X, Y, parameters(), progress=False)


@pytest.fixture(params=["run", "evaluate", "red_flags", "examples", "curves", "convergence"])
def entry(request, evaluation, tmp_path):
    """Each public function that takes (classifier, objective, images, labels)."""
    plan = {"images": 2, "convergence_eps": 0.1, "convergence_steps": [1, 2]}
    index, threat = torch.arange(3), Threat("linf", 0.1)
    return {
        "run": lambda *given: attacks.run(SPEC, *given, threat, seed=0),
        "evaluate": lambda *given: evaluate(*given, parameters(), progress=False),
        "red_flags": lambda *given: red_flags(evaluation, *given, parameters()),
        "examples": lambda *given: examples(*given, SPEC, threat),
        "curves": lambda *given: curves(
            *given, parameters(curves=plan), evaluation, index=index, folder=tmp_path, progress=False
        ),
        "convergence": lambda *given: convergence(*given, parameters(), [1, 2], progress=False),
    }[request.param]


class Around(nn.Module):
    """A network around another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mean()


class Pair(Around):
    def forward(self, x):
        return self.inner(x), x


class Dictionary(Around):
    def forward(self, x):
        return {"logits": self.inner(x)}


class HardLabels(Around):
    def forward(self, x):
        return nn.functional.one_hot(self.inner(x).argmax(1), 2)


class InPlace(Around):
    def forward(self, x):
        x.mul_(2).sub_(1)
        return self.inner((x + 1) / 2)


class RoundsInPlace(Around):
    """Changes no image of whole steps, so that only candidates of an attack would be moved."""

    def forward(self, x):
        x.mul_(20).round_().div_(20)
        return self.inner(x)


class InPlaceBehindAutograd(Around):
    def forward(self, x):
        x.data.mul_(0.5)
        return self.inner(2 * x)


class Squeezed(Around):
    """A common slip: what comes of a batch of one has no batch dimension."""

    def forward(self, x):
        return self.inner(x).squeeze(0)


class BatchStatistics(Around):
    """Normalises by the batch at hand, which torch refuses for a single image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, track_running_stats=False)

    def forward(self, x):
        return self.norm(self.inner(x))


class NotANumber(Around):
    def forward(self, x):
        return self.inner(x) * torch.nan


NAN = X * torch.nan
BAD = {
    "bytes": (Mean(), "sce", X.to(torch.uint8), Y, TypeError, "images must be floating point in .*torch.uint8"),
    "labels in int32": (Mean(), "sce", X, Y.int(), TypeError, "labels must be int64, got torch.int32"),
    "one image": (Mean(), "sce", X[0], Y, ValueError, r"images must have shape \(N, C, H, W\), got \(1, 2, 2\)"),
    "no images": (Mean(), "sce", X[:0], Y[:0], ValueError, "empty batch"),
    "too few labels": (Mean(), "sce", X, Y[:2], ValueError, r"labels must have shape \(3,\) .* got \(2,\)"),
    "too bright": (Mean(), "sce", X + 1, Y, ValueError, "images must lie in .* got values from 1.3 to 1.6"),
    "too dark": (Mean(), "sce", X - 1, Y, ValueError, "images must lie in"),
    "images that are no numbers": (Mean(), "sce", NAN, Y, ValueError, "images must lie in .* NaN"),
    "labels below 0": (Mean(), "sce", X, Y - 1, ValueError, "labels must be at least 0, got -1"),
    "labels above the logits": (Mean(), "sce", X, Y + 2, ValueError, r"labels must lie in \[0, 2\), got 2"),
    "logits that are no numbers": (NotANumber(), "sce", X, Y, ValueError, "logits of clean images are not finite"),
    "half images": (Mean(), "sce", X.half(), Y, TypeError, r"images must be float32 or float64, got torch.float16"),
    "bfloat16 images": (Mean(), "sce", X.bfloat16(), Y, TypeError, "must be float32 or float64, got torch.bfloat16"),
    "half network on half images": (Mean().half(), "sce", X.half(), Y, TypeError, "got torch.float16"),
    "NumPy images": (Mean(), "sce", X.numpy(), Y, TypeError, "images must be a torch.Tensor, got ndarray"),
    "NumPy labels": (Mean(), "sce", X, Y.numpy(), TypeError, "labels must be a torch.Tensor, got ndarray"),
    "labels in a list": (Mean(), "sce", X, Y.tolist(), TypeError, "labels must be a torch.Tensor, got list"),
    "plain callable": (Mean().forward, "sce", X, Y, TypeError, "classifier must be a torch.nn.Module, got method"),
    "torch's loss": (Mean(), nn.CrossEntropyLoss(), X, Y, TypeError, "objective must be one of .*CrossEntropyLoss"),
    "pair": (Pair(), "sce", X, Y, TypeError, "one tensor of logits .*, got tuple"),
    "dictionary": (Dictionary(), "sce", X, Y, TypeError, "one tensor of logits .*, got dict"),
    "hard labels": (HardLabels(), "sce", X, Y, TypeError, "logits must be floating point, got torch.int64"),
    "in place": (InPlace(), "sce", X, Y, ValueError, "changes its input in place"),
    "in place, this time to no effect": (RoundsInPlace(), "sce", X, Y, ValueError, "changes its input in place"),
    "in place, unseen by autograd": (InPlaceBehindAutograd(), "sce", X, Y, ValueError, "changes its input in place"),
    "no embedding": (Mean(), "center", X, Y, TypeError, "center needs the embedding: .*return_embedding=True"),
    "squeezed": (Squeezed(), "sce", X, Y, ValueError, r"logits must have shape \(1, classes >= 2\), got \(2,\)"),
    "batch statistics": (BatchStatistics(), "sce", X, Y, ValueError, "one image alone .*batch_dependent = True"),
}


@pytest.mark.parametrize("what", BAD)
def test_one_named_error_before_any_attack_is_begun(entry, what, monkeypatch):
    monkeypatch.setattr(driver, "load", lambda name: pytest.fail(f"{name} was begun"))
    classifier, objective, x, y, error, words = BAD[what]
    before = torch.as_tensor(x).nan_to_num().clone()
    with pytest.raises(error, match=words):
        entry(classifier, build(objective) if isinstance(objective, str) else objective, x, y)
    assert torch.equal(torch.as_tensor(x).nan_to_num(), before)


class Products(nn.Module):
    """Takes the type of its weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[-1.0, 1.0]] * 4))

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight


@pytest.mark.parametrize(
    ("classifier", "x", "words"),
    [
        (Products().half(), X, "weights in torch.float16 and doesn't take images in torch.float32"),
        (Products(), X.double(), "weights in torch.float32 and doesn't take images in torch.float64"),
    ],
)
def test_another_precision_than_the_networks_is_named(entry, classifier, x, words):
    with pytest.raises(TypeError, match=words):
        entry(classifier, build("sce"), x, Y)


def test_inference_mode_is_named_and_no_grad_is_fine(entry):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="outside of it"):
        entry(Mean(), build("sce"), X, Y)
    with torch.no_grad():
        entry(Mean(), build("sce"), X, Y)
    with torch.inference_mode():
        made = X.clone()
    entry(Mean(), build("sce"), made, Y)


@pytest.mark.parametrize("name", attacks.names())
@pytest.mark.parametrize("what", ["half images", "in place", "in place, this time to no effect", "pair"])
def test_no_attack_lets_it_pass(name, what):
    classifier, _, x, y, error, words = BAD[what]
    with pytest.raises(error, match=words):
        attack(ROWS[name], classifier, x, y)


def test_half_precision_inside_the_network_is_attacked_as_any_other():
    """Which images fall is known in closed form; points at the edge of the ball don't leave it by rounding."""

    class HalfInside(Around):
        def forward(self, x):
            return self.inner.half()(x.half())

    x, y = flat(0.3, 0.38, 0.42, 0.45)
    found = evaluate(HalfInside(), build("sce"), x, y, parameters(SPEC, ROWS["search"]), progress=False)
    assert found.robust("linf@0.1").tolist() == [True, True, False, False]


class Detached(Around):
    """No gradient, and none needed to break it by logits."""

    def forward(self, x):
        return self.inner(x.detach())


QUERIES = [AttackSpec(attack="search", steps=60), AttackSpec(attack="simba", steps=20, norm="l2", eps=0.4)]


def test_a_suite_that_needs_a_gradient_is_refused_on_a_network_without_and_told_what_may_stay(monkeypatch):
    monkeypatch.setattr(driver, "load", lambda name: pytest.fail(f"{name} was begun"))
    words = "rows need: matched3-margin, autoattack. Rows that may stay: search60-margin, simba20-margin"
    with pytest.raises(ValueError, match=words):
        evaluate(Detached(), build("sce"), X, Y, parameters(*QUERIES, SPEC, ROWS["autoattack"]), progress=False)


def test_a_suite_that_needs_none_is_run_and_its_flags_tell():
    x, y = flat(0.3, 0.45, 0.45, 0.45, 0.48)
    given = (Detached(), build("sce"), x, y, parameters(*QUERIES))
    found = evaluate(*given, progress=False)
    assert found.robust("linf@0.1").tolist() == [True, False, False, False, False]
    assert found.robust("l2@0.4").tolist() == [True, False, False, False, False]
    assert "zero-gradient" in red_flags(found, *given)


@pytest.mark.parametrize("name", attacks.names())
def test_every_attack_that_needs_a_gradient_says_so_and_every_other_runs(name):
    x, y = flat(0.4, 0.45)
    if name in SCORES_ALONE:
        assert attack(ROWS[name], Detached(), x, y).rejected.sum() == 0
        return
    with pytest.raises(ValueError, match="no gradient"):
        attack(ROWS[name], Detached(), x, y)


class Declared(BatchStatistics):
    batch_dependent = True


def test_a_last_batch_of_one_image_names_the_batch_size(entry):
    with pytest.raises(
        ValueError, match=r"evaluation must be of these 1 images|batch of one image .* choose a batch_size"
    ):
        entry(Declared(), build("sce"), X[:1], Y[:1])


def test_a_last_batch_of_one_image_is_found_before_the_first_attack(monkeypatch):
    monkeypatch.setattr(driver, "load", lambda name: pytest.fail(f"{name} was begun"))
    with pytest.raises(ValueError, match=r"batch of one image .* choose a batch_size"):
        evaluate(Declared(), build("sce"), X, Y, parameters(batch_size=2), progress=False)


def test_flags_of_other_images_than_the_evaluations_are_refused(evaluation):
    with pytest.raises(ValueError, match="evaluation must be of these 2 images"):
        red_flags(evaluation, Mean(), build("sce"), X[:2], Y[:2], parameters())


def test_nothing_is_refused_without_a_reason(entry):
    entry(Mean(), build("sce"), X, Y)


PARAMS = [(name, param) for name in attacks.names() for param in attacks.about(name).params]


@pytest.mark.parametrize(("name", "param"), PARAMS)
def test_a_parameter_that_leaves_an_attack_nothing_to_do_is_refused(name, param):
    row = ROWS[name].model_dump()
    for value in (-1.0, 0.0, 0.5, float("nan")):
        allowed = value == 0.5 or (value == 0 and param in ("confidence", "overshoot"))
        if allowed and param not in ("candidates", "samples", "search_steps", "seeds"):
            assert AttackSpec.model_validate(row | {"params": {param: value}}).params[param] == value
            continue
        with pytest.raises(ValueError, match=rf"{name}'s {param} must be .*, got {value:g}|finite number"):
            AttackSpec.model_validate(row | {"params": {param: value}})


def test_what_is_no_row_or_no_threat_is_named():
    given = (Mean(), build("sce"), X, Y)
    with pytest.raises(TypeError, match=r"threat must be an isce\.attacks\.Threat, got float: 0\.1"):
        attacks.run(SPEC, *given, 0.1, seed=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"spec must be an isce\.attacks\.AttackSpec, got str: 'fgsm'"):
        attacks.run("fgsm", *given, Threat("linf", 0.1), seed=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", attacks.names())
@pytest.mark.parametrize("threat", [Threat("linf", 0.1), Threat("l2", 0.1), Threat("l0", 1), Threat("spatial", 1)])
def test_a_threat_model_that_an_attack_does_not_work_in_is_named(name, threat):
    if threat.norm not in attacks.about(name).norms:
        with pytest.raises(ValueError, match=f"{name} doesn't work in '{threat.norm}'; known: "):
            attacks.run(ROWS[name], Mean(), build("sce"), X, Y, threat, seed=0)


def test_an_eps_of_0_is_no_default():
    with pytest.raises(ValueError, match="greater than 0"):
        AttackSpec(attack="spatial", eps=0)


def test_an_index_must_be_a_tensor():
    with pytest.raises(TypeError, match=r"index must be a torch\.Tensor, got list"):
        evaluate(Mean(), build("sce"), X, Y, parameters(), progress=False, index=[0, 1, 2])  # pyright: ignore


def test_images_that_ask_for_a_gradient_are_evaluated_as_any_other():
    x, mine = X.clone().requires_grad_(), parameters(SPEC, ROWS["search"])
    one, other = (evaluate(Mean(), build("sce"), images, Y, mine, progress=False) for images in (x, X))
    assert one.results() == other.results()
    assert x.grad is None


def test_the_eps_of_the_convergence_curve_is_checked_before_the_evaluation():
    plan = {"images": 2, "convergence_eps": 2.0, "convergence_steps": [1, 2]}
    with pytest.raises(ValueError, match=r"eps must .* got 2"):
        parameters(curves=plan)
