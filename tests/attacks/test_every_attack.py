"""What holds for every attack: one signature, points inside, nothing touched, no matter how it is batched."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tiny import Mean
from torch import nn

from isce import attacks, models
from isce.attacks import Threat, run
from isce.attacks.spec import AttackSpec
from isce.losses import build, names
from isce.losses.base import Objective
from isce.models import Classifier
from isce.strict import ConfigError, validate

SPECS = [
    AttackSpec(attack="fgsm"),
    AttackSpec(attack="fgsm", objective="matched"),
    AttackSpec(attack="bim", steps=5),
    AttackSpec(attack="bim", steps=5, objective="matched"),
    AttackSpec(attack="pgd", steps=5),
    AttackSpec(attack="pgd", steps=5, restarts=2, objective="matched"),
    *(AttackSpec(attack="matched", steps=5, restarts=3, objective=o) for o in attacks.about("matched").objectives),
    AttackSpec(attack="search", objective="margin", steps=100, restarts=2),
    AttackSpec(attack="staged", steps=5, restarts=3),
    AttackSpec(attack="fmn", steps=10),
    AttackSpec(attack="nearest", steps=10),
]
SLOW = [
    AttackSpec(attack="fgsm", targeted=True),
    AttackSpec(attack="mim", steps=5),
    AttackSpec(attack="pgd", steps=10, targeted=True),
    AttackSpec(attack="cw", steps=30, params={"search_steps": 3, "lr": 0.05}),
    AttackSpec(attack="cw", steps=30, targeted=True, params={"search_steps": 3, "lr": 0.05}),
    AttackSpec(attack="lbfgs", steps=10, targeted=True, params={"search_steps": 2}),
    AttackSpec(attack="fab", steps=10),
    AttackSpec(attack="deepfool", steps=10),
    AttackSpec(attack="jsma", targeted=True, norm="l0", eps=20),
    AttackSpec(attack="local-search", steps=10, norm="l0", eps=20),
    AttackSpec(attack="single-pixel", steps=20),
    AttackSpec(attack="simba", steps=100),
    AttackSpec(attack="spsa", steps=5, params={"samples": 32, "lr": 0.1}),
    AttackSpec(attack="spatial", steps=20),
    AttackSpec(attack="autoattack"),
    AttackSpec(attack="released", steps=5, step_size=0.05),
    AttackSpec(attack="transfer", steps=10, source="itself"),
]
THREATS = [Threat("linf", 0.15), Threat("l2", 0.7)]
CASES = [
    (spec, threat)
    for spec in SPECS + SLOW
    for threat in ([spec.threat] if spec.threat else THREATS)
    if threat.norm in attacks.about(spec.attack).norms
]
FIRST = {spec.label: (spec, threat) for spec, threat in reversed(CASES)}  # one threat for each
FEW = slice(12)


def label(value):
    return value.label


def numpy_generator():
    return np.random.get_state()[1].copy()  # noqa: NPY002 - packages draw from it


def go(target, spec, threat, rows=slice(None), seed=0, index=None):
    x, y = target.x[rows], target.y[rows]
    source = (target.classifier, target.objective) if spec.source else None
    return run(spec, target.classifier, target.objective, x, y, threat, seed=seed, index=index, source=source)


def test_every_attack_is_tested():
    assert {spec.attack for spec, _ in CASES} == set(attacks.names())


@pytest.mark.parametrize(("spec", "threat"), CASES, ids=label)
def test_the_result_is_inside_and_success_is_what_a_fresh_forward_says(target, spec, threat):
    rows = FEW if spec in SLOW and spec.attack != "local-search" else slice(None)  # that one finds little
    result, x, y = go(target, spec, threat, rows), target.x[rows], target.y[rows]
    assert threat.inside(result.adversarial, x).all()
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    with torch.no_grad():
        wrong = target.classifier(result.adversarial).argmax(1) != y
        clean_wrong = target.classifier(x).argmax(1) != y
    assert torch.equal(result.success, wrong)
    assert (result.hit <= result.success).all()
    assert spec.targeted or not result.hit.any()
    assert not result.rejected.any()
    assert torch.equal(result.first_success >= 0, result.success)
    assert torch.equal(result.first_success == 0, clean_wrong | (result.success & (result.first_success == 0)))
    assert (result.first_success <= spec.steps * spec.restarts).all()
    assert (result.success | ~result.last_success).all()  # the best point is at least as good as the last


class _OnePixel(nn.Module):
    """Class 0 until the weighted sum of pixels exceeds 2.6; one pixel weighs more than the others together."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        weights = torch.full((1, 1, 4, 4), 0.2)
        weights[..., 1, 2] = 10
        self.weights = nn.Parameter(weights)
        self.classes = classes

    def forward(self, x):
        over = (x * self.weights).flatten(1).sum(1) - 2.6
        return torch.stack([-over, over, 0.5 * over, 0.25 * over], 1)[:, : self.classes]


