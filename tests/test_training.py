"""Training: schedule, augmentation, same bits on every run and after every interruption, divergence, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import short_training
import torch
from short_training import FILES, KilledError, contents, few
from torch import nn

from isce import data, losses
from isce.data.batches import DeviceSet, draw_moves
from isce.models.assembly import assemble
from isce.parameters import semantics
from isce.parameters import training as config
from isce.strict import ConfigError
from isce.training import checkpoint, loop, state
from isce.training.checkpoint import CheckpointError, load_checkpoint
from isce.training.loop import learning_rate
from isce.training.state import State


@pytest.fixture(scope="module")
def digits():
    return few()


def parameters(**changes):
    return config.TrainParameters(**{"epochs": 4, "batch_size": 32, **changes})


def run(folder, digits, **changes):
    return short_training.run(folder, digits, **{"epochs": 4, **changes})


# --- schedule and batches


def rate(step, schedule, lr=0.4, steps=100):
    return learning_rate(config.OptimizerSpec(lr=lr), config.ScheduleSpec(**schedule), step, steps)


def test_learning_rates():
    cosine = {"name": "cosine"}
    assert rate(0, cosine) == 0.4
    assert rate(50, cosine) == pytest.approx(0.2)
    assert rate(75, cosine) == pytest.approx(0.4 * (1 - math.sqrt(0.5)) / 2)
    assert rate(100, cosine) == pytest.approx(0)
    assert rate(99, {"name": "constant"}) == 0.4
    step = {"name": "step", "milestones": [0.5, 0.75], "gamma": 0.1}
    assert [rate(s, step) for s in (0, 49)] == [0.4, 0.4]
    assert [rate(s, step) for s in (50, 74)] == pytest.approx([0.04, 0.04])
    assert [rate(s, step) for s in (75, 99)] == pytest.approx([0.004, 0.004])


def picture():
    """One image: 2 x 10 x 10, rows in the tens, columns in the ones; the second channel is the first plus 100."""
    first = torch.arange(100).reshape(1, 10, 10)
    return torch.cat([first, first + 100]).to(torch.uint8)


def moved(down, right, flip):
    split = DeviceSet(data.Split(torch.stack([picture() * 0, picture()]), torch.tensor([0, 3]), 255), "cpu")
    moves = {"down": torch.tensor([0, down]), "right": torch.tensor([0, right]), "flip": torch.tensor([False, flip])}
    x, y = split.batch(torch.tensor([1, 0]), moves)
    assert y.tolist() == [3, 0]
    assert x.shape == (2, 2, 10, 10)
    assert not x[1].any()
    return (x[0] * 255).round().long()


def test_moves_by_hand():
    still = moved(0, 0, False)
    assert torch.equal(still, picture().long())
    assert torch.equal(moved(0, 0, True), still.flip(2))
    lower = moved(1, 0, False)
    assert torch.equal(lower[:, 1:], still[:, :9])
    assert torch.equal(lower[:, 0], still[:, 0])
    left = moved(0, -1, False)
    assert torch.equal(left[:, :, :9], still[:, :, 1:])
    assert torch.equal(left[:, :, 9], still[:, :, 9])
    both = moved(-2, 1, True)
    assert torch.equal(both[:, :8, 1:], still.flip(2)[:, 2:, :9])
    assert torch.equal(both[:, :8, 0], still[:, 2:, 9])


def test_moves_are_drawn_from_the_whole_range_and_by_key():
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8)
    split = DeviceSet(data.Split(images, torch.zeros(2000, dtype=torch.int64), 255), "cpu")
    drawn = draw_moves(split, loop._generator(0, "moves", 1))
    for name in ("down", "right"):
        assert sorted(set(drawn[name].tolist())) == [-3, -2, -1, 0, 1, 2, 3]
    assert 0.45 < drawn["flip"].double().mean() < 0.55
    again = draw_moves(split, loop._generator(0, "moves", 1))
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    for other in ((1, "moves", 1), (0, "order", 1), (0, "moves", 2)):
        assert not torch.equal(drawn["down"], draw_moves(split, loop._generator(*other))["down"])


# --- one run


def test_it_learns_and_says_so(tmp_path, digits):
    result = run(tmp_path, digits, epochs=20, objective={"name": "isce", "params": {"inference": 1.0}})
    assert [row["epoch"] for row in result.history] == list(range(1, 21))
    assert result.history[-1]["train_accuracy"] > 0.9
    assert result.history[-1]["validation_accuracy"] > 0.6
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"] / 3
    assert result.history[0]["lr"] == pytest.approx(0.05, rel=0.02)
    accuracies = [row["validation_accuracy"] for row in result.history]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    assert result.diverged is None
    assert result.collapsed is None
    assert result.resumed == 0
    assert result.seconds > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name, epoch in (("best", result.best_epoch), ("last", 20)):
        loaded = load_checkpoint(tmp_path / f"{name}.safetensors")
        assert loaded.metadata["epoch"] == epoch
        assert loaded.metadata["data_sha256"] == digits.sha256
        with torch.no_grad():
            right = loaded.classifier(digits.validation.unit()).argmax(1) == digits.validation.labels
        assert right.double().mean().item() == pytest.approx(accuracies[epoch - 1])


def test_same_parameters_same_bits(tmp_path, digits):
    before = torch.get_rng_state()
    first = run(tmp_path / "a", digits, augment="shift-flip")
    torch.rand(5)
    second = run(tmp_path / "b", digits, augment="shift-flip")
    torch.set_rng_state(before)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first.history == second.history
    other = run(tmp_path / "c", digits, augment="shift-flip", seed=1)
    assert other.history != first.history
    assert run(tmp_path / "d", digits).history != first.history


def test_the_process_is_left_as_it_was(tmp_path, digits, monkeypatch):
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    seen, finish = [], State.finish

    def spy(state):
        seen.append(torch.get_num_threads())
        finish(state)

    monkeypatch.setattr(State, "finish", spy)
    run(tmp_path, digits, epochs=1, threads=threads + 1)
    load_checkpoint(tmp_path / "last.safetensors")
    assert seen == [threads + 1]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)


def test_objectives_start_from_the_same_backbone(digits):
    shape = {name: getattr(digits, name) for name in ("input_shape", "mean", "std", "num_classes")}
    first, _ = assemble(parameters(), shape)
    second, _ = assemble(parameters(objective={"name": "isce-released"}), shape)
    third, _ = assemble(parameters(seed=1), shape)
    a, b, c = ([p.flatten() for p in model.backbone.parameters()] for model in (first, second, third))
    assert torch.equal(torch.cat(a), torch.cat(b))
    assert not torch.equal(torch.cat(a), torch.cat(c))


def test_a_part_of_the_training_set(tmp_path, digits):
    sizes = []
    original = loop.DeviceSet

    def spy(split, device):
        sizes.append(len(split))
        return original(split, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "DeviceSet", spy)
        run(tmp_path, digits, epochs=1, train_images=50)
    assert sizes == [50, 40]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16", "optimizer": {"name": "adam", "lr": 0.002}},
        {"optimizer": {"name": "adam", "lr": 0.002}},
    ],
)
def test_variants_learn(tmp_path, digits, changes):
    history = run(tmp_path, digits, epochs=8, **changes).history
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert load_checkpoint(tmp_path / "last.safetensors").classifier.score_map.weight.dtype == torch.float32


def test_ties_go_to_the_earliest_epoch(tmp_path, digits, monkeypatch):
    accuracies = iter([0.5, 0.8, 0.8, 0.7])
    validated = {"validation_loss": 1.0}
    monkeypatch.setattr(loop, "validate", lambda *_: {**validated, "validation_accuracy": next(accuracies)})
    assert run(tmp_path, digits).best_epoch == 2
    assert load_checkpoint(tmp_path / "best.safetensors").metadata["epoch"] == 2


# --- as released


def test_mean_image_comes_from_the_training_split_and_lies_in_the_checkpoint(tmp_path, digits):
    run(tmp_path, digits, epochs=1, normalisation="released", train_images=50)
    loaded = load_checkpoint(tmp_path / "last.safetensors")
    torch.testing.assert_close(loaded.classifier.backbone.mean_image, digits.train.unit().mean(0))
    run(tmp_path / "plain", digits, epochs=1)
    assert load_checkpoint(tmp_path / "plain" / "last.safetensors").classifier.backbone.mean_image is None


def test_the_released_protocol_trains_resumes_and_loads_to_the_same_bits(tmp_path, digits):
    changes = {"model": "preact-resnet-20", "normalisation": "released", "batch_statistics": True, "epochs": 2}
    changes |= {"embedding_dim": 64, "augment": "shift-flip", "batch_size": 50}
    whole = run(tmp_path / "whole", digits, **changes)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=1, **changes)
    assert run(tmp_path / "killed", digits, **changes).history == whole.history
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    first, second = (load_checkpoint(tmp_path / "whole" / "last.safetensors").classifier for _ in range(2))
    assert first.batch_dependent
    with torch.no_grad():
        x = digits.validation.unit().contiguous(memory_format=torch.channels_last)
        assert torch.equal(first(x), second(x))
        right = (first(x).argmax(1) == digits.validation.labels).double().mean().item()
    assert right == whole.history[-1]["validation_accuracy"]


def test_bad_input_before_any_work(tmp_path, digits):
    with pytest.raises(ValueError, match="'mnist' given, but the parameters name 'digits'"):
        run(tmp_path, replace(digits, name="mnist"))
    with pytest.raises(ValueError, match="1 to 100 images, got 101"):
        run(tmp_path, digits, train_images=101)
    with pytest.raises(ValueError, match="lenet needs images of at least 12x12"):
        run(tmp_path, digits, model="lenet")
    assert not list(tmp_path.iterdir())


# --- interruptions


class Centred(losses.SoftmaxCrossEntropy):
    """An objective with weights of its own, one trained, one moved by hand, sized once the score map is made."""

    def score_map(self, embedding_dim, num_classes):
        self.centres = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        return super().score_map(embedding_dim, num_classes)

    def forward(self, logits, target, embedding=None):
        if self.training:
            self.calls += 1
        return super().forward(logits, target) + 0.01 * (embedding - self.centres[target]).square().mean()


@pytest.fixture
def centred(monkeypatch):
    monkeypatch.setattr(losses, "build", lambda name, **params: Centred())


SETTINGS = [
    {"optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True}, "augment": "shift-flip"},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.0}},
    {"optimizer": {"name": "adam", "lr": 0.002, "weight_decay": 0.01}},
]


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, digits, centred, changes, epoch):
    whole = run(tmp_path / "whole", digits, **changes)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=epoch, **changes)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["state.safetensors"]
    rest = run(tmp_path / "killed", digits, **changes)
    assert rest.resumed == epoch
    assert rest.history == whole.history
    assert rest.best_epoch == whole.best_epoch
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    loaded = load_checkpoint(tmp_path / "killed" / "last.safetensors")
    assert int(loaded.objective.calls) == 16
    assert not (tmp_path / "killed" / "state.safetensors").exists()


@pytest.mark.parametrize("name", losses.names())
def test_every_objective_trains_resumes_and_loads(tmp_path, digits, name):
    """One run cut in two is the whole run, weights of the objective and of its score map included."""
    objective = {"name": name}
    whole = run(tmp_path / "whole", digits, epochs=2, objective=objective)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, epochs=2, objective=objective, kill=1)
    assert run(tmp_path / "killed", digits, epochs=2, objective=objective).history == whole.history
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    loaded = load_checkpoint(tmp_path / "whole" / "last.safetensors")
    assert loaded.objective.name == name
    with torch.no_grad():
        logits, embedding = loaded.classifier(digits.validation.unit(), return_embedding=True)
        found = loaded.objective.per_example(logits, digits.validation.labels, embedding).mean().item()
    assert found == pytest.approx(whole.history[-1]["validation_loss"], rel=1e-5)


def test_killed_in_the_middle_of_an_epoch(tmp_path, digits, monkeypatch):
    whole = run(tmp_path / "whole", digits)
    calls = 0
    original = losses.SoftmaxCrossEntropy.forward

    def forward(self, *given):
        nonlocal calls
        calls += 1
        if calls == 10:  # the second of four batches of the third epoch
            raise KilledError
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(losses.SoftmaxCrossEntropy, "forward", forward)
        with pytest.raises(KilledError):
            run(tmp_path / "killed", digits)
    rest = run(tmp_path / "killed", digits)
    assert rest.resumed == 2
    assert rest.history == whole.history
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 5}, "parameters"), ({"epochs": 5}, "parameters"), ({}, "data"), ({}, "semantics"), ({}, "packages")],
)
def test_a_state_of_another_run_is_not_used(tmp_path, digits, monkeypatch, caplog, change, named):
    with pytest.raises(KilledError):
        run(tmp_path, digits, kill=2)
    if named == "data":
        digits = replace(digits, sha256="0" * 64)
    if named == "semantics":
        monkeypatch.setitem(semantics.CHANGES, "network.small-cnn", ["another"])
    if named == "packages":
        monkeypatch.setattr(state, "versions", lambda names: {"torch": "99"})
    with caplog.at_level(logging.WARNING, "isce.training"):
        result = run(tmp_path, digits, **change)
    assert result.resumed == 0
    assert f"state.safetensors has other {named}" in caplog.text
    assert len(result.history) == change.get("epochs", 4)


def test_a_damaged_state_is_not_used(tmp_path, digits, caplog):
    run(tmp_path / "whole", digits)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", digits, kill=2)
    path = tmp_path / "killed" / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "isce.training"):
        assert run(tmp_path / "killed", digits).resumed == 0
    assert "is damaged" in caplog.text
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_no_space_left(tmp_path, digits, monkeypatch):
    """The run fails with the system's error; started again with space, it goes on to the same end."""
    whole = run(tmp_path / "whole", digits)
    write = checkpoint.write_atomic

    def full(path, content):
        if path.name == "last.safetensors":
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "full", digits)
    assert run(tmp_path / "full", digits).resumed == 4
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")
    assert whole.resumed == 0


