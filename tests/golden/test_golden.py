"""Golden behaviour: the same parameters give the same results as when the committed numbers were written.

A test that fails says that the results of a part have changed. If that is a mistake, mend it. If it is meant, raise the
part's semantics number (isce/parameters/semantics.py), run `make prove`, and write the numbers anew with
`--force-regen`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from golden.behaviour import parts

from isce.parameters import semantics

FOLDER = Path(__file__).parent / "numbers"
PARTS = parts()


#: Of a short training on few images: an image at a tie, and with it the best epoch, is the processor's to decide.
COARSE = {"train_accuracy": 0.051, "validation_accuracy": 0.051, "best_epoch": 1.0}  # one image of 20


def name_of(part: str) -> str:
    """File of a part's numbers; another semantics number, another file."""
    return f"{part}-{semantics.number(part)}"


@pytest.mark.parametrize("part", PARTS)
def test_results_are_those_of_the_declared_semantics(part, num_regression):
    found, path = PARTS[part](), FOLDER / f"{name_of(part)}.csv"
    try:
        num_regression.check(
            found,
            fullpath=path,
            tolerances={name: {"atol": COARSE[end]} for name in found if (end := name.rpartition(".")[2]) in COARSE},
            default_tolerance={"rtol": 1e-3, "atol": 1e-3},
            fill_different_shape_with_nan=True,
        )
        with path.open(newline="") as file:  # the check passes over a column that is no longer made
            assert sorted(next(csv.reader(file))[1:]) == sorted(found)
    except AssertionError as error:
        raise AssertionError(
            f"results of {part} changed: mend it, or raise its semantics number and run `make prove`\n{error}"
        ) from None


def test_no_numbers_are_left_of_former_semantics():
    assert {path.stem for path in FOLDER.glob("*.csv")} == {name_of(part) for part in PARTS}
