"""Local optimality, by hand values."""

import json
import sys

import numpy as np
import pytest

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import costs
import optimality


def test_areas_above_the_curves_by_hand():
    """The best of both breaks the images at 1, 2 and 4: areas up to 4 are 3 + 2 + 0; a alone has 3 + 1, b 0 + 2."""
    found = {"a": np.array([1.0, 3.0, 4.0]), "b": np.array([np.inf, 2.0, 7.0])}
    assert optimality.optimality(found) == pytest.approx({"a": 4 / 5, "b": 2 / 5})


def test_image_that_nobody_breaks_counts_for_nobody():
    found = {"a": np.array([1.0, 3.0, 4.0, np.inf]), "b": np.array([np.inf, 2.0, 7.0, np.inf])}
    assert optimality.optimality(found) == pytest.approx({"a": 4 / 5, "b": 2 / 5})


def test_areas_are_those_of_the_curves_of_accuracy():
    """A naive integral of accuracy over a fine grid of eps."""
    draw = np.random.default_rng(0)
    found = {name: np.where(draw.random(50) < 0.2, np.inf, draw.random(50) + 0.01) for name in "abc"}
    best = np.minimum.reduce(list(found.values()))
    grid = np.linspace(0, best[np.isfinite(best)].max(), 20_001)

    def area(distances):
        accuracy = (distances[:, None] > grid).mean(0)
        return (1 - accuracy).mean()

    expected = {name: area(each) / area(best) for name, each in found.items()}
    assert optimality.optimality(found) == pytest.approx(expected, rel=1e-3)


def test_best_of_all_is_one_and_none_is_more():
    draw = np.random.default_rng(1)
    found = {name: draw.random(20) + 0.01 for name in "ab"}
    found["best"] = np.minimum(found["a"], found["b"])
    shares = optimality.optimality(found)
    assert shares["best"] == 1
    assert all(0 < share < 1 for name, share in shares.items() if name != "best")


@pytest.mark.parametrize("distances", [[np.inf, np.inf], [0.0, 1.0]])
def test_no_point_at_all_or_one_at_no_distance_is_refused(distances):
    with pytest.raises(ValueError, match="distances above 0"):
        optimality.optimality({"a": np.array(distances)})


def test_committed_table_is_made_of_the_committed_values():
    found = json.loads((ROOT / "benchmarks" / "results" / "optimality.json").read_text())
    assert found["shown"]["optimality"] == costs.optimality(found)
    for case in found["table"]:
        assert 0 < max(case["optimality"].values()) <= 1
