"""benchmarks/plan.py: operations of training runs on paper, and that the committed plan is that of the experiments."""

import json
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from isce.files import ROOT
from isce.parameters.training import TrainParameters
from isce.runs.experiment import load_experiment

RATE = 30e12
NAMES = ("plan", "training", "losses")  # scripts that import one another by their bare names


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.delitem(sys.modules, name, raising=False)
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import plan

        yield plan
        for name in NAMES:
            sys.modules.pop(name, None)


def committed():
    return json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())


def test_the_committed_plan_is_of_every_experiment_of_tiers_b_and_c(plan):
    files = [load_experiment(path.stem) for path in (ROOT / "experiments").glob("*.yaml")]
    wanted = {found.name: found.tier for found in files if found.tier in plan.TIERS}
    assert {row["experiment"]: row["tier"] for row in committed()["rows"]} == wanted


@pytest.mark.parametrize("name", ["mnist-lenet", "released"])
def test_the_committed_plan_is_what_the_script_counts(plan, name):
    assert committed()["assumed_tflops_per_second"] == RATE / 1e12
    (row,) = [row for row in committed()["rows"] if row["experiment"] == name]
    again = plan.planned(load_experiment(name), RATE)
    for key in set(row) - {"cpu_seconds"}:  # of the machine where the plan was made
        assert again[key] == row[key], f"{key}: run `python benchmarks/plan.py --out benchmarks/results/plan.json`"


def test_no_second_of_a_gpu_is_given_as_measured():
    for row in committed()["rows"]:
        assert row["gpu_seconds"] is None
        assert row["gpu_seconds_at_assumed_rate"] == pytest.approx(row["flops"] / RATE)


def test_operations_are_those_that_torch_counts(plan, tmp_path):
    parameters = TrainParameters(dataset="mnist", model="lenet")
    random = plan.random_data("mnist", plan.BATCH, 1)
    run = plan.State(parameters, random, torch.device("cpu"), tmp_path)
    with FlopCounterMode(display=False) as counter:
        plan.train_epoch(run, plan.DeviceSet(random.train, torch.device("cpu")), 1)
    assert plan.step_flops(parameters) == counter.get_total_flops() / plan.BATCH


@pytest.mark.parametrize("kind", ["pgd", "free"])
def test_each_step_of_adversarial_training_counts_the_same(plan, kind):
    def flops(steps):
        spec = {"kind": kind, "eps": 0.1, "steps": steps, "step_size": 0.1}
        return plan.step_flops(TrainParameters(dataset="digits", adversarial=spec))

    one, two, three = (flops(steps) for steps in (1, 2, 3))
    assert two - one == three - two > 0
    assert one > plan.step_flops(TrainParameters(dataset="digits"))
