"""The frame of the defences: their table, what they refuse, how they are named, and that a killed run loses nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from short_training import FILES, KilledError, contents, few, run
from torch import nn

from isce import defences, losses
from isce.defences import Batch
from isce.parameters import semantics
from isce.parameters.training import TrainParameters
from isce.report.names import reader_name
from isce.runs.experiment import Experiment
from isce.strict import ConfigError, validate
from isce.training import load_checkpoint, loop
from isce.training import state as training_state


@pytest.fixture(scope="module")
def digits():
    return few(60, 20)


@pytest.fixture
def network():
    """A linear network of images of 2 x 2 pixels, three classes, in float64; its embedding is the image."""
    torch.manual_seed(0)
    return nn.Linear(4, 3, dtype=torch.float64)


def batch(network, objective="sce", seed=0, **params):
    """Five images of random pixels with labels."""
    drawn = torch.Generator().manual_seed(7)
    x = torch.rand(5, 1, 2, 2, generator=drawn, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])

    def outputs(point):
        return network(point.flatten(1)), point.flatten(1)

    draws = torch.Generator().manual_seed(seed)
    return Batch(x, y, network, outputs, losses.build(objective, **params), draws, 3)


# --- the table


def test_each_defence_says_its_name_title_and_source():
    for name in defences.names():
        about = defences.about(name)
        assert about.name == name
        assert about.title
        assert re.search(r" (19|20)\d\d\b", about.source)


def test_an_unknown_defence_lists_what_there_is():
    with pytest.raises(ValueError, match=r"unknown defence 'mixupp'; known: .*mixup"):
        defences.build("mixupp")


def test_an_unknown_parameter_lists_what_there_is():
    with pytest.raises(ValueError, match=r"defence 'mixup' has no parameter beta; it takes: alpha"):
        defences.build("mixup", beta=1)


@pytest.mark.parametrize(
    ("name", "params", "text"),
    [
        ("mixup", {"alpha": 0}, "alpha must be above 0"),
        ("mixup", {"alpha": "1"}, "alpha must be a number"),
        ("distillation", {"temperature": -1}, "temperature must be above 0"),
        ("trades", {"steps": 0}, "steps must be at least 1"),
        ("pgd-training", {"eps": 1.5}, "eps must be above 0 and at most 1"),
        ("augmix", {"lam": -1.0}, "lam must be at least 0"),
        ("augmix", {"severity": 0}, "severity must be at least 1"),
        ("augmix", {"severity": 11}, "severity must be .*at most 10"),
        ("augmix", {"width": 0}, "width must be at least 1"),
        ("augmix", {"width": 2.5}, "width must be an integer"),
        ("one-step", {"weight": -1.0}, "weight must be at least 0"),
        ("one-step", {"clip": 0.0}, "clip must be above 0"),
        ("one-step", {"clip": 1.5}, "clip must be .*at most 1"),
        ("one-step", {"deviation": 0.0}, "deviation must be above 0"),
        ("vat", {"eps": 0.0}, "eps must be above 0"),
        ("vat", {"xi": 0.0}, "xi must be above 0"),
        ("noisy-softmax", {"alpha_squared": -0.1}, "alpha_squared must be at least 0"),
        ("input-gradient", {"lam": -1.0}, "lam must be at least 0"),
        ("wrm", {"gamma": 0}, "gamma must be above 0"),
        ("wrm", {"steps": 0}, "steps must be at least 1, got 0"),
        ("deep-defense", {"weight": 0}, "weight must be above 0"),
        ("deep-defense", {"c": -1}, "c must be above 0"),
        ("deep-defense", {"d": 0}, "d must be above 0"),
        ("deep-defense", {"steps": 0}, "steps must be at least 1, got 0"),
        ("deep-defense", {"rate": 1.5}, "rate must be above 0 and at most 1, got 1.5"),
        ("spectral", {"beta": 0}, "beta must be above 0"),
        ("detector", {"eps": 0}, "eps must be above 0"),
        ("detector", {"steps": 0}, "steps must be at least 1"),
        ("detector", {"weight": 0}, "weight must be above 0"),
        ("detector", {"rejected": 1.0}, "rejected must be below 1"),
        ("detector", {"rejected": -0.1}, "rejected must be at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused_where_the_parameters_are_checked(name, params, text):
    with pytest.raises(ConfigError, match=text):
        validate(TrainParameters, {"defence": {"name": name, "params": params}}, "training")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"objective": {"name": "triplet"}, "defence": {"name": "mixup"}},
            "mixup trains on probabilities, and triplet",
        ),
        (
            {
                "objective": {"name": "isce-certified", "params": {"eps": 0.1}},
                "model": "interval-cnn",
                "defence": {"name": "trades"},
            },
            "trades has no bounds",
        ),
        (
            {
                "adversarial": {"kind": "free", "eps": 0.1, "steps": 2, "step_size": 0.1},
                "defence": {"name": "mixup"},
            },
            "can't go with free adversarial training",
        ),
        ({"precision": "bfloat16", "defence": {"name": "vat"}}, "precision must be float32"),
        ({"precision": "auto", "defence": {"name": "vat"}}, "precision must be float32"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes, text):
    with pytest.raises(ConfigError, match=text):
        validate(TrainParameters, changes, "training")


# --- names


def test_an_experiment_compares_objectives_with_and_without_a_defence():
    experiment = Experiment.model_validate(
        {
            "name": "made-up",
            "title": "",
            "objectives": [{"name": "sce"}, {"name": "sce", "defence": {"name": "mixup", "params": {"alpha": 0.2}}}],
            "seeds": [0],
            "overrides": {"sce-mixup-alpha0.2": {"epochs": 3}},
            "attack": {"suite": "basic", "eps": [0.1], "main_eps": 0.1, "objectives": ["sce", "sce-mixup-alpha0.2"]},
        }
    )
    runs = dict(experiment.runs())
    assert list(runs) == ["sce-s0", "sce-mixup-alpha0.2-s0"]
    assert runs["sce-s0"].defence is None
    mixed = runs["sce-mixup-alpha0.2-s0"]
    assert mixed.defence is not None
    assert (mixed.objective.name, mixed.label, mixed.epochs) == ("sce", "sce-mixup-alpha0.2", 3)
    assert "defence.mixup" in mixed.parts()


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("sce-mixup", "SCE + mixup"),
        ("isce-m2-mixup-alpha0.2", "I-SCE (text, m = 2) + mixup (alpha 0.2)"),
        ("sce-trades-beta1-eps0.3", "SCE + TRADES (beta 1, eps 0.3)"),
    ],
)
def test_readers_see_the_loss_and_the_defence(label, name):
    assert reader_name(label) == name


# --- one step by hand


def test_mixup_is_the_mean_of_both_labels_losses_at_the_mixed_image(network):
    found, logits = defences.build("mixup").loss(one := batch(network))
    again, _ = defences.build("mixup").loss(batch(network))
    other, _ = defences.build("mixup").loss(batch(network, seed=1))
    assert found == again != other
    rolled = one.x.roll(1, 0)  # each image is mixed with its neighbour
    share = (logits - one.outputs(rolled)[0]) / (one.outputs(one.x)[0] - one.outputs(rolled)[0])
    lam = share.flatten()[0]
    torch.testing.assert_close(share, lam.expand_as(share))
    assert 0 < lam < 1
    by_label = [F.cross_entropy(logits, y) for y in (one.y, one.y.roll(1, 0))]
    torch.testing.assert_close(found, lam * by_label[0] + (1 - lam) * by_label[1])


@pytest.mark.parametrize("objective", ["sce", "isce"])
def test_distillation_compares_softened_logits_with_the_softened_teacher(network, objective):
    params = {"inference": 2.0} if objective == "isce" else {}
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, dtype=torch.float64))
    defence = defences.build("distillation", temperature=4.0)
    defence.begin(network, teacher)
    one = batch(network, objective, **params)
    found, logits = defence.loss(one)
    target = (teacher(one.x) / 4).softmax(1).float()
    by_class = [losses.build(objective, **params).per_example(logits / 4, torch.full_like(one.y, k)) for k in range(3)]
    expected = 4 * (target * torch.stack(by_class, 1)).sum(1).mean()
    torch.testing.assert_close(found, expected, check_dtype=False, rtol=1e-6, atol=0)
    found.backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_teacher_is_trained_at_the_same_temperature(network):
    assert defences.build("distillation", temperature=4.0).before() == {
        "name": "temperature",
        "params": {"temperature": 4.0},
    }
    one = batch(network)
    found, logits = defences.build("temperature", temperature=4.0).loss(one)
    torch.testing.assert_close(found, 4 * F.cross_entropy(logits / 4, one.y))


def test_adversarial_training_learns_from_the_corner_that_a_linear_network_hates_most(network):
    """Enough steps of the sign of a constant gradient end in a corner of the ball: checked for two classes."""
    network = nn.Linear(4, 2, dtype=torch.float64)
    one = batch(network)
    one = replace(one, y=one.y.clamp(max=1), x=0.25 + one.x / 2)  # the ball stays inside the box
    found, _ = defences.build("pgd-training", eps=0.1, steps=7, step_size=0.05).loss(one)
    towards = network.weight[1 - one.y] - network.weight[one.y]
    worst = one.x + 0.1 * towards.sign().view_as(one.x)
    torch.testing.assert_close(found, F.cross_entropy(network(worst.flatten(1)), one.y))


def test_trades_adds_the_divergence_to_the_loss_of_the_image(network):
    one = batch(network)
    small, _ = defences.build("trades", beta=1e-9).loss(one)
    plain = F.cross_entropy(one.outputs(one.x)[0], one.y)
    torch.testing.assert_close(small, plain, rtol=1e-6, atol=0)
    first, second = (defences.build("trades", beta=beta).loss(batch(network))[0] for beta in (1.0, 3.0))
    torch.testing.assert_close(second - plain, 3 * (first - plain))
    assert first > plain
    # No point of the ball has a larger divergence than the worst corner that is found by trying all 16.
    clean, rows = one.outputs(one.x)[0], []
    for bits in range(16):
        signs = torch.tensor([1.0 if bits >> k & 1 else -1.0 for k in range(4)], dtype=torch.float64)
        corner = (one.x.flatten(1) + 0.1 * signs).clamp(0, 1)
        rows.append((clean.softmax(1) * (clean.log_softmax(1) - network(corner).log_softmax(1))).sum(1))
    assert first - plain <= torch.stack(rows).amax(0).mean() + 1e-12


# --- a run that begins with another


def test_a_killed_run_goes_on_to_the_same_bits_and_trains_its_teacher_once(tmp_path, digits, monkeypatch):
    changes = {"defence": {"name": "distillation", "params": {"temperature": 2.0}}}
    run(tmp_path / "whole", digits, **changes)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=1, **changes)
    trained, epoch = [], loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda state, *rest: trained.append(state.folder) or epoch(state, *rest))
    assert run(tmp_path / "killed", digits, **changes).resumed == 1
    assert trained == [tmp_path / "killed"]
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("other", ["nothing", "parameters", "semantics", "packages", "damage"])
def test_a_first_network_is_taken_over_only_if_it_would_come_out_the_same_today(tmp_path, digits, monkeypatch, other):
    changes = {"defence": {"name": "distillation"}}
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=1, **changes)
    if other == "parameters":
        changes["seed"] = 5
    elif other == "semantics":
        monkeypatch.setitem(semantics.CHANGES, "network.small-cnn", ["another initialisation"] * 9)
    elif other == "packages":
        monkeypatch.setattr(training_state, "versions", lambda names: dict.fromkeys(names, "another"))
    elif other == "damage":
        (tmp_path / "killed" / loop.FIRST / "identity.json").write_bytes(b"\xff")
    run(tmp_path / "whole", digits, **changes)
    trained, epoch = [], loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda state, *rest: trained.append(state.folder) or epoch(state, *rest))
    run(tmp_path / "killed", digits, **changes)
    assert (tmp_path / "killed" / loop.FIRST in trained) == (other != "nothing")
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_a_first_network_from_elsewhere_is_trained_anew(tmp_path, digits):
    changes = {"defence": {"name": "distillation"}}
    run(tmp_path / "a", digits, **changes)
    run(tmp_path / "b" / loop.FIRST, digits, seed=5)
    run(tmp_path / "b", digits, **changes)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_first_network_that_diverges_ends_the_run(tmp_path, digits):
    with pytest.raises(RuntimeError, match="begins with: train_loss is"):
        run(tmp_path, digits, defence={"name": "distillation"}, optimizer={"name": "sgd", "lr": 1e30})


def test_a_run_that_diverges_at_once_keeps_the_network_that_it_began_with(tmp_path, digits):
    result = run(tmp_path, digits, defence={"name": "deep-defense", "params": {"weight": 1e39}})
    assert (result.history, result.best_epoch) == ([], None)
    best, last = (load_checkpoint(tmp_path / name).classifier.state_dict() for name in FILES)
    assert all(torch.equal(best[name], last[name]) for name in last)
