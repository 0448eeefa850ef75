"""``verify``: a good run passes; each thing that could be wrong is found and named."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from isce import attacks, data
from isce.__main__ import main
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, examples
from isce.evaluation.saved import load_points, save_points
from isce.files import sha256
from isce.parameters.attack import AttackParameters, Suite
from isce.parameters.training import TrainParameters
from isce.runs.records import EXAMPLES, POINTS, Record, provenance, read
from isce.training.checkpoint import load_checkpoint, read_tensors, write_tensors
from isce.training.loop import train

N = 60
EPS = [0.1, 0.2]


@dataclass(frozen=True)
class Run:
    """A trained and attacked network in the folders of an experiment."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "attack" / "sce-s0"

    @property
    def checkpoint(self) -> Path:
        return self.root / "train" / "sce-s0" / "last.safetensors"

    def verify(self, capsys) -> tuple[int, str, str]:
        code = main(["verify", str(self.folder)])
        return code, *capsys.readouterr()

    def seal(self, **changes) -> None:
        """Write the record anew, so that it vouches for the side files as they are now."""
        record = read(self.folder / "record.json")
        files = {name: sha256(self.folder / name) for name in (EXAMPLES, POINTS)}
        values = record.model_dump() | {"files": files} | changes
        values["parameters"]["checkpoint"] = str(self.checkpoint)
        Record(**values).save(self.folder / "record.json")

    def change(self, name: str, key: str, function) -> None:
        """Change one tensor of a side file, in a way that the record vouches for."""
        arrays = load_file(self.folder / name)
        arrays[key] = function(arrays[key])
        save_file(arrays, self.folder / name)
        self.seal()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("verification"))
    train(TrainParameters(epochs=3, train_images=400), run.checkpoint.parent)
    loaded = load_checkpoint(run.checkpoint)
    splits = data.load("digits")
    test = splits.test.subset(N)
    spec = AttackSpec(attack="matched", objective="margin", steps=10)
    parameters = AttackParameters(
        checkpoint=str(run.checkpoint), suite=Suite(name="s", rows=[spec]), eps=EPS, images=N, batch_size=32
    )
    args = (loaded.classifier, loaded.objective, test.unit(), test.labels)
    outcome = evaluate(*args, parameters, progress=False)
    points = {}
    for eps in EPS:
        threat = Threat("linf", eps)
        found = attacks.run(spec, *args, threat, seed=0)
        index = (found.success & (found.first_success > 0)).nonzero()[:, 0]
        points[threat.label] = (index, found.adversarial[index])
    shown = examples(*args, spec, Threat("linf", EPS[-1]))
    run.folder.mkdir(parents=True)
    save_points(run.folder / POINTS, points)
    names = ("clean", "adversarial", "labels", "predictions")
    save_file({name: getattr(shown, name).contiguous() for name in names}, run.folder / EXAMPLES)
    common = {"experiment": "e", "run": "sce-s0", "key": "k", "data_sha256": splits.sha256}
    common["provenance"] = provenance("cpu", 1.0)
    trained = {"files": {run.checkpoint.name: sha256(run.checkpoint)}, "parameters": {}, "results": {}}
    Record(kind="train", **trained, **common).save(run.checkpoint.parent / "record.json")
    values = {"parameters": parameters.model_dump(mode="json"), "results": outcome.results()}
    Record(kind="attack", **values, **common).save(run.folder / "record.json")
    run.seal()
    return run


@pytest.fixture
def run(built, tmp_path) -> Run:
    copied = Run(tmp_path / "run")
    shutil.copytree(built.root, copied.root)
    copied.seal()
    return copied


def broken(run: Run, threat: str) -> torch.Tensor:
    return load_points(run.folder / POINTS)[threat][0]


def test_a_good_run_passes_with_a_line_for_each_threat(run, capsys):
    code, out, err = run.verify(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "examples linf@0.2",
        "adversarial linf@0.1",
        "adversarial linf@0.2",
    ]
    for line, eps, n in zip(lines, (0.2, *EPS), (5, *(len(broken(run, f"linf@{e}")) for e in EPS)), strict=True):
        assert f"inside {n}/{n}, misclassified {n}/{n}, largest distance" in line
        assert n > 0
        assert eps / 2 < float(line.rpartition(" ")[2]) <= eps + 1e-6
    assert len(broken(run, "linf@0.2")) > len(broken(run, "linf@0.1"))


def test_a_run_without_points_passes(run, capsys):
    save_points(run.folder / POINTS, {"linf@0.1": (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, 8, 8))})
    run.seal()
    code, out, _ = run.verify(capsys)
    assert code == 0
    assert "adversarial linf@0.1: inside 0/0, misclassified 0/0, largest distance 0\n" in out


