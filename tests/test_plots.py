"""Figures of runs: whatever the runs gave, there is a picture, and the same values give the same bytes."""

import numpy as np
import pandas as pd
import pytest

from isce.report.plots import runs as plots

ROW = {"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.9}


@pytest.mark.parametrize("histories", [{"a": [ROW]}, {"a": [ROW], "b": []}, {"a": []}])
def test_training_curves_of_runs_that_diverged_at_once(histories):
    figure = plots.training_curves(histories)
    drawn = {line.get_label() for line in figure.axes[0].lines}
    assert drawn == {label for label, rows in histories.items() if rows}


def heights_of(line):
    return np.asarray(line.get_ydata()).tolist()


def test_band_runs_from_the_lowest_to_the_highest_seed():
    rows = [ROW, ROW | {"train_loss": 0.7}]
    figure = plots.training_curves({"a": rows})
    assert heights_of(figure.axes[0].lines[0])[0] == pytest.approx(0.6)
    heights = np.asarray(figure.axes[0].collections[0].get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (pytest.approx(0.5), pytest.approx(0.7))


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_examples_for_any_number_of_images(count, channels):
    clean = np.full((count, channels, 4, 4), 0.5, dtype=np.float32)
    predictions = np.tile([1.0, 0.9, 2.0, 0.8], (count, 1))
    figure = plots.example_images(clean, np.clip(clean + 0.1, 0, 1), predictions)
    assert len(figure.axes) == max(1, 3 * count)
    assert plots.as_bytes(figure, "png").startswith(b"\x89PNG")


def test_worst_case_and_own_loss_are_both_drawn():
    row = {"label": "sce", "eps": 0.1, "worst": 40.0, "own": 50.0, "low": 35.0, "high": 45.0}
    figure = plots.robust_accuracy(pd.DataFrame([row]), "linf")
    assert [heights_of(line)[0] for line in figure.axes[0].lines if heights_of(line)] == [40.0, 50.0]


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_same_values_same_bytes(kind):
    one, two = (plots.as_bytes(plots.training_curves({"a": [ROW]}), kind) for _ in range(2))
    assert one == two


def test_more_lines_than_colours_are_still_told_apart():
    styles = [tuple(plots._style(number).values()) for number in range(81)]
    assert len(set(styles)) == 81
    rows = [{"label": f"m{k}", "run": "s0", "eps": eps, "percent": 50.0} for k in range(20) for eps in (0.1, 0.2)]
    drawn = plots.lines(pd.DataFrame(rows), "eps", "eps", [f"m{k}" for k in range(20)])
    assert len(drawn.axes[0].lines) == 20


def test_a_curve_that_reached_zero_stays_there_in_the_mean():
    rows = [
        {"label": "sce", "run": "s0", "eps": 0.1, "percent": 40.0},
        {"label": "sce", "run": "s0", "eps": 0.2, "percent": 0.0},
        {"label": "sce", "run": "s1", "eps": 0.1, "percent": 60.0},
        {"label": "sce", "run": "s1", "eps": 0.2, "percent": 20.0},
        {"label": "sce", "run": "s1", "eps": 0.3, "percent": 0.0},
    ]
    line = plots.lines(pd.DataFrame(rows), "eps", "eps", ["sce"]).axes[0].lines[0]
    assert heights_of(line) == [50.0, 10.0, 0.0]


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (0.1, "0.1"),
        (0.2, "0.2"),
        (1.0, "1"),
        (8 / 255, "8/255 (0.0314)"),
        (0.0313725, "8/255 (0.0314)"),
        (0.00784314, "2/255 (0.00784)"),
        (1e-4, "0.0001"),
    ],
)
def test_an_eps_is_said_in_grey_levels_where_no_short_decimal_says_it(eps, text):
    assert plots.eps_text(eps) == text
