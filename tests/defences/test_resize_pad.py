"""Random resizing and padding: what a draw does to an image, and that it is keyed, in training and in evaluation."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from short_training import few
from torch import nn

from isce import defences
from isce.losses import build
from isce.minmax import network_constants
from isce.minmax.chain import chain
from isce.models import Classifier, assemble
from isce.models import build as network
from isce.models.randomised import ResizePadClassifier, Sides, at, is_randomised, sides
from isce.parameters.training import TrainParameters
from isce.runs.experiment import Experiment
from isce.strict import ConfigError, validate
from isce.training import load_checkpoint
from isce.training.loop import train

SHAPE = {"input_shape": (1, 8, 8), "mean": (0.4,), "std": (0.3,), "num_classes": 10}


def parameters(**changes):
    defence = {"name": "resize-pad", "params": changes.pop("params", {})}
    return TrainParameters.model_validate({"defence": defence, "epochs": 2, "batch_size": 32} | changes)


def made(**changes):
    classifier, objective = assemble(parameters(**changes), SHAPE)
    assert isinstance(classifier, ResizePadClassifier)
    return classifier.eval(), objective


def images(count=4):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("side", "expected"), [(8, (9, 10)), (28, (30, 31)), (32, (35, 36)), (299, (330, 331))])
def test_sides_are_the_papers_share(side, expected):
    assert sides((1, side, side)) == (side, *expected)


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((1, 8, 9), {}),
        ((1, 8, 8), {"largest": 7}),
        ((1, 8, 8), {"padded": 8}),
        ((1, 8, 8), {"largest": 9, "padded": 7}),
    ],
)
def test_sides_that_do_not_fit_are_refused(shape, given):
    with pytest.raises(ValueError, match=r"square|at least 8"):
        sides(shape, **given)


@pytest.mark.parametrize(
    "params",
    [{"largest": 0}, {"padded": 2.5}, {"largest": 12, "padded": 11}, {"side": 3}, {"padded": 8}, {"largest": 7}],
)
def test_parameters_are_checked_before_any_image_is_there(params):
    with pytest.raises(ValueError, match=r"largest|padded|side"):
        parameters(params=params)


def test_the_released_normalisation_is_refused():
    with pytest.raises(ValueError, match="mean image"):
        parameters(normalisation="released")


def test_every_size_and_place_is_drawn_as_often():
    places = Counter(Sides(8, 9, 10).place(draw) for draw in range(9000))
    assert set(places) == {(8, r, c) for r in range(3) for c in range(3)} | {(9, r, c) for r in (0, 1) for c in (0, 1)}
    by_size = Counter(size for size, _, _ in places.elements())
    assert abs(by_size[8] - 4500) < 250
    assert max(places[p] for p in places if p[0] == 8) < 620
    assert min(places[p] for p in places if p[0] == 8) > 380


def test_a_draw_places_the_image_on_black():
    classifier, _ = made()
    x = images()
    for draw in range(30):
        size, top, left = classifier.sides.place(draw)
        shown = classifier.transform(x, draw)
        assert shown.shape == (4, 1, 10, 10)
        inner = shown[:, :, top : top + size, left : left + size]
        padding = torch.ones(10, 10, dtype=torch.bool)
        padding[top : top + size, left : left + size] = False
        assert not bool(shown[:, :, padding].any())
        if size == 8:
            assert torch.equal(inner, x)
        else:  # by hand: pixel i of 9 looks at (i + 1/2) 8/9 - 1/2
            at_ = ((torch.arange(9) + 0.5) * 8 / 9 - 0.5).clamp(min=0)
            low, high, share = at_.long(), (at_.long() + 1).clamp(max=7), at_ - at_.long()
            rows = x[:, :, low] * (1 - share[:, None]) + x[:, :, high] * share[:, None]
            expected = rows[..., low] * (1 - share) + rows[..., high] * share
            assert torch.allclose(inner, expected, atol=1e-5)
        assert 0 <= float(shown.min()) <= float(shown.max()) <= 1


def test_several_draws_give_the_mean_of_their_logits_and_embeddings():
    classifier, _ = made()
    x = images()
    apart = list[tuple[torch.Tensor, torch.Tensor]]()
    for draw in (3, 5, 8):
        with at(classifier, (draw,)):
            apart.append(classifier(x, return_embedding=True))
            shown = Classifier(classifier.backbone, classifier.score_map)(classifier.transform(x, draw))
            assert torch.equal(apart[-1][0], shown)
    with at(classifier, (3, 5, 8)):
        together = classifier(x, return_embedding=True)
    for place in (0, 1):
        assert torch.allclose(together[place], sum(one[place] for one in apart) / 3, atol=1e-6)
    assert classifier.draws == (0,)
    log_mean = sum(one[0].log_softmax(1) for one in apart) / 3
    margins = together[0] - together[0][:, :1]
    assert torch.allclose(margins, log_mean - log_mean[:, :1], atol=1e-5), "as the docstring says"


def test_an_image_does_not_depend_on_its_batch_nor_on_calls_before():
    classifier, _ = made()
    x = images()
    with torch.no_grad():
        whole = classifier(x)
        assert torch.allclose(classifier(x[2:3]), whole[2:3], atol=1e-6)
        assert torch.equal(classifier(x), whole)


def test_images_of_another_kind_are_refused():
    classifier, _ = made()
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\)"):
        classifier(torch.rand(2, 1, 10, 10))
    with pytest.raises(TypeError, match="floating"):
        classifier(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="at least one key"), at(classifier, ()):
        classifier(images())


def test_it_has_no_bounds():
    classifier, _ = made()
    assert is_randomised(classifier)
    with pytest.raises(ValueError, match="no bounds for ResizePadClassifier"):
        chain(classifier)
    backbone = network("lipschitz-dense", input_shape=(1, 10, 10), mean=(0.4,), std=(0.3,))
    drawing = ResizePadClassifier(backbone, backbone.scores(nn.Linear(backbone.embedding_dim, 10)), sides((1, 8, 8)))
    with pytest.raises(ValueError, match="no bounds for ResizePadClassifier: it has its own outputs"):
        network_constants(drawing.eval(), "l2")


def test_a_batch_is_trained_on_at_a_draw_of_its_own():
    classifier, _ = made()
    defence = defences.build("resize-pad")
    seen = list[int | None]()
    for seed in (1, 1, 2):
        defence.draw(classifier, torch.Generator().manual_seed(seed))
        seen.append(classifier.drawn)
    assert seen[0] == seen[1] != seen[2]
    x = images()
    with torch.no_grad():
        classifier.train()
        trained = classifier(x)
        with at(classifier.eval(), (seen[2],)):
            assert torch.equal(classifier(x), trained)


def tiny():
    return few(60, 20, test=24)


def test_a_trained_network_loads_with_one_draw(tmp_path):
    train(parameters(), tmp_path, data=tiny(), progress=False)
    loaded = load_checkpoint(tmp_path / "last.safetensors")
    assert isinstance(loaded.classifier, ResizePadClassifier)
    assert (loaded.classifier.draws, loaded.classifier.drawn) == ((0,), None)


def test_with_adversarial_training_the_attack_sees_the_draw_of_its_batch(tmp_path, monkeypatch):
    seen = list[tuple[str, int | None]]()
    real = ResizePadClassifier.transform

    def spying(self, x, draw):
        seen.append(("train" if self.training else "eval", draw))
        return real(self, x, draw)

    monkeypatch.setattr(ResizePadClassifier, "transform", spying)
    adversarial = {"kind": "pgd", "eps": 0.1, "steps": 2, "step_size": 0.05}
    train(parameters(epochs=1, adversarial=adversarial), tmp_path, data=tiny(), progress=False)
    draws = [draw for mode, draw in seen if mode == "train"]
    assert len(draws) == 2 * 3  # two batches of two steps and an update
    assert len(set(draws[:3])) == len(set(draws[3:])) == 1
    assert draws[0] != draws[3]
    assert {draw for mode, draw in seen if mode == "eval"} == {0}


def test_the_objective_is_the_loss_of_the_images_at_the_draw():
    classifier, _ = made()
    objective, y = build("sce"), torch.tensor([0, 1, 2, 3])
    defence, classifier = defences.build("resize-pad"), classifier.train()
    defence.draw(classifier, torch.Generator().manual_seed(4))
    batch = defences.Batch(
        images(), y, classifier, lambda x: classifier(x, return_embedding=True), objective, torch.Generator(), 10
    )
    loss, logits = defence.loss(batch)
    shown = classifier.transform(images(), classifier.drawn)
    expected = classifier.score_map(classifier.backbone(shown))
    assert torch.equal(logits, expected)
    assert torch.allclose(loss, nn.functional.cross_entropy(expected, y))


@pytest.mark.parametrize(
    ("choice", "draws", "words"),
    [
        (
            {"name": "sce", "defence": {"name": "resize-pad"}},
            None,
            "pad-s0 draws at random .* must say draws",
        ),
        ({"name": "sce"}, {"attack": 1}, "sce-s0 does not: plan it apart"),
    ],
)
def test_an_experiment_plans_draws_for_networks_that_draw_and_for_no_others(choice, draws, words):
    plan = {"suite": "basic", "eps": [0.1], "main_eps": 0.1, "draws": draws}
    values = {"name": "e", "title": "E", "objectives": [choice], "seeds": [0], "attack": plan}
    with pytest.raises(ConfigError, match=words):
        validate(Experiment, values, "here")
