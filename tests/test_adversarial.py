"""Adversarial training: what the inner attacks reach, what is learnt from it, and that a killed run loses nothing."""

from __future__ import annotations

import pytest
import torch
from short_training import KilledError, contents, few, run
from torch import nn

from isce import losses
from isce.data.batches import DeviceSet
from isce.defences.adversarial import pgd
from isce.models.assembly import assemble
from isce.parameters import training as config
from isce.training import checkpoint, loop
from isce.training.checkpoint import load_checkpoint
from isce.training.loop import train

PGD = {"kind": "pgd", "eps": 0.2, "steps": 3, "step_size": 0.1}
FREE = {"kind": "free", "eps": 0.2, "steps": 3, "step_size": 0.1}


@pytest.fixture(scope="module")
def digits():
    return few()


# --- the projected ascent


def linear():
    """Logits w_k . x over 2 x 2 pictures of one channel, two classes; also the embedding."""
    weight = torch.tensor([[1.0, -1.0, 2.0, 0.0], [0.0, 1.0, -1.0, 0.0]], requires_grad=True)

    def network(x):
        flat = x.flatten(1)
        return flat @ weight.T, flat

    return network, weight


def test_on_a_linear_network_it_reaches_the_corner_of_ball_and_box():
    network, weight = linear()
    x = torch.tensor([[0.5, 0.95, 0.1, 0.3]]).reshape(1, 1, 2, 2)
    point = pgd(network, losses.build("sce"), x, torch.tensor([0]), x, 0.2, 8, 0.05)
    # w_1 - w_0 = (-1, 2, -3, 0): down, up to the box's edge, down to the box's edge, nothing to gain.
    torch.testing.assert_close(point.flatten(), torch.tensor([0.3, 1.0, 0.0, 0.3]))
    assert weight.grad is None
    assert not point.requires_grad


def test_it_starts_anywhere_in_the_ball_and_stays_in_ball_and_box():
    network, _ = linear()
    x, y = torch.rand(200, 1, 2, 2), torch.randint(2, (200,))
    start = x + 0.2 * (2 * torch.rand(200, 1, 2, 2) - 1)
    tiny = pgd(network, losses.build("sce"), x, y, start, 0.2, 1, 1e-9)
    torch.testing.assert_close(tiny, start.clamp(0, 1))
    point = pgd(network, losses.build("sce"), x, y, start, 0.2, 5, 0.1)
    assert ((point - x).abs() <= 0.2 + 1e-6).all()
    assert point.min() >= 0
    assert point.max() <= 1


def test_it_ascends_the_matched_function_not_the_loss():
    """Beyond the clip's kink the released loss falls towards the boundary (theory): the loss would go the other way."""

    def network(x):
        flat = x.flatten(1)
        return torch.cat([flat[:, :1], torch.full_like(flat[:, :1], -0.1)], 1), flat

    objective = losses.build("isce-released")
    x, y = torch.full((1, 1, 1, 1), 0.9), torch.tensor([0])
    point = pgd(network, objective, x, y, x, 0.1, 1, 0.05)
    assert point.item() == pytest.approx(0.85)
    x.requires_grad_()
    logits, embedding = network(x)
    (gradient,) = torch.autograd.grad(objective(logits, y, embedding), x)
    assert gradient.item() > 0  # ascent on the loss makes the true class's lead larger


# --- training on it


