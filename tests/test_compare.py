"""A reproduction agrees within the scatter over seeds; what is missing, failed or reversed never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_records
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import t

from isce import __main__
from isce.files import sha256
from isce.report import claims, compare, headlines
from isce.report.cells import Cell, Cells
from isce.report.key import Key
from isce.runs.experiment import load_experiment
from isce.runs.records import MASKS
from isce.runs.run import planned_runs
from isce.strict import ConfigError

N = 400
COMMITTED = {"sce": [0.44, 0.46, 0.42], "isce-m2": [0.38, 0.4, 0.35], "isce-released": [0.63, 0.58, 0.55]}
CLEAN = 0.99
NAME, SEEDS = "digits", (0, 1, 2)
RUNS = {(run.kind, run.name): run for run in planned_runs(load_experiment(NAME))}


def share(value: float | None, why: str = "") -> dict[str, Any]:
    if value is None:
        return dict.fromkeys(("accuracy", "correct", "low", "high")) | {"n": N, "why": why}
    return {"accuracy": value, "correct": round(value * N), "n": N, "low": 0.0, "high": 1.0}


def write(folder: Path, kind: str, run: str, results: dict[str, Any], **fields: Any) -> Path:
    """A record of a planned run, with its present key."""
    path = folder / NAME / kind / run / "record.json"
    values = {"experiment": NAME, "key": RUNS[kind, run].key, "parameters": RUNS[kind, run].parameters} | fields
    made_records.record(kind, run, results=results, **values).save(path)
    return path


def attack(folder: Path, run: str, worst: float | None, clean: float = CLEAN, **fields: Any) -> None:
    """A record of an attack, with PGD-50 as strong as the worst case."""
    row = share(worst, "it broke") | {"survivors": False}
    threats = {
        f"linf@{eps}": {"attacks": {claims.PAPER: row}, "worst": share(worst if eps == 0.1 else 0.0, "it broke")}
        for eps in (0.05, 0.1, 0.2)
    }
    path = folder / NAME / "attack" / run / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if worst is not None:
        save_file({"linf@0.1": np.arange(N) < round(worst * N)}, path.with_name(MASKS))
        fields |= {"files": {MASKS: sha256(path.with_name(MASKS).read_bytes())}}
    write(folder, "attack", run, {"clean": share(clean), "threats": threats}, **fields)


def records(folder: Path, worst: dict[str, list[float]], seeds: tuple[int, ...] = SEEDS) -> Path:
    """Trainings and attacks of digits with these worst cases at the main eps."""
    for label, values in worst.items():
        for seed in seeds:
            write(folder, "train", f"{label}-s{seed}", {})
            attack(folder, f"{label}-s{seed}", values[seed])
    return folder


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    return records(tmp_path / "results", COMMITTED)


def compared(own: Path, committed: Path, every: bool = False) -> tuple[str, bool]:
    lines, agree = compare.compare(NAME, own, committed, every)
    return "\n".join(lines), agree


def sentence(text: str) -> str:
    return text.splitlines()[0]


def test_the_same_records_agree_and_the_text_says_how_many_were_compared(committed):
    text, agree = compared(committed, committed)
    assert agree
    assert sentence(text) == "digits: the reproduction agrees with the committed records."
    assert "Compared: 6 headline numbers, of which 6 agree, and 5 claims, of which 5 have the same verdict." in text
    assert "Processors round differently" in text
    assert "worst-case accuracy of I-SCE (code) at eps 0.1" in text


def test_a_shift_within_the_scatter_over_seeds_agrees(tmp_path, committed):
    """Each network other than its committed one by points, as another processor makes it."""
    own = records(
        tmp_path / "own", {"sce": [0.46, 0.41, 0.4], "isce-m2": [0.4, 0.35, 0.4], "isce-released": [0.58] * 3}
    )
    text, agree = compared(own, committed)
    assert agree, text


def test_a_headline_beyond_it_does_not_and_the_sentence_says_which(tmp_path, committed):
    own = records(tmp_path / "own", COMMITTED | {"isce-released": [0.3, 0.28, 0.31]})
    text, agree = compared(own, committed)
    assert not agree
    assert sentence(text).startswith(
        "digits: the reproduction does not agree: the worst-case accuracy of I-SCE (code) at eps 0.1 is 29.7%, "
        "committed 58.7% (p = "
    )
    assert "I-SCE (text" not in sentence(text)
    assert "SCE at eps" not in sentence(text)


def test_one_seed_that_is_far_away_is_not_hidden_by_its_own_scatter(tmp_path, committed):
    own = records(tmp_path / "own", COMMITTED | {"sce": [0.44, 0.46, 0.0]})
    text, agree = compared(own, committed)
    assert not agree
    assert "worst-case accuracy of SCE at eps 0.1" in sentence(text)


def remove(own: Path) -> None:
    (own / NAME / "attack" / "sce-s1" / "record.json").unlink()


def remove_training(own: Path) -> None:
    (own / NAME / "train" / "sce-s1" / "record.json").unlink()


def fail(own: Path) -> None:
    attack(own, "sce-s1", None, flags={"attack-failed": "it broke"})


def fail_beside(own: Path) -> None:
    attack(own, "sce-s1", COMMITTED["sce"][1], flags={"attack-failed": "it broke"})


def diverge(own: Path) -> None:
    write(own, "train", "sce-s1", {}, flags={"diverged": "at once"})


def stale(own: Path) -> None:
    attack(own, "sce-s1", COMMITTED["sce"][1], key="other")


def fewer(own: Path) -> None:
    path = own / NAME / "attack" / "sce-s1" / "record.json"
    text = compare.Source(load_experiment(NAME), own, {("attack", "sce-s1"): ""})
    (record,) = text.records.values()
    record.results["clean"]["n"] = 100
    record.save(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove, "own records are missing: attack sce-s1"),
        (remove_training, "own records are missing: train sce-s1"),
        (
            fail,
            "own records are flagged attack-failed: attack sce-s1; the worst-case accuracy of SCE at eps 0.1 can't be",
        ),
        (fail_beside, "own records are flagged attack-failed: attack sce-s1."),
        (diverge, "own records are flagged diverged: train sce-s1"),
        (stale, "own records are stale: attack sce-s1."),
        (fewer, "the clean accuracy of SCE is of 100 images on one side and of 400 on the other"),
    ],
)
def test_what_is_missing_failed_or_partial_can_not_agree_and_is_named(tmp_path, committed, change, words):
    own = records(tmp_path / "own", COMMITTED)
    change(own)
    text, agree = compared(own, committed)
    assert not agree
    assert words in sentence(text)


def test_a_flag_that_both_have_is_no_difference(tmp_path):
    sides = [records(tmp_path / name, COMMITTED) for name in ("own", "results")]
    for side in sides:
        fail_beside(side)
    assert compared(*sides)[1]


def test_a_claim_that_can_not_be_judged_does_not_agree(tmp_path, committed):
    """PGD-50 alone failed: every headline number is there."""
    own = records(tmp_path / "own", COMMITTED)
    path = own / NAME / "attack" / "sce-s1" / "record.json"
    source = compare.Source(load_experiment(NAME), own, {("attack", "sce-s1"): ""})
    (record,) = source.records.values()
    record.key = RUNS["attack", "sce-s1"].key
    record.results["threats"]["linf@0.1"]["attacks"][claims.PAPER] |= share(None, "it broke")
    record.save(path)
    text, agree = compared(own, committed)
    assert not agree
    assert "C4 of I-SCE (code) can't be judged (not evaluated: seed 1: it broke)" in sentence(text)


def test_a_reversed_claim_does_not_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(headlines, "LEVEL", 0.0)  # the numbers alone would do
    own = records(tmp_path / "own", COMMITTED | {"isce-released": [0.2, 0.21, 0.19]})
    committed = records(tmp_path / "results", COMMITTED | {"isce-released": [0.64, 0.66, 0.62]})
    text, agree = compared(own, committed)
    assert not agree
    assert sentence(text).endswith("not agree: C4 of I-SCE (code) is contradicted, committed supported.")
    weaker = records(tmp_path / "weaker", COMMITTED | {"isce-released": [0.64, 0.86, 0.42]})
    text, agree = compared(weaker, committed)
    assert agree
    assert "5 claims, of which 4 have the same verdict" in text


def test_one_seed_is_judged_by_the_scatter_of_other_experiments(tmp_path, monkeypatch):
    sides = [records(tmp_path / name, COMMITTED, seeds=(0,)) for name in ("own", "results")]
    attack(sides[0], "sce-s0", 0.4)
    text, agree = compared(*sides)
    assert not agree
    assert "worst-case accuracy of SCE at eps 0.1 is 40.0%, committed 44.0%; no scatter over seeds is known" in text
    key = Key.at("worst", 0.1)
    several = [Cell("sce", key, str(seed), 0.4 + seed / 100, N, "") for seed in range(12)]
    monkeypatch.setattr(headlines, "_others", lambda *_: [(Cells(several, ["sce"]), key)])
    assert compared(*sides)[1]
    attack(sides[0], "sce-s0", 0.01)
    text, agree = compared(*sides)
    assert not agree
    assert "worst-case accuracy of SCE" in sentence(text)


def test_p_values_and_scatter_by_hand():
    """Variances 0.01 and 0.0001 with 1 and 2 degrees of freedom, at means 0.5 and 0.9."""
    key = Key("clean")
    values = {"sce": [0.5 - 0.005**0.5, 0.5 + 0.005**0.5], "mmc": [0.89, 0.9, 0.91], "center": [0.3]}
    every = [Cell(label, key, str(s), v, 100, "") for label, some in values.items() for s, v in enumerate(some)]
    found = headlines.scatter([(Cells(every, list(values)), key)])
    assert found == pytest.approx(((0.01 + 2 * 0.0001) / (0.25 + 2 * 0.09), 3))
    assert headlines.scatter([(Cells(every[-1:], ["center"]), key)]) is None
    statistic = 0.1 / (0.02 * 0.25 * 2 / 3) ** 0.5
    got = headlines.p_value([0.55] * 3, [0.45] * 3, 1000, (0.02, 6))
    assert got == pytest.approx(2 * t.sf(statistic, 6))
    alone = headlines.p_value([0.55] * 3, [0.35, 0.45, 0.55], 1000, (0.02, 6))
    assert alone == pytest.approx(2 * t.sf(0.1 / (0.01 * 2 / 3) ** 0.5, 6)), "its own scatter, as it is larger"
    floor = headlines.p_value([0.0], [0.01], 100, (0.0, 6))
    assert floor == pytest.approx(2 * t.sf(0.01 / (2 * 0.01**2) ** 0.5, 6)), "one image at least"
    assert headlines.p_value([0.5], [0.5], 100, None) == 1.0
    assert headlines.p_value([0.5], [0.4], 100, None) is None


def test_p_values_are_corrected_for_their_number(tmp_path, committed):
    """Holm: the smallest of six is multiplied by six."""
    own = records(tmp_path / "own", COMMITTED | {"sce": [0.35, 0.33, 0.34]})
    source = [
        compare.Source(load_experiment(NAME), folder, {k: r.key for k, r in RUNS.items()})
        for folder in (own, committed)
    ]
    pooled = headlines.scatter([(source[1].cells, Key.at("worst", 0.1))])
    alone = headlines.p_value([0.35, 0.33, 0.34], COMMITTED["sce"], N, pooled)
    assert alone is not None
    assert headlines.LEVEL / 6 < alone < headlines.LEVEL
    found = {one.name: one for one in headlines.headlines(*source, committed)}
    one = found["worst-case accuracy of SCE at eps 0.1"]
    assert one.p == pytest.approx(6 * alone)
    assert one.agrees


def test_the_long_table_is_there_on_request_and_decides_nothing(tmp_path, committed):
    own = records(tmp_path / "own", COMMITTED | {"isce-released": [0.53, 0.68, 0.55]})
    short, agree = compared(own, committed)
    text, still = compared(own, committed, every=True)
    assert (agree, still) == (True, True)
    assert "make compare ALL=1" in short
    assert "decides nothing" not in short
    rows = [line for line in text.splitlines() if line.startswith("isce-released-s1") and "worst@0.1" in line]
    assert [row.split() for row in rows] == [["isce-released-s1", "worst@0.1", "68.0", "58.0", "apart"]]
    assert f"of {9 * (1 + 3 * 3)} cells lie within" in text


def test_the_exit_code(tmp_path, committed, monkeypatch, capsys):
    monkeypatch.setattr(__main__, "ROOT", tmp_path)
    own = records(tmp_path / "build" / "runs", COMMITTED)
    arguments = ["compare", "--results", str(committed)]
    assert __main__.main(arguments) == 0
    assert __main__.main([*arguments, "--all"]) == 0
    assert "decides nothing" in capsys.readouterr().out
    remove(own)
    assert __main__.main(arguments) == 1
    (own / NAME / "attack" / "sce-s0" / "record.json").write_text("{")
    assert __main__.main(arguments) == 1
    assert "damaged" in capsys.readouterr().err


def test_nothing_to_compare_is_no_agreement(tmp_path, committed):
    for sides in ((tmp_path / "none", committed), (committed, tmp_path / "none")):
        with pytest.raises(ConfigError, match="nothing to compare"):
            compared(*sides)
