"""Networks that may reject: what counts as handled, and attacks that know of it or don't."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tiny import ROWS, Layers, flat, images, predicted, threat_of
from torch import Tensor, nn

from isce import attacks
from isce.attacks import Threat, run
from isce.attacks.base import margin
from isce.attacks.rejection import fold, judged, refused, rejects
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, examples, red_flags
from isce.evaluation.outcome import Evaluation
from isce.losses import build
from isce.parameters.attack import AttackParameters, Suite
from isce.runs.session import accuracy_table


class Watched(nn.Module):
    """Class 1 where the mean pixel exceeds 0.5, rejected where the first pixel exceeds ``limit``: all of it linear."""

    rejects = True

    def __init__(self, limit: float = 0.45, gain: float = 8.0) -> None:
        super().__init__()
        self.gain, self.limit = nn.Parameter(torch.tensor(gain)), limit

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        score = self.gain * (pixels.mean(1) - 0.5)
        evidence = self.gain * (pixels[:, 0] - self.limit)
        return torch.stack([-score, score, evidence + score.abs()], 1)


class Fails(nn.Module):
    """Gives the logits that it was made with, whatever the images."""

    rejects = True

    def __init__(self, *row: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, x: Tensor) -> Tensor:
        return self.row + 0 * x.flatten(1).sum(1, keepdim=True)


class Guess(nn.Module):
    """Any network of :class:`Layers` whose last class stands for rejection."""

    rejects = True

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.network = Layers(shape=(1, 4, 4), classes=classes, seed=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def handled(logits: Tensor, y: Tensor) -> Tensor:
    """The definition, in other words: right, or rejected."""
    winner = logits.argmax(1)
    return (winner == y) | (winner == logits.shape[1] - 1)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_an_image_is_handled_where_it_is_right_or_rejected_at_ties_too(label):
    rows = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0, 2.0], repeat=4)))
    y = torch.full((len(rows),), label)
    assert torch.equal(fold(rows, y).argmax(1) == y, handled(rows, y))
    inside = rows[:, :3].max(1).values  # a detector's score is d + max f, and d = 0 accepts
    rows[:, 3] = inside
    assert torch.equal(fold(rows, y), rows[:, :3])


def test_fold_gives_the_true_class_the_larger_score_and_leaves_the_others():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 4.0], [1.0, 3.0, 2.0], [1.0, 3.0, 5.0]])
    folded = fold(logits, torch.zeros(4, dtype=torch.int64))
    assert folded.tolist() == [[3, 1], [4, 1], [2, 3], [5, 3]]
    assert margin(folded, torch.zeros(4, dtype=torch.int64)).tolist() == [2, 3, -1, 2]


def test_fold_has_the_gradient_of_what_decides():
    logits = torch.tensor([[1.0, 3.0, 5.0], [3.0, 1.0, 2.0]], requires_grad=True)
    fold(logits, torch.tensor([0, 0]))[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_of_rejection_that_is_not_finite_is_never_an_ordinary_number(bad):
    folded = fold(torch.tensor([[3.0, 1.0, bad]]), torch.tensor([0]))
    assert folded.isnan().tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("logits", "y"),
    [
        (torch.zeros(2, 2), torch.tensor([0, 0])),  # two columns: one class is none
        (torch.zeros(2, 3), torch.tensor([0])),
        (torch.zeros(3), torch.tensor([0, 0, 0])),
        (torch.zeros(2, 3), torch.tensor([0, 2])),  # rejection is no label
        (torch.zeros(2, 3), torch.tensor([0, -1])),
    ],
)
def test_logits_of_another_shape_and_labels_outside_are_refused(logits, y):
    with pytest.raises(ValueError, match=r"must have shape|must lie in"):
        fold(logits, y)


def test_ordinary_networks_are_left_alone():
    network, x = Layers(), images(3)
    logits, y = network(x), torch.tensor([0, 1, 2])
    assert not rejects(network)
    assert judged(network, logits, y) is logits
    assert not refused(network, logits).any()


@pytest.mark.parametrize("row", [(0.0, 1.0, math.nan), (0.0, 1.0, -math.inf), (0.0, 1.0)])
def test_a_network_without_a_sound_score_of_rejection_is_refused(row):
    x, y = flat(0.4, 0.4)
    with pytest.raises(ValueError, match=r"finite|must have shape"):
        run(ROWS["bim"], Fails(*row), build("sce"), x, y, Threat("linf", 0.1), seed=0)
    with pytest.raises(ValueError, match=r"finite|must have shape"):
        evaluate(Fails(*row), build("sce"), x, y, parameters(ROWS["bim"]), progress=False)


def parameters(*rows: AttackSpec, eps: tuple[float, ...] = (0.2,)) -> AttackParameters:
    return AttackParameters(checkpoint="none", suite=Suite(name="rows", rows=list(rows)), eps=list(eps))


def row(attack: str, *, blind: bool = False, **budget) -> AttackSpec:
    return AttackSpec(attack=attack, blind=blind, **budget)


def test_blind_steps_run_into_the_detector_and_knowing_ones_pass_beside_it():
    # All pixels at 0.4. Sign steps up the class logits move all alike: past 0.5 they are past 0.45, and rejected. Who
    # knows leaves the first pixel at 0.45 or less, and is past a mean of 0.5 with the others from 0.5167 on.
    x, y = flat(0.4, 0.4)
    for attack, eps, blind, knowing in (("bim", 0.2, False, True), ("bim", 0.11, False, False)):
        for spec, expected in ((row(attack, steps=40, blind=True), blind), (row(attack, steps=40), knowing)):
            result = run(spec, Watched(), build("sce"), x, y, Threat("linf", eps), seed=0)
            assert result.success.tolist() == [expected] * 2, (spec.label, eps)
            assert not result.rejected.any()
    assert float(result.adversarial.max()) <= 0.51 + 1e-6


@pytest.mark.parametrize("name", attacks.names())
def test_every_attack_succeeds_only_where_a_point_is_accepted_and_wrong(name):
    spec = ROWS[name]
    norms = attacks.about(name).norms
    threat = threat_of(spec, linf=0.35, l2=1.0)
    network, x = Guess(), images(16)
    y = predicted(network, x) % 5
    for blind in (False, True):
        chosen = spec.model_copy(update={"blind": blind})
        source = (network, build("sce")) if spec.source else None
        result = run(chosen, network, build("sce"), x, y, threat, seed=0, source=source)
        with torch.no_grad():
            wrong = ~handled(network(result.adversarial), y)
        assert torch.equal(result.success, wrong), (chosen.label, norms)
        assert threat.inside(result.adversarial, x).all()


WHITE = [
    row("matched", steps=60, objective="margin"),
    row("matched", steps=60, objective="ce"),
    row("staged", steps=60),
    row("fmn", steps=60),
    row("nearest", steps=60),
    row("pgd", steps=300),
    row("search", steps=300, objective="margin"),
]


@pytest.mark.parametrize("spec", WHITE, ids=lambda spec: spec.label)
def test_attacks_that_know_pass_beside_the_detector(spec):
    x, y = flat(0.4, 0.4, 0.42)
    result = run(spec, Watched(), build("sce"), x, y, Threat("linf", 0.3), seed=0)
    assert result.success.all()


def test_outcomes_do_not_depend_on_the_images_around():
    network, x = Guess(), images(12)
    y = predicted(network, x) % 5
    spec, threat = row("pgd", steps=6), Threat("linf", 0.1)
    whole = run(spec, network, build("sce"), x, y, threat, seed=0)
    for place in range(len(x)):
        some = slice(place, place + 1)
        index = torch.tensor([place])
        alone = run(spec, network, build("sce"), x[some], y[some], threat, seed=0, index=index)
        assert torch.allclose(alone.adversarial, whole.adversarial[some], atol=1e-5)


def test_blind_rows_say_so_and_need_something_to_be_blind_to():
    assert row("pgd", steps=50, blind=True).label == "pgd50-training-blind"
    assert not row("pgd", steps=50, blind=True).white_box
    x, y = flat(0.4)
    network = Watched()
    network.rejects = False
    with pytest.raises(ValueError, match="rejects nothing that an attack could be blind to: fgsm-training-blind"):
        run(row("fgsm", blind=True), network, build("sce"), x, y, Threat("linf", 0.1), seed=0)
    with pytest.raises(ValueError, match="rejects nothing"):
        evaluate(network, build("sce"), x, y, parameters(row("fgsm", blind=True)), progress=False)


def test_a_network_that_rejects_and_depends_on_the_batch_is_refused():
    network = Watched()
    network.batch_dependent = True  # pyright: ignore[reportAttributeAccessIssue]
    x, y = flat(0.4)
    with pytest.raises(ValueError, match="can't depend on the batch"):
        run(row("fgsm"), network, build("sce"), x, y, Threat("linf", 0.1), seed=0)


def test_an_evaluation_counts_rejected_images_as_handled_and_shows_them():
    # Right and accepted; right and rejected; wrong and rejected; wrong and accepted.
    x, y = torch.cat([flat(0.4, 0.48, 0.6)[0], flat(0.4)[0]]), torch.tensor([0, 0, 0, 1])
    suite = parameters(row("bim", steps=40, blind=True), row("bim", steps=40), eps=(0.2,))
    found = evaluate(Watched(), build("sce"), x, y, suite, progress=False)
    results = found.results()
    assert results["clean"]["correct"] == 3
    shares = {name: share["correct"] for name, share in results["rejection"].items()}
    assert shares == {"clean_rejected": 2, "clean_right_and_accepted": 1}
    rows = results["threats"]["linf@0.2"]["attacks"]
    assert rows["bim40-training-blind"]["correct"] > rows["bim40-training"]["correct"]
    assert list(accuracy_table(found).index[:3]) == ["clean", "clean rejected", "clean right and accepted"]
    flags = red_flags(found, Watched(), build("sce"), x, y, suite)
    assert flags["rejects-clean"].startswith("50.0")


def test_a_network_that_rejects_everything_is_robust_on_paper_and_flagged():
    x, y = flat(0.3, 0.4, 0.6, 0.7)
    suite = parameters(row("matched", steps=20, objective="margin"))
    network = Watched(limit=-5.0)
    found = evaluate(network, build("sce"), x, y, suite, progress=False)
    results = found.results()
    assert results["threats"]["linf@0.2"]["worst"]["accuracy"] == 1
    assert results["rejection"]["clean_rejected"]["accuracy"] == 1
    assert results["rejection"]["clean_right_and_accepted"]["accuracy"] == 0
    assert {"rejects-clean", "not-zero-at-large-eps"} <= set(red_flags(found, network, build("sce"), x, y, suite))


def test_ordinary_evaluations_have_no_rejection():
    network, x = Layers(), images(4)
    y = predicted(network, x)
    results = evaluate(network, build("sce"), x, y, parameters(row("fgsm")), progress=False).results()
    assert set(results) == {"clean", "threats"}


def test_a_mask_of_rejected_images_must_be_among_those_handled():
    one = torch.tensor([True, False]).numpy()
    with pytest.raises(ValueError, match="among 2 images that are handled"):
        Evaluation(one, {}, 2, refused=~one)


def test_examples_are_accepted_before_and_after():
    x, y = flat(0.4, 0.48, 0.42)
    shown = examples(Watched(), build("sce"), x, y, row("bim", steps=40), Threat("linf", 0.2))
    assert shown.index.tolist() == [0, 2]  # the other is rejected as it stands
    assert shown.predictions[:, [0, 2]].tolist() == [[0, 1]] * 2
