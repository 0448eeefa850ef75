"""Figures of runs: whatever the runs gave, there is a picture, and the same values give the same bytes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation, Text

from isce.files import ROOT
from isce.report.plots import runs as plots
from isce.report.write import Report, _source

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


def test_many_lines_are_spread_over_panels_of_eight_at_most():
    rows = [{"label": f"m{k}", "run": "s0", "eps": eps, "percent": 50.0} for k in range(20) for eps in (0.1, 0.2)]
    drawn = plots.lines(pd.DataFrame(rows), "eps", "eps", [f"m{k}" for k in range(20)])
    counts = [len(ax.lines) for ax in drawn.axes]
    assert sum(counts) == 20
    assert max(counts) <= 8


def test_each_seed_has_its_dot_and_a_seed_without_accuracy_none():
    frame = pd.DataFrame({"label": ["sce", "sce", "mmc"], "own": [50.0, 60.0, 40.0], "worst": [45.0, 35.0, np.nan]})
    figure = plots.seeds(frame, "accuracy (%)")
    drawn = [np.asarray(line.get_xdata()).tolist() for line in figure.axes[0].lines]
    assert drawn[:3] == [[55.0], [45.0, 35.0], [40.0]]
    assert np.isnan(drawn[3]).all()
    (arrow,) = figure.axes[0].texts
    assert isinstance(arrow, Annotation)
    assert (arrow.xy, arrow.xyann) == ((40.0, 0), (55.0, 0)), "from the one attack to the worst case, where both are"


def small_letters(figure, column=672):
    """Letters of a figure that are below 8 pixels where a page shows it, shrunk to the column."""
    shown = min(1, column / (96 * figure.get_figwidth()))
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return {text.get_text() for text in texts if text.get_fontsize() * 96 / 72 * shown < 8}


@pytest.mark.parametrize("experiment", ["digits", "mnist"])
def test_letters_of_figures_can_be_read_and_no_axes_has_more_than_eight_labelled_lines(experiment):
    figures = {name: make().figure for name, make in Report(_source(experiment, ROOT / "results"), ROOT).plots()}
    assert len(figures) > 10
    for name, figure in figures.items():
        assert small_letters(figure) == set(), name
        for ax in figure.axes:
            named = {line.get_label() for line in ax.lines if not str(line.get_label()).startswith("_")}
            assert len(named) <= 9 if name == "explain-promise" else len(named) <= 8, name


def test_a_small_letter_is_found():
    figure, ((ax,),) = plots.grid(1, 1, 14, 2)
    ax.set_title("tiny", fontsize=8)
    assert "tiny" in small_letters(figure)


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
