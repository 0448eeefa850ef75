"""The table of classifiers that draw at random: rows, means over seeds, and what is left out."""

from __future__ import annotations

from made_records import record

from isce.report.randomised import COLUMNS, table


def share(accuracy, low, high):
    return {"accuracy": accuracy, "n": 10, "low": low, "high": high}


def drawn(knowing, draws=None):
    threat = {"naive": share(0.8, 0.7, 0.9), "knowing": share(knowing, knowing - 0.1, knowing + 0.2)}
    draws = draws or {"attack": 16, "judge": 64, "steps": 50}
    return {"randomised": {"draws": draws, "clean": share(1.0, 0.9, 1.0), "threats": {"linf@0.1": threat}}}


def test_one_row_a_network_and_eps_with_intervals():
    made = table([record("attack", "sce-resize-pad-s0", results=drawn(0.5))], "Of these.")
    assert made is not None
    assert made.columns == COLUMNS
    expected = ["100.0 [90.0, 100.0]", "80.0 [70.0, 90.0]", "50.0 [40.0, 70.0]"]
    assert made.rows == [["SCE + resize and pad", "linf 0.1", *expected]]
    assert made.sources == ["sce-resize-pad-s0"]
    assert "16 draws and two ascents of 50 steps to attack, 64 fresh draws to judge. Of these." in made.caption


def test_several_seeds_give_their_mean_the_widest_interval_and_that_over_seeds():
    records = [record("attack", f"sce-resize-pad-s{seed}", results=drawn(0.4 + 0.1 * seed)) for seed in (0, 1, 2)]
    made = table(records, "")
    assert made is not None
    assert made.rows[0][4] == "50.0 [40.0, 70.0] ±24.8"  # t(0.975, 2) / 10 / sqrt(3) is .248
    assert made.rows[0][3] == "80.0 [70.0, 90.0] ±0.0"


def test_records_without_draws_have_no_table():
    assert table([record("attack", "sce-s0", results={"clean": {}}), record("train", "sce-s0")], "") is None