@pytest.mark.parametrize(("spec", "threat"), CASES, ids=label)
def test_what_is_near_is_broken(spec, threat):
    """Grey images whose weightiest pixel is black: a third of each eps is enough."""
    x, y = torch.full((2, 1, 4, 4), 0.6), torch.zeros(2, dtype=torch.int64)
    x[:, 0, 1, 2] = torch.tensor([0.02, 0.04])
    model, objective = _OnePixel(2 if spec.targeted else 4), build("sce")
    assert torch.equal(model(x).argmax(1), y)
    source = (model, objective) if spec.source else None
    assert run(spec, model, objective, x, y, threat, seed=0, source=source).success.all()


@pytest.mark.parametrize(("spec", "threat"), FIRST.values(), ids=label)
def test_the_classifier_the_images_and_the_global_generators_are_left_as_they_were(target, spec, threat):
    classifier = target.classifier
    classifier.train().zero_grad()  # another test may have left some
    weight = next(classifier.parameters())
    weight.grad = torch.ones_like(weight)
    x, before = target.x.clone(), {k: v.clone() for k, v in classifier.state_dict().items()}
    state, numpy_state, python_state = torch.get_rng_state(), numpy_generator(), random.getstate()
    try:
        with torch.no_grad():
            go(target, spec, threat, rows=slice(4))
        assert all(part.training for part in classifier.modules())
        assert all(p.requires_grad for p in classifier.parameters())
        assert torch.equal(weight.grad, torch.ones_like(weight))
        assert all(p.grad is None for p in list(classifier.parameters())[1:])
    finally:
        weight.grad = None
        classifier.eval()
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())
    assert torch.equal(target.x, x)
    assert not target.x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(numpy_generator(), numpy_state)
    assert random.getstate() == python_state


# AutoAttack draws for a batch at once; the others here compute in float32, whatever they are given.
BATCHED = {"autoattack", "cw", "fab", "jsma", "spatial"}
INVARIANT = [case for case in FIRST.values() if case[0].attack not in BATCHED]


@pytest.mark.parametrize(("spec", "threat"), INVARIANT, ids=label)
def test_order_and_batching_change_nothing(target, spec, threat):
    """In float64, where the rounding of another batch size can't turn a gradient's sign."""
    classifier = target.classifier.double()
    try:
        n = 12 if spec in SLOW else len(target.y)
        x, y, index = target.x[:n].double(), target.y[:n], torch.arange(n)
        source = (classifier, target.objective) if spec.source else None

        def attack(rows):
            given = (spec, classifier, target.objective, x[rows], y[rows], threat)
            return run(*given, seed=1, index=index[rows], source=source).adversarial

        whole = attack(index)
        flipped = attack(index.flip(0)).flip(0)
        split = torch.cat([attack(rows) for rows in index.split(7)])
    finally:
        classifier.float()
    assert (whole - flipped).abs().max() < 1e-9
    assert (whole - split).abs().max() < 1e-9


@pytest.mark.parametrize("spec", [SPECS[2], SPECS[4], SPECS[7], *SLOW[3:5]], ids=label)
def test_colour_images_in_any_memory_layout(spec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = models.build("small-cnn", input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.25] * 3)
        classifier = Classifier(backbone, nn.Linear(backbone.embedding_dim, 10)).to(memory_format=torch.channels_last)
        x = torch.rand(4, 3, 8, 8)
    y, threat = classifier(x).argmax(1), Threat("l2", 0.5)
    plain, last = (
        run(spec, classifier, build("sce"), images, y, threat, seed=0).adversarial
        for images in (x, x.to(memory_format=torch.channels_last))
    )
    assert torch.equal(plain, last)
    assert spec.attack == "cw" or (plain != x).any()  # that one keeps an image that it could not break


def test_images_that_are_wrong_as_they_stand_are_returned_unchanged():
    x, y = torch.tensor([0.9, 0.1]).view(2, 1, 1, 1), torch.tensor([0, 0])
    result = run(AttackSpec(attack="pgd"), Mean(), build("sce"), x, y, Threat("linf", 0.05), seed=0)
    assert result.success.tolist() == [True, False]
    assert result.first_success.tolist() == [0, -1]
    assert torch.equal(result.adversarial[0], x[0])


