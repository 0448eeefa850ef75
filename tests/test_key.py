"""What is in the key of a run: everything that decides its results, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field

from isce import attacks, data, defences, losses, models
from isce.files import ROOT
from isce.parameters import semantics
from isce.parameters.analysis import ExplainParameters, MinmaxParameters
from isce.parameters.attack import AttackParameters, Suite
from isce.parameters.training import TrainParameters
from isce.runs import key, records
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs

MATCHED = {"attack": "matched", "steps": 3}
NEEDS = {"a/last.safetensors": "key of a", "b/last.safetensors": "key of b"}
KINDS = {TrainParameters: "train", AttackParameters: "attack", MinmaxParameters: "minmax", ExplainParameters: "explain"}


def train(**changes: Any) -> TrainParameters:
    return TrainParameters.model_validate(changes)


def attack(*rows: dict[str, Any], name: str = "s", **changes: Any) -> AttackParameters:
    suite = Suite.model_validate({"name": name, "rows": list(rows) or [MATCHED]})
    return AttackParameters.model_validate({"checkpoint": "a/last.safetensors", "suite": suite, "eps": [0.1]} | changes)


def explain() -> ExplainParameters:
    gallery = Suite.model_validate({"name": "g", "rows": [{"attack": "fgsm"}]})
    return ExplainParameters(checkpoint="a/last.safetensors", eps=0.1, gallery=gallery)


MINMAX = MinmaxParameters(checkpoint="a/last.safetensors", eps=[0.1])


def key_of(parameters: Any, content: str = "digits", needs: dict[str, str] = NEEDS) -> str:
    kind = next(kind for cls, kind in KINDS.items() if isinstance(parameters, cls))
    return key.key(kind, parameters, content, needs)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"epochs": 31},
        {"optimizer": {"lr": 0.051}},
        {"objective": {"name": "isce", "params": {"inference": 2.0}}},
        {"model": "lenet", "dataset": "mnist"},
        {"precision": "bfloat16"},
    ],
)
def test_every_parameter_counts(other):
    assert key_of(train(**other)) != key_of(train())


def test_rows_of_a_suite_count_and_its_name_does_not():
    assert key_of(attack(MATCHED | {"steps": 4})) != key_of(attack())
    assert key_of(attack({"attack": "pgd"}, MATCHED)) != key_of(attack(MATCHED, {"attack": "pgd"}))
    assert key_of(attack(name="another")) == key_of(attack())


def test_data_and_the_runs_that_it_needs_count_but_no_path():
    assert key_of(train(), content="mnist") != key_of(train())
    moved = attack(checkpoint="elsewhere/last.safetensors")
    assert key_of(moved, needs={"elsewhere/last.safetensors": "key of a"}) == key_of(attack())
    assert key_of(attack(), needs=NEEDS | {"a/last.safetensors": "another"}) != key_of(attack())


def test_the_source_of_a_transfer_counts_by_its_key():
    row = {"attack": "transfer", "source": "b/last.safetensors"}
    assert key_of(attack(row), needs=NEEDS | {"b/last.safetensors": "another"}) != key_of(attack(row))


def test_a_new_field_at_its_neutral_value_leaves_every_key_as_it_was():
    class Later(TrainParameters):
        warmup: int = Field(default=5, json_schema_extra={"neutral": 0})

    assert key_of(Later(warmup=0)) == key_of(train())
    assert key_of(Later()) != key_of(train()), "its default is another value: records made before are out of date"


@pytest.mark.parametrize(
    ("package", "due"),
    [
        ("torch", {"train", "attack", "minmax", "explain"}),
        ("foolbox", set()),
        ("scipy", {"explain"}),
        ("scikit-learn", {"minmax", "explain"}),
        ("safetensors", set()),
        ("torchvision", set()),
    ],
)
def test_a_package_counts_for_what_computes_with_it(monkeypatch, package, due):
    every = {"train": train(), "attack": attack(), "minmax": MINMAX, "explain": explain()}
    before = {name: key_of(parameters) for name, parameters in every.items()}
    real = semantics._version
    monkeypatch.setattr(semantics, "_version", lambda name: "99" if name == package else real(name))
    assert {name for name, parameters in every.items() if key_of(parameters) != before[name]} == due


@pytest.mark.parametrize(("row", "package"), [("deepfool", "foolbox"), ("autoattack", "pyautoattack"), ("cw", "scipy")])
def test_the_package_of_an_attack_counts_for_suites_with_that_attack(monkeypatch, row, package):
    suite = attack({"attack": row, "norm": "l2", "eps": 1.0})
    before, other = key_of(suite), key_of(attack())
    real = semantics._version
    monkeypatch.setattr(semantics, "_version", lambda name: "99" if name == package else real(name))
    assert key_of(suite) != before
    assert key_of(attack()) == other


def test_every_changed_part_is_one_that_exists():
    known = {"train", "attack", "minmax", "explain", "adversarial.pgd", "adversarial.free"}
    known |= {f"objective.{name}" for name in losses.names()} | {f"network.{name}" for name in models.names()}
    known |= {f"attack.{name}" for name in attacks.names()} | {f"defence.{name}" for name in defences.names()}
    known |= {"draws", "bounds.interval", "bounds.linear", "bounds.lipschitz"}
    assert set(semantics.CHANGES) <= known
    assert all(line.strip() for lines in semantics.CHANGES.values() for line in lines)


@pytest.mark.parametrize(
    ("part", "due"),
    [
        ("train", {"train"}),
        ("objective.sce", {"train"}),
        ("network.small-cnn", {"train"}),
        ("adversarial.pgd", set()),
        ("attack", {"attack"}),
        ("attack.matched", {"attack", "explain"}),
        ("attack.search", {"attack"}),
        ("attack.fgsm", {"explain"}),
        ("minmax", {"minmax"}),
        ("explain", {"explain"}),
    ],
)
def test_a_raised_number_counts_for_the_runs_that_use_the_part(monkeypatch, part, due):
    every = {"train": train(), "attack": attack(), "minmax": MINMAX, "explain": explain()}
    before = {name: key_of(parameters) for name, parameters in every.items()}
    monkeypatch.setitem(semantics.CHANGES, part, ["another"] * (semantics.number(part)))
    assert {name for name, parameters in every.items() if key_of(parameters) != before[name]} == due


@pytest.mark.parametrize("part", ["defence.distillation", "defence.temperature"])
def test_a_raised_number_of_the_run_that_comes_first_counts(monkeypatch, part):
    distilled, mixed = train(defence={"name": "distillation"}), train(defence={"name": "mixup"})
    before = key_of(distilled), key_of(mixed)
    monkeypatch.setitem(semantics.CHANGES, part, ["another"])
    assert key_of(distilled) != before[0]
    assert key_of(mixed) == before[1]


def test_every_committed_record_is_a_run_of_its_experiment_with_the_data_that_keys_hold():
    for folder in sorted((ROOT / "results").iterdir()):
        planned = {(run.kind, run.name) for run in planned_runs(load_experiment(folder.name))}
        for path, record in records.read_all(folder).items():
            assert (record.kind, record.run) in planned, path
            assert record.data_sha256 in {known.sha256 for known in data.SETS.values()}, path
