"""Tables of classifiers that draw at random, and of corrupted images: rows, means over seeds, what is left out."""

from __future__ import annotations

from made_records import record

from isce.report import corruptions
from isce.report.cells import cells
from isce.report.key import Key
from isce.report.randomised import COLUMNS, table


def attacked(run, **results):
    """Path, label and record of an attack run."""
    return f"attack/{run}/record.json", run.rpartition("-s")[0], record("attack", run, results=results)


def share(accuracy, low, high):
    return {"accuracy": accuracy, "n": 10, "low": low, "high": high}


def drawn(knowing, draws=None):
    threat = {"naive": share(0.8, 0.7, 0.9), "knowing": share(knowing, knowing - 0.1, knowing + 0.2)}
    draws = draws or {"attack": 16, "judge": 64, "steps": 50}
    return {"randomised": {"draws": draws, "clean": share(1.0, 0.9, 1.0), "threats": {"linf@0.1": threat}}}


def test_one_row_a_network_and_eps_with_intervals():
    made = table([attacked("sce-resize-pad-s0", **drawn(0.5))], "Of these.")
    assert made is not None
    assert made.columns == COLUMNS
    expected = ["100.0 [90.0, 100.0]", "80.0 [70.0, 90.0]", "50.0 [40.0, 70.0]"]
    assert made.rows == [["SCE + resize and pad", "linf 0.1", *expected]]
    assert made.sources == ["attack/sce-resize-pad-s0/record.json"]
    assert "16 draws and two ascents of 50 steps to attack, 64 fresh draws to judge. Of these." in made.caption


def test_several_seeds_give_their_mean_the_widest_interval_and_that_over_seeds():
    records = [attacked(f"sce-resize-pad-s{seed}", **drawn(0.4 + 0.1 * seed)) for seed in (0, 1, 2)]
    made = table(records, "")
    assert made is not None
    assert made.rows[0][4] == "50.0 [40.0, 70.0] ±24.8"  # t(0.975, 2) / 10 / sqrt(3) is .248
    assert made.rows[0][3] == "80.0 [70.0, 90.0] ±0.0"


def test_records_without_draws_have_no_table():
    assert table([attacked("sce-s0", clean={})], "") is None


def test_corruptions_are_means_over_seeds_from_mild_to_strong():
    def rows(*accuracies):
        names = ("noise", "noise", "blur")
        return [{"name": name, **share(a, 0, 1)} for name, a in zip(names, accuracies, strict=True)]

    every = [
        attacked("sce-s0", clean=share(1.0, 0, 1), corruptions=rows(0.8, 0.6, 0.5)),
        attacked("sce-s1", clean=share(0.9, 0, 1), corruptions=rows(0.9, 0.4, 0.5)),
        attacked("sce-mixup-s0", clean=share(1.0, 0, 1)),
    ]
    made = corruptions.table(every, "Of these.")
    assert made is not None
    assert made.columns == ["network", "clean", "noise", "blur"]
    assert made.rows == [["SCE", "95.0", "85.0 / 50.0", "50.0"]]
    assert made.sources == ["attack/sce-s0/record.json", "attack/sce-s1/record.json"]
    assert corruptions.table(every[2:], "") is None


def accuracies(**results):
    """Accuracy by key of an attack record with the rows of one threat."""
    suite = {"survivors_only": False, "rows": []}
    made = record("attack", "sce-s0", parameters={"norm": "linf", "suite": suite}, results=results)
    return {cell.key: cell.accuracy for cell in cells("attack/sce-s0/record.json", made)}


def threats(worst, **rows):
    row = {"survivors": False, "rejected": 0}
    attacks = {name.replace("_", "-"): share(accuracy, 0, 1) | row for name, accuracy in rows.items()}
    return {"linf@0.1": {"attacks": attacks, "worst": share(worst, 0, 1)}}


def test_numbers_of_a_network_that_draws_at_random_are_means_over_draws():
    found = accuracies(clean=share(1.0, 0, 1), threats=threats(0.2, pgd50_training=0.3), **drawn(0.5))
    assert found[Key("clean")] == 1.0
    assert found[Key.at("own", 0.1)] == 0.8
    assert found[Key.at("worst", 0.1)] == 0.5
    assert found[Key.at("attack", 0.1, "pgd50-training")] == 0.3  # of one draw


def test_the_training_loss_of_a_network_that_rejects_is_attacked_without_the_rejection():
    rejection = {"clean_rejected": share(0.05, 0, 1)}
    rows = threats(0.4, pgd50_training=0.5, pgd50_training_blind=0.9, fgsm_training_blind=0.95)
    found = accuracies(clean=share(1.0, 0, 1), threats=rows, rejection=rejection)
    assert found[Key.at("own", 0.1)] == 0.9
    assert found[Key.at("worst", 0.1)] == 0.4
    assert found[Key("rejected")] == 0.05
    assert accuracies(clean=share(1.0, 0, 1), threats=threats(0.4, pgd50_training=0.5))[Key.at("own", 0.1)] == 0.5