class Plain:
    """A run derived again: plain SGD by hand, on batches in the run's order."""

    def __init__(self, digits, parameters):
        shape = {name: getattr(digits, name) for name in ("input_shape", "mean", "std", "num_classes")}
        classifier, self.objective = assemble(parameters, shape)
        self.classifier = checkpoint.placed(classifier, "cpu")
        self.digits, self.parameters = digits, parameters

    def batches(self, epoch):
        order = torch.randperm(100, generator=loop._generator(0, "order", epoch))
        for index in order.split(32):
            yield DeviceSet(self.digits.train, torch.device("cpu")).batch(index)

    def logits(self, x):
        return self.classifier(x, return_embedding=True)

    def update(self, x, y):
        logits, embedding = self.logits(x)
        weights = list(self.classifier.parameters())
        gradients = torch.autograd.grad(self.objective(logits, y, embedding), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.05 * gradient

    def distance(self, folder):
        """Largest difference of a weight from the run's, which is some 1e-5 by rounding alone."""
        loaded = load_checkpoint(folder / "last.safetensors").classifier
        pairs = zip(loaded.parameters(), self.classifier.parameters(), strict=True)
        return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


CONSTANT = {"optimizer": {"lr": 0.05, "momentum": 0.0}, "schedule": {"name": "constant"}}


def test_pgd_training_learns_from_the_points_of_the_ascent_alone(tmp_path, digits):
    parameters = config.TrainParameters(epochs=2, batch_size=32, adversarial=PGD, **CONSTANT)
    plain, clean = Plain(digits, parameters), Plain(digits, parameters)
    for epoch in (1, 2):
        starts = loop._generator(0, "starts", epoch)
        for x, y in plain.batches(epoch):
            start = x + 0.2 * (2 * torch.rand(x.shape, generator=starts) - 1)
            plain.update(pgd(plain.logits, plain.objective, x, y, start, 0.2, 3, 0.1), y)
            clean.update(x, y)
    train(parameters, tmp_path, data=digits, progress=False)
    assert plain.distance(tmp_path) < 2e-4 < 1e-3 < clean.distance(tmp_path)


def test_free_training_moves_weights_and_a_carried_perturbation_at_once(tmp_path, digits):
    parameters = config.TrainParameters(
        epochs=2, batch_size=32, objective={"name": "isce-released"}, adversarial=FREE, **CONSTANT
    )
    plain = Plain(digits, parameters)
    clean = Plain(digits, parameters)
    shift = torch.zeros(32, 1, 8, 8)
    for epoch in (1, 2):
        for x, y in plain.batches(epoch):
            for _ in range(3):
                clean.update(x, y)
                point = (x + shift[: len(x)]).clamp(0, 1).requires_grad_()
                matched = plain.objective.matched(plain.logits(point)[0], y).sum()
                (gradient,) = torch.autograd.grad(matched, point)
                plain.update(point.detach(), y)
                shift[: len(x)] = (shift[: len(x)] + 0.1 * gradient.sign()).clamp(-0.2, 0.2)
    train(parameters, tmp_path, data=digits, progress=False)
    assert plain.distance(tmp_path) < 2e-4 < 1e-3 < clean.distance(tmp_path)


def test_it_makes_a_network_robust(tmp_path, digits):
    """Accuracy under ten steps at the trained radius, against that of standard training."""
    robust = {}
    for name, adversarial in {"standard": None, "pgd": PGD, "free": FREE}.items():
        run(tmp_path / name, digits, epochs=30, adversarial=adversarial and adversarial | {"eps": 0.1})
        loaded = load_checkpoint(tmp_path / name / "last.safetensors")

        def network(images, classifier=loaded.classifier):
            return classifier(images, return_embedding=True)

        x, y = digits.train.unit(), digits.train.labels
        point = pgd(network, loaded.objective, x, y, x, 0.1, 10, 0.025)
        robust[name] = (loaded.classifier(point).argmax(1) == y).double().mean().item()
    assert min(robust["pgd"], robust["free"]) > robust["standard"] + 0.1, robust


@pytest.mark.parametrize("name", ["sce", "center"])
@pytest.mark.parametrize("adversarial", [PGD, FREE], ids=lambda spec: spec["kind"])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, digits, name, adversarial):
    changes = {"objective": {"name": name}, "adversarial": adversarial, "optimizer": {"lr": 0.01}}
    whole = run(tmp_path / "whole", digits, **changes)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=1, **changes)
    rest = run(tmp_path / "killed", digits, **changes)
    assert rest.resumed == 1
    assert rest.history == whole.history
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_another_seed_is_another_run(tmp_path, digits):
    first, second = (run(tmp_path / str(seed), digits, epochs=1, seed=seed, adversarial=FREE) for seed in (0, 1))
    assert first.history != second.history


def test_running_statistics_and_dtype_under_bfloat16_and_batch_normalisation(tmp_path, digits):
    for adversarial in (PGD, FREE):
        changes = {"model": "preact-resnet-20", "precision": "bfloat16", "epochs": 1, "train_images": 40}
        result = run(tmp_path / adversarial["kind"], digits, adversarial=adversarial, **changes)
        assert result.diverged is None
        loaded = load_checkpoint(tmp_path / adversarial["kind"] / "last.safetensors").classifier
        norm = next(m for m in loaded.modules() if isinstance(m, nn.BatchNorm2d))
        # Two batches; with pgd each is seen by three steps of the ascent and one update, with free by three.
        assert int(norm.num_batches_tracked) == 2 * config.AdversarialSpec(**adversarial).passes


def test_passes():
    assert config.TrainParameters(epochs=5).passes == 5
    assert config.TrainParameters(epochs=5, adversarial=PGD).passes == 20
    assert config.TrainParameters(epochs=5, adversarial=FREE).passes == 15
