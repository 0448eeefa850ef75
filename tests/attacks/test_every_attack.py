"""What holds for every attack: one signature, points inside, nothing touched, no matter how it is batched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isce import attacks, models
from isce.attacks import Threat, run
from isce.config import AttackSpec, ConfigError, validate
from isce.losses import build, names
from isce.losses.base import Objective
from isce.models import Classifier

SPECS = [
    AttackSpec(attack="fgsm"),
    AttackSpec(attack="fgsm", objective="matched"),
    AttackSpec(attack="bim", steps=5),
    AttackSpec(attack="bim", steps=5, objective="matched"),
    AttackSpec(attack="pgd", steps=5),
    AttackSpec(attack="pgd", steps=5, restarts=2, objective="matched"),
    *(AttackSpec(attack="matched", steps=5, restarts=3, objective=o) for o in attacks.objectives("matched")),
    AttackSpec(attack="search", objective="margin", steps=30, restarts=2),
]
THREATS = [Threat("linf", 0.15), Threat("l2", 0.7)]


def go(target, spec, threat, rows=slice(None), seed=0, index=None):
    x, y = target.x[rows], target.y[rows]
    return run(spec, target.classifier, target.objective, x, y, threat, seed=seed, index=index)


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.label)
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_the_result_is_inside_and_success_is_what_a_fresh_forward_says(target, spec, threat):
    result = go(target, spec, threat)
    assert threat.inside(result.adversarial, target.x).all()
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    with torch.no_grad():
        wrong = target.classifier(result.adversarial).argmax(1) != target.y
        clean_wrong = target.classifier(target.x).argmax(1) != target.y
    assert torch.equal(result.success, wrong)
    assert result.success.any()
    assert not result.rejected.any()
    assert torch.equal(result.first_success >= 0, result.success)
    assert torch.equal(result.first_success == 0, clean_wrong | (result.success & (result.first_success == 0)))
    assert (result.first_success <= spec.steps * spec.restarts).all()
    assert (result.success | ~result.last_success).all()  # the best point is at least as good as the last


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_the_classifier_the_images_and_the_global_generator_are_left_as_they_were(target, spec):
    classifier = target.classifier
    classifier.train()
    weight = next(classifier.parameters())
    weight.grad = torch.ones_like(weight)
    x, before = target.x.clone(), {k: v.clone() for k, v in classifier.state_dict().items()}
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            go(target, spec, THREATS[0], rows=slice(8))
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


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.label)
def test_order_and_batching_change_nothing(target, spec):
    """In float64, where the rounding of another batch size can't turn a gradient's sign."""
    classifier = target.classifier.double()
    try:
        x, y, index = target.x.double(), target.y, torch.arange(len(target.y))

        def attack(rows):
            return run(
                spec, classifier, target.objective, x[rows], y[rows], THREATS[0], seed=1, index=index[rows]
            ).adversarial

        whole = attack(index)
        flipped = attack(index.flip(0)).flip(0)
        split = torch.cat([attack(rows) for rows in index.split(7)])
    finally:
        classifier.float()
    assert (whole - flipped).abs().max() < 1e-9
    assert (whole - split).abs().max() < 1e-9


class _Linear(nn.Module):
    """Two classes; class 1 wins where the mean pixel exceeds 0.5."""

    def forward(self, x):
        mean = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], 1)


def test_images_that_are_wrong_as_they_stand_are_returned_unchanged():
    x, y = torch.tensor([0.9, 0.1]).view(2, 1, 1, 1), torch.tensor([0, 0])
    result = run(AttackSpec(attack="pgd"), _Linear(), build("sce"), x, y, Threat("linf", 0.05), seed=0)
    assert result.success.tolist() == [True, False]
    assert result.first_success.tolist() == [0, -1]
    assert torch.equal(result.adversarial[0], x[0])


class _NeedsEmbedding(Objective):
    """Ascending it moves the embedding away from 0; the scores alone have no gradient for it."""

    name = "needs-embedding"
    needs_embedding = True

    def _loss(self, scores, target, embedding, reduction):
        assert embedding is not None
        return embedding.square().sum(1)

    def matched(self, scores, target, embedding=None):
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
    """Scores depend on the batch: pixels are compared with the batch's mean."""

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


def test_labels_outside_the_scores_are_refused():
    x, y = torch.full((2, 1, 1, 1), 0.5), torch.tensor([0, 2])
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 2"):
        run(AttackSpec(attack="fgsm"), _Linear(), build("sce"), x, y, Threat("linf", 0.1), seed=0)


class _Nan(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2] * math.nan


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="scores of clean images are not finite"):
        run(
            AttackSpec(attack="fgsm"),
            _Nan(),
            build("sce"),
            torch.full((1, 1, 2, 2), 0.5),
            torch.tensor([0]),
            Threat("linf", 0.1),
            seed=0,
        )


def test_names_and_specs():
    assert {"fgsm", "bim", "pgd"} <= set(attacks.names())
    with pytest.raises(ConfigError, match=r"unknown attack 'foo'; known: .*bim"):
        validate(AttackSpec, {"attack": "foo"}, "row")
    with pytest.raises(ConfigError, match="fgsm can't ascend 'foo'; known: training, matched"):
        validate(AttackSpec, {"attack": "fgsm", "objective": "foo"}, "row")
    with pytest.raises(ConfigError, match="bim has no random start"):
        validate(AttackSpec, {"attack": "bim", "steps": 3, "restarts": 2}, "row")