@pytest.mark.parametrize(
    ("push", "farthest"),
    [(lambda p: p + 0.15 * (0.5 - p).sign(), None), (lambda p: p * torch.nan, "nan"), (lambda p: p - 2, None)],
    ids=["ball", "nan", "box"],
)
def test_a_point_pushed_outside_is_named(run, capsys, push, farthest):
    index, n = broken(run, "linf@0.1"), len(broken(run, "linf@0.1"))

    def outside(points):
        points[1] = push(points[1])
        return points

    run.change(POINTS, "linf@0.1/points", outside)
    code, out, _ = run.verify(capsys)
    assert code == 1
    assert f"adversarial linf@0.1: inside {n - 1}/{n}" in out
    assert f"  outside ball or box: {index[1]}\n" in out
    assert farthest is None or f"largest distance {farthest}" in out


def test_points_that_are_classified_right_are_named(run, capsys):
    index = broken(run, "linf@0.2")
    clean = data.load("digits").test.subset(N).unit()[index]

    def give_back(points):
        points[[0, 2]] = clean[[0, 2]]
        return points

    run.change(POINTS, "linf@0.2/points", give_back)
    code, out, _ = run.verify(capsys)
    assert code == 1
    assert f"misclassified {len(index) - 2}/{len(index)}" in out
    assert f"  classified right: {index[0]}, {index[2]}\n" in out
    assert out.count("classified right") == 1


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("labels", lambda t: torch.cat([t[:1], (t[1:2] + 1) % 10, t[2:]])), ("clean", lambda t: t + 0.001)],
)
def test_examples_of_other_images_or_labels_are_found(run, capsys, key, wrong):
    run.change(EXAMPLES, key, wrong)
    code, out, _ = run.verify(capsys)
    places, left = ("1", 4) if key == "labels" else ("0, 1, 2, 3, 4", 0)
    assert code == 1
    assert f"examples linf@0.2: inside {left}/5" in out
    assert f"  image or label not in the data set: {places}\n" in out


@pytest.mark.parametrize("name", [EXAMPLES, POINTS])
def test_a_flipped_byte_is_noticed(run, capsys, name):
    raw = bytearray((run.folder / name).read_bytes())
    raw[-3] ^= 1
    (run.folder / name).write_bytes(bytes(raw))
    code, out, err = run.verify(capsys)
    assert (code, out) == (1, "")
    assert f"{run.folder / name} is damaged: its SHA-256 is" in err


@pytest.mark.parametrize("known", [True, False])
def test_another_checkpoint_is_refused(run, capsys, known):
    """By the record of the training where that is there, else by the clean images."""
    tensors, metadata = read_tensors(run.checkpoint)
    name = "classifier.score_map.weight"
    assert name in tensors
    tensors[name] = tensors[name].roll(1, 0)
    del metadata["sha256"]
    write_tensors(run.checkpoint, tensors, metadata)
    if not known:
        (run.checkpoint.parent / "record.json").unlink()
    code, out, err = run.verify(capsys)
    assert (code, out) == (1, "")
    assert ("is another checkpoint than" if known else "it is not the network that was attacked") in err
    assert str(run.checkpoint) in err


@pytest.mark.parametrize("case", ["data", "kind", "no files", "missing", "threat", "image", "shape", "checkpoint"])
def test_what_cannot_be_judged_is_one_clear_line(run, capsys, case):
    small = torch.zeros(1, 1, 8, 8)
    message = {
        "data": "digits is another data set now than the record's",
        "kind": "holds a train run; only an attack run has adversarial points",
        "no files": "lists no adversarial points",
        "missing": f"can't read {run.folder / POINTS}: No such file",
        "threat": "holds points of linf@0.3; the record's threats: linf@0.1, linf@0.2",
        "image": f"linf@0.1: image {N} is none of the {N} attacked",
        "shape": "points must have shape (1, 1, 8, 8), got (1, 1, 4, 4)",
        "checkpoint": f"can't read checkpoint {run.checkpoint}: No such file",
    }[case]
    if case == "missing":
        (run.folder / POINTS).unlink()
    elif case == "checkpoint":
        run.checkpoint.unlink()
    elif case in ("data", "kind", "no files"):
        run.seal(**{"data": {"data_sha256": "0"}, "kind": {"kind": "train"}, "no files": {"files": {}}}[case])
    else:
        threat, place, points = {
            "threat": ("linf@0.3", 0, small),
            "image": ("linf@0.1", N, small),
            "shape": ("linf@0.1", 0, small[..., :4, :4]),
        }[case]
        save_points(run.folder / POINTS, {threat: (torch.tensor([place]), points)})
        run.seal()
    code, out, err = run.verify(capsys)
    assert (code, out) == (1, "")
    assert err.startswith("isce: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_batch_dependent_network_is_refused(run, capsys, monkeypatch):
    monkeypatch.setattr("isce.models.Classifier.batch_dependent", True)
    code, _, err = run.verify(capsys)
    assert code == 1
    assert "depends on the batch" in err
