"""A report reads the record of each planned run once, and no side file but the one that the record names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import record
from safetensors.numpy import save

from isce.files import RecordError, sha256, write_atomic
from isce.report.key import Key
from isce.report.source import Source
from isce.runs.experiment import Experiment
from isce.runs.records import MASKS

NAME = "made-up"
SEEDS = (0, 1)


def attacked(folder: Path, run: str, correct: int, n: int = 10) -> Path:
    """Write the record of an attack that leaves some of the images, with its masks; return its folder."""
    place = folder / NAME / "attack" / run
    write_atomic(place / MASKS, save({"linf@0.1": np.arange(n) < correct}))
    worst = {"accuracy": correct / n, "n": n}
    made = record(
        "attack",
        run,
        parameters={"norm": "linf", "suite": {"rows": [], "survivors_only": False}},
        results={"clean": {"accuracy": 1.0, "n": n}, "threats": {"linf@0.1": {"attacks": {}, "worst": worst}}},
        files={MASKS: sha256(place / MASKS)},
    )
    made.save(place / "record.json")
    return place


def source(folder: Path, *objectives: str) -> Source:
    values: dict[str, Any] = {"name": NAME, "title": "x", "seeds": list(SEEDS)}
    values |= {"objectives": [{"name": name} for name in objectives or ("sce",)]}
    values |= {"attack": {"suite": "full", "eps": [0.1], "main_eps": 0.1}}
    experiment = Experiment.model_validate(values)
    return Source(experiment, folder, {("attack", run): "" for run, _ in experiment.runs()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in SEEDS:
        attacked(tmp_path, f"sce-s{seed}", 5 + seed)
    return tmp_path


def test_a_copy_of_a_record_is_no_further_seed(folder: Path):
    """It would narrow the interval over seeds."""
    place = folder / NAME / "attack"
    before = source(folder).cells.text("sce", Key.at("worst", 0.1))
    shutil.copytree(place / "sce-s0", place / "sce-s0 (copy)")
    assert source(folder).cells.text("sce", Key.at("worst", 0.1)) == before
    shutil.rmtree(place / "sce-s1")
    shutil.copytree(place / "sce-s0", place / "sce-s1")
    with pytest.raises(RecordError, match=r"sce-s1/record\.json is the record of another run: attack sce-s0"):
        source(folder)


def test_masks_that_differ_from_what_the_record_says_are_refused(folder: Path):
    """Images are paired by them; one flipped bit is another image that is robust."""
    place = folder / NAME / "attack" / "sce-s1"
    assert source(folder).masks()["sce-s1"]["linf@0.1"].sum() == 6
    other = save({"linf@0.1": np.arange(10) < 7})
    (place / MASKS).write_bytes(other)
    with pytest.raises(RecordError, match=r"robust\.safetensors is damaged"):
        source(folder).masks()
    (place / MASKS).unlink()
    with pytest.raises(RecordError, match="can't read"):
        source(folder).masks()


def test_a_caption_says_how_many_images_the_least_attacked_network_met(folder: Path):
    assert source(folder, "sce", "mmc").evidence().startswith("10 test images, 2 training seeds")
    for seed in SEEDS:
        attacked(folder, f"mmc-s{seed}", 500, 1000)
    found = source(folder, "sce", "mmc")
    assert found.evidence().startswith("10 to 1,000 test images")
    assert found.numbers()["n_images"]["text"] == "10 to 1,000"