@pytest.mark.full
def test_killed_by_a_signal_again_and_again(tmp_path):
    code = """
import sys
from pathlib import Path
from isce.parameters.training import TrainParameters
from isce.training import state, train
save = state.State.save
state.State.save = lambda run: (save(run), print(len(run.history), flush=True))
train(TrainParameters(epochs=4, train_images=200), Path(sys.argv[1]), progress=False)
"""
    command = [sys.executable, "-c", code]
    subprocess.run([*command, tmp_path / "whole"], check=True, stdout=subprocess.DEVNULL)
    for epoch in (1, 2, 3):
        with subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().strip() == str(epoch)
            process.send_signal(signal.SIGKILL)
        assert not (tmp_path / "killed" / "last.safetensors").exists()
    subprocess.run([*command, tmp_path / "killed"], check=True, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


# --- divergence


def test_divergence_ends_the_run_with_the_reason(tmp_path, digits):
    result = run(tmp_path, digits, optimizer={"name": "sgd", "lr": 1e20})
    assert result.history == []
    assert result.best_epoch is None
    assert "_loss is " in result.diverged
    assert "in epoch 1 of 4" in result.diverged
    shape = {name: getattr(digits, name) for name in ("input_shape", "mean", "std", "num_classes")}
    initial, _ = assemble(parameters(), shape)
    for name in FILES:
        loaded = load_checkpoint(tmp_path / name)
        assert loaded.metadata["epoch"] == 0
        for a, b in zip(loaded.classifier.parameters(), initial.parameters(), strict=True):
            assert torch.equal(a, b)
    assert not (tmp_path / "state.safetensors").exists()


def test_divergence_later_keeps_what_was_reached(tmp_path, digits, monkeypatch):
    run(tmp_path / "short", digits, epochs=2, schedule={"name": "constant"})
    rates = iter([0.05] * 8 + [math.inf] * 8)
    monkeypatch.setattr(loop, "learning_rate", lambda *given: next(rates))
    result = run(tmp_path / "long", digits, schedule={"name": "constant"})
    assert len(result.history) == 2
    assert "in epoch 3 of 4" in result.diverged
    short, long = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("short", "long"))
    for a, b in zip(short.classifier.parameters(), long.classifier.parameters(), strict=True):
        assert torch.equal(a, b)


