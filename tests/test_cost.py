"""How long runs should take: as committed records say, or unknown."""

import pytest

from isce.files import ROOT
from isce.parameters.training import TrainParameters
from isce.runs import cost
from isce.runs.cost import Estimate
from isce.runs.experiment import TIERS, Experiment, load_experiment
from isce.runs.records import Provenance, Record
from isce.runs.run import Run
from isce.strict import ConfigError, validate

MACHINE = "Linux x86_64, 2 CPU"


def train(name="sce-s0", experiment="e", **changes):
    values = {"dataset": "mnist", "epochs": 2, "objective": {"name": name.rpartition("-s")[0]}} | changes
    return Run("train", experiment, name, "", "", TrainParameters(**values).model_dump(mode="json"))


def attack(name="sce-s0", experiment="e", suite="full", images=100, eps=(0.1, 0.2)):
    values = {"checkpoint": f"{experiment}/{name}", "suite": {"name": suite}, "norm": "linf", "eps": list(eps)}
    return Run("attack", experiment, name, "", "", values | {"images": images}, (name,))


@pytest.fixture
def committed(tmp_path):
    """Commit a record of a run in a project of its own, and estimate runs there."""

    def commit(run, seconds, device="cpu", **changes):
        made = {"commit": None, "modified": None, "packages": {}, "python": "", "machine": MACHINE, "created": ""}
        record = Record(
            kind=run.kind,
            experiment=run.experiment,
            run=run.name,
            key="of other code",
            parameters=run.parameters,
            results={},
            data_sha256="",
            provenance=Provenance(**made, device=device, seconds=seconds),
            **changes,
        )
        path = tmp_path / "results" / run.folder / "record.json"
        record.save(path)
        return path

    commit.root = tmp_path  # pyright: ignore[reportFunctionMemberAccess]
    return commit


def estimated(committed, *runs, device="cpu"):
    found = cost.estimates(runs, device, committed.root)
    return [found[run.folder] for run in runs]


def test_a_run_takes_what_its_own_record_says_and_one_without_the_median_of_its_experiment(committed):
    for name, seconds in (("sce-s0", 10), ("sce-s1", 20), ("mmc-s0", 60)):
        committed(train(name), seconds)
    committed(train("sce-s0", experiment="other"), 1000)
    own, missing = estimated(committed, train("mmc-s0"), train("mmc-s1"))
    assert own == Estimate(60, MACHINE)
    assert missing == Estimate(20, MACHINE)


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"train_images": 500}, {"precision": "bfloat16"}])
def test_a_record_of_other_work_measures_nothing(committed, changes):
    committed(train(), 10)
    assert estimated(committed, train(**changes)) == [Estimate()]


def test_an_attack_by_another_suite_or_on_other_images_is_unknown(committed):
    committed(attack(), 100)
    assert estimated(committed, attack("sce-s1"), attack(suite="seed"), attack(images=50)) == [
        Estimate(100, MACHINE),
        Estimate(),
        Estimate(),
    ]


def test_what_changes_no_time_keeps_the_measurement(committed):
    committed(train(), 10)
    (found,) = estimated(committed, train(optimizer={"lr": 0.2}, embedding_dim=64))
    assert found.seconds == 10


def test_records_that_say_nothing_are_left_out(committed):
    committed(train("sce-s0"), 10, flags={"diverged": "in epoch 1"})
    path = committed(train("sce-s1"), 20)
    path.write_text(path.read_text().replace("cpu", "gpu"))
    assert estimated(committed, train("sce-s0"), train("sce-s1")) == [Estimate()] * 2


def test_a_gpu_measures_nothing_of_a_cpu_nor_the_other_way_round(committed):
    committed(train("sce-s0"), 10)
    committed(train("sce-s1"), 2, device="Some GPU")
    assert estimated(committed, train("mmc-s0")) == [Estimate(10, MACHINE)]
    assert estimated(committed, train("mmc-s0"), device="cuda:1") == [Estimate(2, "Some GPU")]


@pytest.mark.parametrize(("seconds", "minutes"), [(None, 480), (1, 30), (600, 30), (601, 31), (36_000, 1800)])
def test_a_cluster_is_asked_for_three_times_the_estimate(seconds, minutes):
    assert cost.minutes(Estimate(seconds)) == minutes


def test_summary_says_how_long_and_for_how_many_that_is_unknown():
    runs = [train("sce-s0"), train("mmc-s0"), attack("sce-s0"), attack("mmc-s0")]
    times = [Estimate(3600, MACHINE), Estimate(1800, "Some GPU"), Estimate(7200, MACHINE), Estimate()]
    expected = {run.folder: found for run, found in zip(runs, times, strict=True)}
    assert cost.summary(runs, expected) == (
        "unknown for 1 of these 4 runs, and so for the whole; the other 3 take about 3.5 hours on one core, 3.0 on two "
        f"(measured: 3 runs on {MACHINE}, Some GPU)"  # on two: one chain of 3 hours
    )
    assert cost.summary(runs[1:3], expected, "GPU").startswith("about 2.5 hours on one GPU, 2.0 on two (")
    assert cost.summary(runs[3:], expected).startswith("what they take is unknown: no record of such runs (1)")


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 seconds"), (600, "10 minutes"), (90 * 60, "1.5 hours")])
def test_summary_has_a_fitting_unit(seconds, words):
    assert cost.summary([train()], {train().folder: Estimate(seconds)}).startswith(f"about {words} on one core")


# --- tiers and the experiments that are there


def test_every_experiment_file_has_a_tier():
    found = {path.stem: load_experiment(path.stem).tier for path in (ROOT / "experiments").glob("*.yaml")}
    assert [name for name, tier in found.items() if tier not in TIERS] == []
    assert set(found.values()) == set(TIERS)


def test_a_tier_that_does_not_exist_is_refused():
    values = load_experiment("digits").model_dump()
    with pytest.raises(ConfigError, match="tier: Input should be 'A' or 'B', got 'D'"):
        validate(Experiment, values | {"tier": "D"}, "here")


def test_more_seeds_of_mnist_are_more_of_the_same():
    mnist, more = load_experiment("mnist"), load_experiment("mnist-more")
    assert more.training == mnist.training
    assert all(one in mnist.objectives for one in more.objectives)
    assert all(mnist.overrides[label] == values for label, values in more.overrides.items())
    assert not set(more.seeds) & set(mnist.seeds)
    assert more.attack == mnist.plans[-1]
