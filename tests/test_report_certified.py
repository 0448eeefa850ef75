"""What the report shows of proofs: a table of two-sided bounds, and what a sweep of m or of the temperature buys."""

from __future__ import annotations

import numpy as np
import pytest

from isce.report import certified
from isce.report.cells import Cell, Cells
from isce.report.key import Key
from isce.report.names import reader_name
from isce.runs.experiment import Experiment


def experiment(*objectives: dict[str, object]) -> Experiment:
    attack = {"suite": "adaptive", "norm": "l2", "eps": [0.5, 1.0], "main_eps": 0.5, "certify": "lipschitz"}
    values = {"name": "made-up", "title": "Made up", "training": {"dataset": "digits"}, "seeds": [0, 1]}
    return Experiment.model_validate(values | {"objectives": list(objectives), "attack": attack})


def isce(m: object, temperature: float | None = None) -> dict[str, object]:
    params = {"inference": m} | ({} if temperature is None else {"temperature": temperature})
    return {"name": "isce", "params": params}


SWEEP = [isce(m, 0.25) for m in (0.0, 1.0, 2.0)] + [isce(0.0, temperature) for temperature in (0.5, 1.0)]


def cell(label: str, key: Key, seed: int, accuracy: float) -> Cell:
    return Cell(label, key, str(seed), accuracy, 40, "")


def test_what_moves_is_m_at_the_usual_temperature_and_the_temperature_at_m_0():
    assert certified.moved(experiment(*SWEEP)) == {
        "m": {"isce-m0-temperature0.25": 0, "isce-m1-temperature0.25": 1, "isce-m2-temperature0.25": 2},
        "T": {"isce-m0-temperature0.25": 0.25, "isce-m0-temperature0.5": 0.5, "isce-m0-temperature1": 1},
    }
    assert set(certified.moved(experiment(*(isce(m) for m in (0.0, 1.0, 2.0))))) == {"m"}


@pytest.mark.parametrize(
    "extra",
    [{"name": "sce"}, {"name": "isce"}, isce(1.0, 0.5), {"name": "isce-certified", "params": {"eps": 0.1}}],
)
def test_a_stranger_makes_it_no_sweep(extra):
    assert certified.moved(experiment(*SWEEP, extra)) == {}


def test_two_values_are_no_sweep():
    assert certified.moved(experiment(isce(0.0), isce(1.0))) == {}


def test_no_two_networks_of_a_sweep_share_a_name():
    labels = [objective.label for objective in experiment(*SWEEP).objectives]
    assert len({reader_name(label) for label in labels}) == len(labels)
    assert reader_name("isce-m2-temperature0.25") == "I-SCE (text, m = 2, T = 0.25)"


def test_the_price_joins_means_over_seeds_of_proved_against_clean():
    made = experiment(*SWEEP)
    share = {
        (label, seed): (0.9 - k / 10, 0.2 + k / 10 + seed / 50)
        for k, label in enumerate(labels(made))
        for seed in (0, 1)
    }
    found = [cell(label, Key("clean"), seed, clean) for (label, seed), (clean, _) in share.items()]
    found += [cell(label, Key.at("certified", 0.5), seed, proved) for (label, seed), (_, proved) in share.items()]
    figure = certified.price(made, Cells(found, labels(made)), "").figure
    [ax] = figure.axes
    drawn = {line.get_linestyle(): np.asarray(line.get_xydata()) for line in ax.lines if len(line.get_xdata()) == 3}
    lines = {style: points.round(6).tolist() for style, points in drawn.items()}
    assert lines == {
        "-": [[90, 21], [80, 31], [70, 41]],  # m = 0, 1, 2
        "--": [[90, 21], [60, 51], [50, 61]],  # T = 0.25, 0.5, 1
    }
    assert [text.get_text() for text in ax.texts] == ["m = 2", "T = 1"]


def test_the_table_says_once_that_nothing_was_run():
    made = experiment(isce(0.0), isce(1.0))
    first, second = labels(made)
    found = [cell(label, Key("clean"), 0, 1.0) for label in (first, second)]
    found += [cell(label, Key.at("certified", 0.5), 0, 0.25) for label in (first, second)]
    found += [cell(first, Key.at("worst", 0.5), 0, 0.75), cell(first, Key.at("certified", 1.0), 0, 0.5)]
    rows = certified.table(made, Cells(found, [first, second]), "").rows
    assert [row[2:] for row in rows] == [["25.0 to 75.0", "50.0 to not run"], ["25.0 to not run", "not run"]]


def labels(made: Experiment) -> list[str]:
    return [objective.label for objective in made.objectives]
