"""The detector: what its branch learns, what stays frozen, its threshold, and that it is attacked by who knows it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mean_model import parameters as attacked_by
from pydantic import ValidationError
from short_training import few
from torch import nn
from trained import trained

from isce import data, defences, losses, models
from isce.attacks.spec import AttackSpec
from isce.defences import Batch
from isce.evaluation import evaluate
from isce.minmax import analyse
from isce.models import Guarded
from isce.parameters.analysis import MinmaxParameters
from isce.parameters.training import TrainParameters
from isce.training import load_checkpoint, train

FGSM = AttackSpec(attack="fgsm")
DEFENCE = {"name": "detector", "params": {"steps": 2, "width": 4}}


def guarded(name: str = "sce", **params):
    """A trained network with a fresh branch, and images."""
    classifier, objective = trained(name)
    torch.manual_seed(0)
    defence = defences.build("detector", **params)
    test = data.load("digits").test.subset(40)
    network = defence.wrap(classifier, classifier.backbone.input_shape)
    return defence, network.eval(), objective, test.unit(), test.labels


def batch(network: Guarded, objective, x, y, seed: int = 0) -> Batch:
    def outputs(point):
        return network.unguarded(point, return_embedding=True)

    return Batch(x, y, network, outputs, objective, torch.Generator().manual_seed(seed), 10)


def small() -> data.Data:
    return few(60, 40)


def parameters(**changes) -> TrainParameters:
    given = {"dataset": "digits", "defence": DEFENCE, "epochs": 2, "batch_size": 20}
    return TrainParameters.model_validate(given | changes)


@pytest.mark.parametrize(
    ("model", "side", "place", "channels", "width"),
    [
        *(("small-cnn", side, "Conv2d", channels, 32) for side in (8, 28) for channels in (1, 3)),
        ("lenet", 28, "Flatten", 1, 16),
    ],
)
def test_the_branch_sees_what_enters_the_third_convolution_or_the_first_full_connection(
    model, side, place, channels, width
):
    shape = {"input_shape": (channels, side, side), "mean": [0.5] * channels, "std": [0.2] * channels}
    backbone = models.build(model, **shape)
    network = Guarded(models.Classifier(backbone, nn.Linear(backbone.embedding_dim, 10)), 4).eval()
    x = torch.rand(3, channels, side, side)
    seen = {}
    backbone.layers[network.place].register_forward_hook(lambda _, given, __: seen.update(inside=given[0]))
    logits, embedding = network(x, return_embedding=True)
    assert type(backbone.layers[network.place]).__name__ == place
    assert seen["inside"].shape[1] == width
    assert torch.equal(seen["inside"], network.inside(x))
    plain, own = network.unguarded(x, return_embedding=True)
    assert not network.unguarded.training
    assert torch.equal(logits[:, :-1], plain)
    assert torch.equal(embedding, own)


def test_an_image_is_rejected_exactly_where_the_branch_exceeds_the_threshold():
    _, network, _, x, _ = guarded()
    with torch.no_grad():
        evidence = network.evidence(network.inside(x))
        network.threshold.copy_(evidence.median())
        logits = network(x)
    assert torch.equal(logits[:, -1], evidence - network.threshold + logits[:, :-1].amax(1))
    clear = (evidence - network.threshold).abs() > 1e-4
    assert torch.equal((logits.argmax(1) == 10)[clear], (evidence > network.threshold)[clear])
    assert 0 < int((logits.argmax(1) == 10).sum()) < len(x)


def test_the_loss_is_the_cross_entropy_of_telling_the_images_that_were_moved():
    defence, network, objective, x, y = guarded(eps=0.08, steps=3, weight=4.0)
    loss, logits = defence.loss(batch(network, objective, x, y))
    moved = torch.rand(len(y), generator=torch.Generator().manual_seed(0)) < 0.5
    point = x.clone()
    for _ in range(3):  # the basic iterative method up the negative margin, written anew
        point.requires_grad_()
        scores = network.unguarded(point)
        own = F.one_hot(y, 10).bool()
        (slope,) = torch.autograd.grad((scores.masked_fill(own, -torch.inf).amax(1) - scores[own]).sum(), point)
        point = (point.detach() + 2.5 * 0.08 / 3 * slope.sign()).clamp(x - 0.08, x + 0.08).clamp(0, 1)
    shown = torch.where(moved.view(-1, 1, 1, 1), point, x)
    chance = network.evidence(network.inside(shown)).sigmoid()
    expected = -4 * (moved * chance.log() + ~moved * (1 - chance).log()).mean()
    assert 10 < int(moved.sum()) < 30
    assert torch.allclose(loss, expected, rtol=1e-4)
    assert torch.allclose(logits, network.unguarded(shown), atol=1e-4)
    assert torch.equal(loss, defence.loss(batch(network, objective, x, y))[0])
    assert not torch.equal(loss, defence.loss(batch(network, objective, x, y, seed=1))[0])


def test_only_the_branch_gets_a_gradient():
    defence, network, objective, x, y = guarded()
    defence.loss(batch(network, objective, x, y))[0].backward()
    given = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert given == {name for name, _ in network.named_parameters() if name.startswith("detector.")}


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "weight_decay": 0.1}, {"name": "adam", "weight_decay": 0.1}])
@pytest.mark.parametrize("objective", [{"name": "sce"}, {"name": "center"}, {"name": "lgm"}])
def test_the_network_stays_as_the_run_before_left_it(tmp_path, optimizer, objective):
    given = parameters(optimizer=optimizer, objective=objective)
    train(given.model_copy(update={"defence": None}), tmp_path / "plain", data=small(), progress=False)
    result = train(given, tmp_path / "with", data=small(), progress=False)
    before = load_checkpoint(tmp_path / "plain" / "last.safetensors")
    for name in ("best", "last"):
        after = load_checkpoint(tmp_path / "with" / f"{name}.safetensors")
        assert isinstance(after.classifier, Guarded)
        for now, then in ((after.classifier.unguarded, before.classifier), (after.objective, before.objective)):
            assert now.state_dict().keys() == then.state_dict().keys()
            assert all(torch.equal(w, then.state_dict()[key]) for key, w in now.state_dict().items()), name
    assert result.diverged is None
    assert not torch.equal(*(_branch(tmp_path / "with" / f"{name}.safetensors", objective) for name in ("last", "")))


def _branch(path, objective) -> torch.Tensor:
    """First weights of the branch of a checkpoint; of none: as it starts."""
    if path.name.startswith("last"):
        network = load_checkpoint(path).classifier
    else:
        whole = small()
        shape = {name: getattr(whole, name) for name in ("input_shape", "mean", "std", "num_classes")}
        network = models.assemble(parameters(objective=objective), shape)[0]
    assert isinstance(network, Guarded)
    return next(network.detector.parameters())


def test_the_best_epoch_is_the_one_that_detects_most_and_its_threshold_is_saved(tmp_path):
    result = train(parameters(epochs=3), tmp_path, data=small(), progress=False)
    detected = [row["validation_detected"] for row in result.history]
    assert result.best_epoch == 1 + detected.index(max(detected))
    assert all(row["validation_rejected"] <= 0.05 for row in result.history)
    network = load_checkpoint(tmp_path / "last.safetensors").classifier
    with torch.no_grad():
        logits = network(small().validation.unit())
    assert float((logits.argmax(1) == 10).double().mean()) == result.history[-1]["validation_rejected"]


@pytest.mark.parametrize(("share", "rejected"), [(0.0, 0), (0.05, 2), (0.074, 2), (0.5, 20)])
def test_the_threshold_rejects_at_most_the_share_of_clean_images(share, rejected):
    defence, network, objective, x, y = guarded(rejected=share, steps=1)
    parts = [batch(network, objective, x[:25], y[:25]), batch(network, objective, x[25:], y[25:])]
    with torch.no_grad():
        found = defence.after_epoch(iter(parts))
        evidence = network.evidence(network.inside(x))
    assert found["validation_rejected"] == rejected / 40
    assert int((evidence > network.threshold).sum()) == rejected


def test_a_branch_that_is_not_finite_ends_the_training_and_is_no_threshold_of_anything():
    defence, network, objective, x, y = guarded(steps=1)
    with torch.no_grad():
        for weight in network.get_submodule("detector").parameters():
            weight.fill_(torch.nan)
        found = defence.after_epoch([batch(network, objective, x, y)])
    assert all(value != value for value in found.values())
    with pytest.raises(ValueError, match="logits of clean images are not finite"):
        evaluate(network, objective, x, y, attacked_by([FGSM], [0.1]), progress=False)


def test_a_branch_of_another_shape_is_refused():
    _, network, _, x, _ = guarded()
    network.detector[-1] = nn.Linear(32, 2)
    with pytest.raises(RuntimeError, match=r"the detector must return \(40, 1\), got \(40, 2\)"):
        network(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "interval-cnn"}, "model must be one of lenet, small-cnn"),
        ({"model": "resnet-18"}, "model must be one of lenet, small-cnn"),
        ({"adversarial": {"kind": "pgd", "eps": 0.1, "steps": 1, "step_size": 0.1}}, "adversarial must be None"),
        ({"adversarial": {"kind": "free", "eps": 0.1, "steps": 1, "step_size": 0.1}}, "adversarial must be None"),
    ],
)
def test_what_it_is_not_defined_for_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        parameters(**changes)


def test_another_network_is_refused_when_it_is_built_by_hand():
    backbone = models.build("interval-cnn", input_shape=(1, 8, 8), mean=[0.5], std=[0.5])
    classifier = models.Classifier(backbone, losses.build("sce").score_map(backbone.embedding_dim, 10))
    with pytest.raises(ValueError, match="a detector goes on lenet or small-cnn, got IntervalCNN"):
        Guarded(classifier, 4)


def test_who_knows_breaks_at_least_as_much_as_who_is_blind(digits_target):
    x, y, classifier = digits_target
    torch.manual_seed(0)
    defence, objective = defences.build("detector", eps=0.2, steps=3), losses.build("sce")
    network = defence.wrap(copy.deepcopy(classifier), classifier.backbone.input_shape).eval()
    train_set = data.load("digits").train.subset(640)
    branch = torch.optim.SGD(defence.learnt(network, objective), lr=0.05, momentum=0.9)
    for epoch in range(8):
        for place, rows in enumerate(torch.arange(640).split(64)):
            branch.zero_grad()
            part = batch(network, objective, train_set.unit()[rows], train_set.labels[rows], 10 * epoch + place)
            defence.loss(part)[0].backward()
            branch.step()
    with torch.no_grad():
        defence.after_epoch([batch(network, objective, x, y)])
    rows = [AttackSpec(attack="pgd", steps=50, blind=True), AttackSpec(attack="pgd", steps=50)]
    rows += [AttackSpec(attack="matched", steps=50, restarts=2, objective="margin")]
    results = evaluate(network, objective, x, y, attacked_by(rows, [0.1, 0.2]), progress=False).results()
    for outcome in results["threats"].values():
        right = {name: row["correct"] for name, row in outcome["attacks"].items()}
        assert right["matched50x2-margin"] <= right["pgd50-training-blind"]
        assert outcome["worst"]["correct"] <= min(right.values())
    assert results["rejection"]["clean_rejected"]["accuracy"] <= 0.05


def test_analyses_that_know_nothing_of_rejection_refuse_it_and_proofs_are_of_the_network_without(digits_target):
    x, y, _ = digits_target
    _, network, objective, *_ = guarded()
    given = MinmaxParameters.model_validate({"checkpoint": "none", "eps": [0.1], "inference": [0.0]})
    with pytest.raises(ValueError, match="may reject images"):
        analyse(network, x, y, given, progress=False)
    settings = attacked_by([FGSM], [0.005], certify="interval")
    proved = evaluate(network, objective, x, y, settings, progress=False).proved["linf@0.005"]
    plain = evaluate(network.unguarded, objective, x, y, settings, progress=False).proved["linf@0.005"]
    assert proved.sum() == plain.sum()
    assert (proved == plain).all()