class _NeedsEmbedding(Objective):
    """Ascending it moves the embedding away from 0; the logits alone have no gradient for it."""

    name = "needs-embedding"
    needs_embedding = True

    def _loss(self, logits, target, embedding, reduction):
        assert embedding is not None
        return embedding.square().sum(1)

    def matched(self, logits, target, embedding=None):
        assert embedding is not None
        return embedding.square().sum(1)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_objectives_that_need_the_embedding_get_it(target, spec):
    threat = Threat("linf", 0.02)
    x, y = target.x[:10], target.y[:10]
    result = run(spec, target.classifier, _NeedsEmbedding(), x, y, threat, seed=0)
    with torch.no_grad():
        before, after = (
            target.classifier(z, return_embedding=True)[1].square().sum(1) for z in (x, result.adversarial)
        )
    still = ~result.success
    assert still.any()
    if spec.restarts == 1:  # restarts keep the lowest margin, not the highest objective
        moved = still & ((result.adversarial - x).abs().flatten(1).amax(1) > 0)
        assert (after > before)[moved].all()


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[4], SPECS[6], SPECS[7]], ids=lambda s: s.label)
def test_every_objective_can_be_attacked_and_image_by_image(digits, name, spec):
    """Also those that compare the images of a batch: an adversary has one image alone."""
    objective = build(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = models.build("small-cnn", input_shape=digits.input_shape, mean=digits.mean, std=digits.std)
        classifier = Classifier(backbone, objective.score_map(backbone.embedding_dim, 10)).double()
    x, index, threat = digits.test.unit()[:4].double(), torch.arange(4), Threat("linf", 0.05)
    with torch.no_grad():
        y = classifier(x).argmax(1)
    whole = run(spec, classifier, objective, x, y, threat, seed=0).adversarial
    for i in range(4):
        row = slice(i, i + 1)
        alone = run(spec, classifier, objective, x[row], y[row], threat, seed=0, index=index[row]).adversarial
        assert (alone - whole[row]).abs().max() < 1e-9
    assert (whole != x).any()


class _BatchMean(nn.Module):
    """Logits depend on the batch: pixels are compared with the batch's mean."""

    batch_dependent = True

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        centred = mean - mean.mean()
        return torch.stack([-centred, centred], 1)


def test_a_batch_dependent_models_batch_stays_together():
    x = torch.tensor([0.2, 0.3, 0.4, 0.6]).view(4, 1, 1, 1)
    y = torch.tensor([0, 0, 0, 1])
    model = _BatchMean()
    result = run(AttackSpec(attack="pgd", steps=4, restarts=3), model, build("sce"), x, y, Threat("linf", 0.1), seed=0)
    assert torch.equal(result.success, model(result.adversarial).argmax(1) != y)
    assert result.success.any()


def test_names_and_specs():
    assert {"fgsm", "bim", "pgd"} <= set(attacks.names())
    for values, words in [
        ({"attack": "foo"}, r"unknown attack 'foo'; known: .*bim"),
        ({"attack": "fgsm", "objective": "foo"}, "fgsm can't ascend 'foo'; known: training, matched"),
        ({"attack": "bim", "steps": 3, "restarts": 2}, "bim has no random start"),
        ({"attack": "fgsm", "steps": 3}, "fgsm takes no number of steps"),
        ({"attack": "fab", "targeted": True}, "fab can't be targeted"),
        ({"attack": "jsma", "norm": "l0", "eps": 3.0}, "jsma is always targeted"),
        ({"attack": "jsma", "targeted": True}, "jsma works in l0 alone: give the row norm and eps"),
        ({"attack": "jsma", "targeted": True, "norm": "l0", "eps": 2.5}, "eps must be a whole number of pixels"),
        ({"attack": "cw", "norm": "linf", "eps": 0.1}, "cw doesn't work in 'linf'; known: l2"),
        ({"attack": "cw", "norm": "l2"}, "give both, or neither"),
        ({"attack": "cw", "params": {"foo": 1.0}}, "cw has no parameter foo; known: confidence"),
        ({"attack": "released"}, "released needs a step_size"),
        ({"attack": "transfer"}, "source belongs to transfer"),
        ({"attack": "matched", "seconds": 3.0}, "seconds limits attacks of other packages"),
    ]:
        with pytest.raises(ConfigError, match=words):
            validate(AttackSpec, values, "row")


def test_labels_tell_rows_apart():
    assert AttackSpec(attack="cw", steps=50, targeted=True, params={"lr": 0.5}).label == "cw50-targeted-lr0.5"
    assert AttackSpec(attack="released", steps=5, step_size=0.005).label == "released5-training-step0.005"
    assert AttackSpec(attack="single-pixel", steps=9).threat == Threat("l0", 1)
    source = "build/runs/mnist/train/sce-s1/last.safetensors"
    assert AttackSpec(attack="transfer", steps=5, source=source).label == "transfer5-training-from-sce-s1"


def test_autoattack_goes_after_as_many_classes_as_there_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    x, threat = torch.rand(12, 1, 8, 8), THREATS[0]
    y = model(x).argmax(1)
    result = run(AttackSpec(attack="autoattack"), model, build("sce"), x, y, threat, seed=0)
    ours = AttackSpec(attack="matched", objective="margin", steps=100, restarts=3)
    found = run(ours, model, build("sce"), x, y, threat, seed=0).success
    assert 0 < int(result.success.sum()) <= int(found.sum()) < 12