# --- collapse


def test_collapse_to_chance_with_finite_losses_is_told(tmp_path, digits):
    result = run(tmp_path, digits, optimizer={"name": "sgd", "lr": 2.0})
    assert result.diverged is None
    assert all(math.isfinite(row["train_loss"]) for row in result.history)
    assert result.collapsed == "validation accuracy 10.0% at the end is below twice chance (20.0%)"


@pytest.mark.parametrize(("accuracy", "told"), [(0.199, True), (0.2, False)])
def test_collapse_is_judged_by_the_last_epoch_on_clean_images(tmp_path, digits, monkeypatch, accuracy, told):
    accuracies = iter([0.9, 0.1, 0.9, accuracy])
    validated = {"validation_loss": 1.0}
    monkeypatch.setattr(loop, "validate", lambda *_: {**validated, "validation_accuracy": next(accuracies)})
    assert (run(tmp_path, digits).collapsed is not None) is told


def test_no_collapse_where_no_epoch_was_finished(tmp_path, digits):
    result = run(tmp_path, digits, optimizer={"name": "sgd", "lr": 1e20})
    assert result.history == []
    assert result.collapsed is None


# --- checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("trained")
    run(folder, digits, epochs=1)
    return folder / "last.safetensors"


def test_load_restores_everything(trained):
    loaded = load_checkpoint(trained)
    assert loaded.parameters == parameters(epochs=1)
    assert loaded.objective.name == "sce"
    assert not loaded.classifier.training
    assert not loaded.objective.training
    assert loaded.metadata["class_names"] == [str(k) for k in range(10)]
    assert loaded.metadata["input_shape"] == [1, 8, 8]


