"""Which attack run an experiment plans for which training run, and what each of them needs."""

from __future__ import annotations

import pytest

from isce.parameters import semantics
from isce.runs.experiment import Experiment
from isce.runs.locks import hold
from isce.runs.plan import plan
from isce.runs.run import planned_runs
from isce.runs.whole import LOCK
from isce.strict import ConfigError, validate

TRAINING = {"dataset": "digits", "epochs": 1}
PLAN = {"suite": "basic", "eps": [0.1], "main_eps": 0.1}


def experiment(attack, **more):
    values = {"name": "e", "title": "E", "objectives": [{"name": "sce"}, {"name": "mmc"}], "seeds": [0, 1]}
    return validate(Experiment, values | {"training": TRAINING, "attack": attack} | more, "here")


def planned(attack):
    return {run.name: run for run in planned_runs(experiment(attack)) if run.kind == "attack"}


def test_the_first_plan_that_is_for_a_run_counts():
    attack = [
        PLAN | {"suite": "paper", "seeds": [0], "objectives": ["mmc"]},
        PLAN | {"seeds": [0]},
        PLAN | {"images": 9},
    ]
    found = {name: (r.parameters["suite"]["name"], r.parameters["images"]) for name, r in planned(attack).items()}
    assert found == {
        "sce-s0": ("basic", None),
        "sce-s1": ("basic", 9),
        "mmc-s0": ("paper", None),
        "mmc-s1": ("basic", 9),
    }


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ([PLAN | {"seeds": [0]}], "no attack plan is for objective 'sce' with seed 1"),
        ([PLAN | {"seeds": [7]}, PLAN], r"suite 'basic' is for \[7\]"),
        ([PLAN | {"objectives": ["isce"]}, PLAN], r"suite 'basic' is for \['isce'\]"),
        ([PLAN | {"objectives": ["sce"]}, PLAN | {"eps": [0.2], "main_eps": 0.2}], "same norm and main_eps"),
        ([], "attack"),
    ],
)
def test_plans_that_do_not_fit(attack, words):
    with pytest.raises(ConfigError, match=words):
        experiment(attack)


@pytest.fixture
def with_sources(monkeypatch):
    """The suite 'basic' becomes one that transfers from two training runs."""
    from isce.parameters.attack import Suite
    from isce.runs import run

    def suite(*sources):
        rows = [{"attack": "transfer", "steps": 2, "source": source} for source in sources]
        made = Suite.model_validate({"name": "basic", "rows": [{"attack": "fgsm"}, *rows]})
        monkeypatch.setattr(run, "load_suite", lambda name, root: made)

    return suite


def test_a_source_is_a_training_run_of_the_experiment_and_never_the_target_itself(with_sources):
    with_sources("sce-s1", "mmc-s0")
    found = planned(PLAN)
    assert found["sce-s0"].needs == ("sce-s0", "sce-s1", "mmc-s0")
    assert found["sce-s1"].needs == ("sce-s1", "mmc-s0")
    labels = [row["source"] for row in found["sce-s1"].parameters["suite"]["rows"]]
    assert labels == [None, "build/runs/e/train/mmc-s0/last.safetensors"]


def test_a_source_that_was_not_trained_is_named(with_sources):
    with_sources("lgm-s0")
    with pytest.raises(ConfigError, match="source 'lgm-s0' is none of the runs sce-s0, sce-s1, mmc-s0, mmc-s1"):
        planned(PLAN)


def test_a_change_of_a_source_changes_the_key_of_what_needs_it(with_sources, monkeypatch):
    with_sources("mmc-s0")
    before = {name: run.key for name, run in planned(PLAN).items()}
    monkeypatch.setitem(TRAINING, "epochs", 2)
    assert all(run.key != before[name] for name, run in planned(PLAN).items())
    monkeypatch.undo()
    monkeypatch.setitem(semantics.CHANGES, "objective.mmc", ["another"])
    with_sources("mmc-s0")
    after = {name: run.key for name, run in planned(PLAN).items()}
    assert after["sce-s0"] != before["sce-s0"], "it transfers from a network of that objective"


EXPLAIN = {"gallery": "basic"}


def explained(explain, attack=PLAN):
    return {run.name: run for run in planned_runs(experiment(attack, explain=explain)) if run.kind == "explain"}


def test_each_objective_is_explained_for_the_first_seed_at_the_main_eps():
    found = explained(EXPLAIN)
    assert set(found) == {"sce-s0", "mmc-s0"}
    assert found["mmc-s0"].needs == ("mmc-s0",)
    assert found["mmc-s0"].parameters["eps"] == 0.1
    assert found["mmc-s0"].parameters["gallery"]["name"] == "basic"


def test_explain_plan_chooses_runs_and_eps():
    found = explained(EXPLAIN | {"objectives": ["sce"], "seeds": [1], "eps": 0.3})
    assert {name: run.parameters["eps"] for name, run in found.items()} == {"sce-s1": 0.3}


@pytest.mark.parametrize(
    ("explain", "attack", "words"),
    [
        (EXPLAIN | {"objectives": ["isce"]}, PLAN, r"explain is for \['isce'\], which are no objectives"),
        (EXPLAIN | {"seeds": [5]}, PLAN, r"explain is for \[5\]"),
        (EXPLAIN, PLAN | {"norm": "l2"}, "explain works in linf"),
        (EXPLAIN | {"seeds": []}, PLAN, "explain.seeds"),
        ({}, PLAN, "gallery"),
    ],
)
def test_explain_plans_that_do_not_fit(explain, attack, words):
    with pytest.raises(ConfigError, match=words):
        explained(explain, attack)


def test_what_the_gallery_shows_decides_the_key_of_explain_runs_alone():
    def keys(gallery):
        runs = planned_runs(experiment(PLAN, explain={"gallery": gallery}))
        return {run.kind: run.key for run in runs if run.name == "sce-s0"}

    one, other = keys("basic"), keys("gallery-digits")
    assert one.pop("explain") != other.pop("explain")
    assert one == other


def test_a_minmax_plan_chooses_runs_steps_and_restarts():
    minmax = {"eps": [0.1], "inference": [0.0], "objectives": ["mmc"], "seeds": [1], "steps": 7, "restarts": 1}
    (run,) = [run for run in planned_runs(experiment(PLAN, minmax=minmax)) if run.kind == "minmax"]
    assert (run.name, run.parameters["steps"], run.parameters["restarts"]) == ("mmc-s1", 7, 1)


def test_the_record_of_a_run_that_is_about_to_end_is_kept_and_that_of_a_killed_one_is_not(tmp_path):
    """Between its record and the hash of its notebook a run looks as if it had been killed; its lock tells."""
    plan("quick", tmp_path)
    folder = tmp_path / "runs" / "quick" / "train" / "sce-s0"
    record = folder / "record.json"
    record.write_text("{}")
    with hold(folder / LOCK, lambda holder: None):
        plan("quick", tmp_path)
        assert record.exists()
    plan("quick", tmp_path)
    assert not record.exists()