def test_nothing_is_unpickled(trained, monkeypatch):
    def refuse(*given, **named):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load_checkpoint(trained)


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"can't read checkpoint .*nothing\.safetensors: No such file"):
        load_checkpoint(tmp_path / "nothing.safetensors")


def test_any_flipped_bit_is_noticed(trained, tmp_path):
    content = trained.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, header, 97), *range(header, len(content), len(content) // 40), len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|schema version"):
            load_checkpoint(tmp_path / "d")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_part_of_a_file_is_noticed(trained, tmp_path, keep):
    (tmp_path / "d").write_bytes(trained.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is damaged, or no checkpoint"):
        load_checkpoint(tmp_path / "d")


def test_other_schema_version(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA_VERSION", 99)
        checkpoint.write_tensors(tmp_path / "d", {}, {"kind": "checkpoint"})
    with pytest.raises(CheckpointError, match="schema version 99; this package reads 1"):
        load_checkpoint(tmp_path / "d")


def test_other_kind_of_file(tmp_path):
    checkpoint.write_tensors(tmp_path / "d", {}, {"kind": "state"})
    with pytest.raises(CheckpointError, match="no checkpoint but of kind 'state'"):
        load_checkpoint(tmp_path / "d")


def test_network_that_changed_since(trained, tmp_path):
    tensors, metadata = checkpoint.read_tensors(trained)
    del tensors["classifier.backbone.embed.weight"], metadata["sha256"]
    checkpoint.write_tensors(tmp_path / "d", tensors, metadata)
    with pytest.raises(CheckpointError, match=r"doesn't fit the network.*backbone\.embed\.weight"):
        load_checkpoint(tmp_path / "d")


def test_parameters_no_longer_allowed(trained, tmp_path):
    tensors, metadata = checkpoint.read_tensors(trained)
    del metadata["sha256"]
    metadata["parameters"]["model"] = "gone"
    checkpoint.write_tensors(tmp_path / "d", tensors, metadata)
    with pytest.raises(ConfigError, match="unknown model 'gone'"):
        load_checkpoint(tmp_path / "d")


def test_metadata_is_one_json_text(trained):
    raw = trained.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert list(header["__metadata__"]) == ["isce"]
    assert json.loads(header["__metadata__"]["isce"])["parameters"]["dataset"] == "digits"
