"""``make reproduce``: runs what is missing or changed and nothing else, and keeps what is finished."""

import json
import os
import re
import shutil
import signal

import pytest
import yaml
from stub_project import until

from isce import __main__
from isce.files import sha256
from isce.parameters import semantics
from isce.runs import plan as workflow
from isce.runs import records
from isce.strict import ConfigError

RUNS = ["sce-s0", "isce-released-s0"]
KINDS = ("train", "attack", "minmax")
EVERYTHING = {f"{kind} {run}" for kind in KINDS for run in RUNS} | {"tables"}
ATTACKS = {f"attack {run}" for run in RUNS} | {"tables"}
MINMAX = {f"minmax {run}" for run in RUNS} | {"tables"}
RELEASED = {f"{kind} isce-released-s0" for kind in KINDS} | {"tables"}


def test_one_line_for_each_run_with_the_total_and_a_table(built):
    _, out = built
    lines = [line for line in out.splitlines() if line.startswith("[")]
    assert {line.split("]")[0] for line in lines} == {f"[{n:>3}/6" for n in range(1, 7)}
    assert sum("validation accuracy" in line for line in lines) == 2
    assert sum("worst case linf@0.1" in line for line in lines) == 2
    assert "training loss" in out, "the table of results"


def test_records_hold_parameters_outcome_and_hashes(built):
    project, _ = built
    train = records.read(project.record("train", "sce-s0"))
    attack = records.read(project.record("attack", "sce-s0"))
    assert train.parameters["epochs"] == 2
    assert len(train.results["history"]) == 2
    assert set(train.files) == {"best.safetensors", "last.safetensors"}
    worst = attack.results["threats"]["linf@0.2"]["worst"]
    assert worst["n"] == 30
    assert worst["low"] <= worst["accuracy"] <= worst["high"]
    assert attack.data_sha256 == train.data_sha256


def test_dry_run_says_the_tier_and_how_long_what_is_due_should_take(project):
    def said():
        code, out, err = project.reproduce("--dry-run", "--device", "cpu")
        assert code == 0, out + err
        return [line for line in out.splitlines() if not line.startswith("would run")]

    tier, whole = "Tiny (tier A: two CPU cores, hours)", "the whole experiment took 1 minutes (no machine)"
    assert said() == [f"{tier}: everything is up to date", whole]
    assert project.planned() == set()
    project.change(*raised("objective.isce-released"))
    first, time, last = said()
    assert (first, last) == (f"{tier}: {len(RELEASED)} steps to do", whole)
    assert time.startswith("time: what they take is unknown")
    assert project.isce("adopt", "--experiment", "tiny", "--partial")[0] == 0
    assert re.fullmatch(
        r"time: about [\d.]+ (?:seconds|minutes) on one core, [\d.]+ on two \(measured: 3 runs on .*\)", said()[1]
    ), "another objective of the experiment was"


CODE = "\nEXTRA = 1\n"
SEED_1 = {f"{kind} {run[:-1]}1" for kind in ("train", "attack") for run in RUNS}  # minmax asks for seed 0 alone


def raised(part):
    """An edit that raises a semantics number."""
    return "isce/parameters/semantics.py", "", f'\nCHANGES["{part}"] = ["other"] * 9\n'


RAISED = [
    ("objective.isce-released", RELEASED),
    ("objective.cosface", set()),
    ("network.small-cnn", EVERYTHING),
    ("network.lenet", set()),
    ("train", EVERYTHING),
    ("attack.pgd", ATTACKS),
    ("attack.cw", set()),
    ("attack", ATTACKS),
    ("minmax", MINMAX),
]


@pytest.mark.parametrize(("part", "due"), RAISED)
def test_a_raised_semantics_number_makes_due_what_uses_the_part(project, monkeypatch, part, due):
    monkeypatch.setitem(semantics.CHANGES, part, ["other"] * 9)
    assert project.planned() == {job for job in due if job != "tables"}


CHANGES = [
    ("isce/losses/released.py", "", CODE, set()),
    ("experiments/tiny.yaml", "epochs: 2", "epochs: 3", EVERYTHING),
    ("experiments/tiny.yaml", "images: 30", "images: 31", ATTACKS),
    ("experiments/suites/tiny.yaml", "steps: 3", "steps: 4", ATTACKS),
    ("experiments/tiny.yaml", "seeds:\n- 0\n", "seeds:\n- 0\n- 1\n", SEED_1),
]


@pytest.mark.parametrize(("name", "old", "new", "due"), CHANGES)
def test_change_makes_due_what_it_touches_and_nothing_else(project, name, old, new, due):
    project.change(name, old, new)
    assert project.planned() == {job for job in due if job != "tables"}


@pytest.mark.parametrize(
    ("name", "old", "new", "due"),
    [(*raised("objective.isce-released"), RELEASED), ("isce/report/plots/runs.py", "", CODE, {"tables"})],
)
def test_snakemake_runs_what_the_dry_run_says(project, name, old, new, due):
    project.change(name, old, new)
    assert set(project.due()) == due
    code, out, err = project.reproduce()
    assert code == 0, out + err
    done = {" ".join(line.split("]")[1].split()[0:3:2]) for line in out.splitlines() if line.startswith("[")}
    assert done | {"tables"} == due
    assert project.due() == []


@pytest.mark.parametrize("state", ["done", "changed", "damaged", "killed", "no build"])
def test_dry_run_writes_nothing(project, state):
    attack = project.runs / "attack" / "sce-s0"
    if state == "changed":
        project.change("experiments/tiny.yaml", "epochs: 2", "epochs: 3")
    elif state == "damaged":
        (attack / "record.json").write_text("{}")
    elif state == "killed":
        (attack / "notebook.sha256").unlink()
        begun = project.root / "build" / "book" / "_build" / ".begun"
        begun.parent.mkdir(parents=True)
        begun.touch()
    elif state == "no build":
        shutil.rmtree(project.root / "build")

    def tree():
        paths = [project.root, *project.root.rglob("*")]
        return {path: path.stat().st_mtime_ns for path in paths if "__pycache__" not in str(path)}

    project.reproduce("--dry-run")  # Python writes its own cache where it imports
    before = tree()
    code, out, err = project.isce("reproduce", "--experiment", "tiny", "--dry-run")
    assert code == 0, out + err
    assert tree() == before
    due = {"done": set(), "changed": EVERYTHING, "no build": EVERYTHING}.get(state, {"attack sce-s0", "tables"})
    assert {line.removeprefix("would run: ") for line in out.splitlines() if line.startswith("would")} == due | {"book"}


EXPLAIN = "explain:\n  gallery: tiny\n  objectives: [isce-released]\n  images: 30\n  steps: 2\n  gallery_images: 2\n"


def test_explain_runs_that_are_asked_for_are_added_to_what_is_done(project):
    project.change("experiments/tiny.yaml", "", EXPLAIN)
    assert project.planned() == {"explain isce-released-s0"}


@pytest.mark.full
def test_explain_run_ends_in_a_record_that_is_reported_and_adopted(real):
    project = real
    project.change("experiments/tiny.yaml", "", EXPLAIN)
    code, out, err = project.reproduce()
    assert code == 0, out + err
    assert project.due() == []
    assert (project.root / "build/report/tiny/charts/gallery.png").is_file()
    code, out, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 0, out + err
    assert {p.name for p in (project.root / "results/tiny/explain/isce-released-s0").iterdir()} == {
        "record.json",
        "explain.safetensors",
    }


def test_executed_notebooks_of_the_run_that_is_shown_are_reported_and_adopted(project):
    project.change("experiments/tiny.yaml", "", "shown: sce-s0\n")
    assert project.planned() == set(), "what is shown reruns nothing"
    records_folder, out = project.root / "build" / "runs", project.root / "build" / "shown"
    code, printed, err = project.isce("report", "tiny", "--records", str(records_folder), "--out", str(out))
    assert code == 0, printed + err
    about = {kind: json.loads((out / f"tiny/notebooks/{kind}.json").read_text()) for kind in KINDS}
    assert {found["run"] for found in about.values()} == {"sce-s0"}
    assert about["train"]["sources"] == ["tiny/train/sce-s0/record.json"]
    code, printed, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 0, printed + err
    kept = sorted((project.root / "results" / "tiny").glob("*/*/notebook.ipynb"))
    assert [path.parent.name for path in kept] == ["sce-s0"] * len(KINDS)
    assert not any(str(project.root) in path.read_text() for path in kept)
    assert all(path.with_suffix(".sha256").read_text() == sha256(path) for path in kept)


def test_change_that_is_taken_back_costs_no_run(project):
    project.change("experiments/tiny.yaml", "epochs: 2", "epochs: 3")
    assert project.planned() == EVERYTHING - {"tables"}
    workflow.plan("tiny", project.root / "build", project.root)
    params = project.record("train", "sce-s0").with_name("params.yaml")
    assert params.stat().st_mtime_ns > project.record("train", "sce-s0").stat().st_mtime_ns, "Snakemake would run it"
    project.change("experiments/tiny.yaml", "epochs: 3", "epochs: 2")
    workflow.plan("tiny", project.root / "build", project.root)
    assert project.planned() == set()
    assert params.stat().st_mtime_ns <= project.record("train", "sce-s0").stat().st_mtime_ns


@pytest.mark.parametrize(
    ("kind", "file", "due"),
    [
        ("attack", "record.json", {"attack isce-released-s0", "tables"}),
        pytest.param("train", "record.json", RELEASED, marks=pytest.mark.full),
        pytest.param("train", "last.safetensors", RELEASED, marks=pytest.mark.full),
        pytest.param("attack", "examples.safetensors", {"attack isce-released-s0", "tables"}, marks=pytest.mark.full),
    ],
)
def test_flipped_byte_is_named_and_mended_to_the_same_record(project, kind, file, due):
    path = project.runs / kind / "isce-released-s0" / file
    before = {k: records.read(project.record(k, "isce-released-s0")).content() for k in ("train", "attack")}
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 0x10
    stamp = path.stat().st_mtime_ns
    path.write_bytes(bytes(blob))
    os.utime(path, ns=(stamp, stamp))
    code, out, err = project.reproduce()
    assert code == 0, out + err
    assert f"build/runs/tiny/{kind}/isce-released-s0/{file}" in err
    assert "damaged" in err
    assert sum(line.startswith("[") for line in out.splitlines()) == len(due) - 1
    assert {k: records.read(project.record(k, "isce-released-s0")).content() for k in before} == before


@pytest.mark.full
def test_failed_run_is_named_and_the_others_are_kept(project):
    project.change("experiments/tiny.yaml", "epochs: 2", "epochs: 1")
    (project.runs / "train" / "isce-released-s0" / "notebook.ipynb").unlink()
    (project.runs / "train" / "isce-released-s0" / "notebook.ipynb").mkdir()
    code, out, err = project.reproduce()
    assert code == 1
    assert "isce: train tiny isce-released-s0" in err
    assert "finished runs are kept" in out
    assert records.read(project.record("attack", "sce-s0")).parameters["eps"] == [0.1, 0.2]
    (project.runs / "train" / "isce-released-s0" / "notebook.ipynb").rmdir()
    assert set(project.due()) == RELEASED


def test_two_at_once_are_refused(project):
    first = project.command("reproduce", "--experiment", "tiny", "--no-book", start_new_session=True)
    lock = project.root / "build" / ".lock"
    until(lambda: lock.exists() and f"process {first.pid} " in lock.read_text())
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        code, _, err = project.reproduce()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert code == 1
    assert f"another `make reproduce` (process {first.pid} on " in err
    assert project.due() == [], "the lock is free once its owner is dead"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce", "--experiment", "nonesuch"], "unknown experiment 'nonesuch'; known: cifar10, "),
        (["reproduce", "--experiment", "digits", "--profile", "nonesuch"], "unknown profile 'nonesuch'; known: local"),
        (["report", "digits", "--records", "nothing", "--out", "x"], "no attack record of digits"),
        (["compare", "--experiment", "digits"], "nothing to compare"),
        (["run", "train", "nothing.yaml"], "can't read nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(built, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(__main__, "ROOT", built[0].root)  # whose build folder has nothing of digits
    assert __main__.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_bad_value_in_an_experiment_file_starts_nothing(project):
    project.change("experiments/tiny.yaml", "epochs: 2", "epochs: -2")
    params = project.record("train", "sce-s0").with_name("params.yaml")
    before = params.read_bytes()
    with pytest.raises(ConfigError, match=r"epochs.*got -2"):
        workflow.plan("tiny", project.root / "build", project.root)
    assert params.read_bytes() == before


def test_adopted_records_compare_equal_and_a_changed_one_does_not(project):
    results = project.root / "results"
    code, out, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 0, err
    assert not list(results.rglob("last.safetensors")), "checkpoints stay in build/"
    assert len(list(results.rglob("record.json"))) == 6
    code, out, _ = project.isce("compare", "--experiment", "tiny")
    assert code == 0
    assert out.startswith("tiny: the reproduction agrees with the committed records.")
    path = results / "tiny" / "attack" / "sce-s0" / "record.json"
    record = records.read(path)
    record.results["clean"]["accuracy"] = 0.01
    record.save(path)
    code, out, _ = project.isce("compare", "--experiment", "tiny")
    assert code == 1
    assert out.startswith("tiny: the reproduction does not agree: the clean accuracy of SCE is ")


def test_committed_record_of_other_semantics_is_marked_stale(project):
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    report = ["report", "tiny", "--records", "results", "--out", "out"]

    def stale():
        assert project.isce(*report)[0] == 0
        numbers = json.loads((project.root / "out" / "tiny" / "numbers.json").read_text())
        return {name for name, number in numbers.items() if number["stale"]}

    assert stale() == set()
    project.change(*raised("objective.isce-released"))
    found = stale()
    assert "isce-released.clean" in found
    assert "sce.clean" not in found


def test_report_is_the_same_bytes_when_made_again(project):
    folder = project.root / "build" / "report" / "tiny"
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {
        "numbers.json",
        "results.csv",
        "robust.svg",
        "robust.pdf",
        "training.svg",
        "examples.svg",
        "coverage.svg",
    } <= set(before)
    code, _, err = project.isce("report", "tiny", "--records", "build/runs", "--out", "build/report")
    assert code == 0, err
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_numbers_are_those_of_the_records(built):
    project, _ = built
    numbers = json.loads((project.root / "build" / "report" / "tiny" / "numbers.json").read_text())
    record = records.read(project.record("attack", "sce-s0"))
    cell = record.results["threats"]["linf@0.1"]["attacks"]["pgd3-matched"]
    assert numbers["sce.attack:pgd3-matched@0.1"]["value"] == pytest.approx(100 * cell["accuracy"])
    assert numbers["sce.attack:pgd3-matched@0.1"]["source"] == ["tiny/attack/sce-s0/record.json"]
    assert numbers["n_images"]["value"] == 30


def test_params_file_is_what_papermill_gets(built):
    project, _ = built
    values = yaml.safe_load((project.runs / "train" / "sce-s0" / "params.yaml").read_text())
    assert values["key"] == records.read(project.record("train", "sce-s0")).key
    assert values["objective"] == {"name": "sce", "params": {}}


def test_adopt_refuses_what_is_stale_or_damaged(project):
    project.change(*raised("objective.isce-released"))
    code, _, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 1
    assert "train isce-released-s0: its record is of other parameters" in err
    assert not (project.root / "results").exists()


def test_adopt_refuses_attacks_on_a_network_that_was_trained_anew_since(project):
    """The same key, but other weights where the processor is another."""
    record = project.record("attack", "sce-s0")
    os.utime(record.with_name("record.json"), (1, 1))
    code, _, err = project.isce("adopt", "--experiment", "tiny")
    assert (code, "attack sce-s0: tiny/train/sce-s0 is newer" in err) == (1, True), err


def test_adopt_refuses_a_damaged_notebook(project):
    project.change("experiments/tiny.yaml", "", "shown: sce-s0\n")
    notebook = project.record("attack", "sce-s0").with_name("notebook.ipynb")
    notebook.write_text(notebook.read_text().replace('"execution_count": 1', '"execution_count": 2', 1))
    code, _, err = project.isce("adopt", "--experiment", "tiny")
    assert (code, "notebook.ipynb is damaged" in err) == (1, True), err


def test_what_is_done_can_be_adopted_run_by_run(project):
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    project.change(*raised("objective.isce-released"))
    results = project.root / "results" / "tiny"
    shutil.copytree(results / "attack" / "sce-s0", results / "attack" / "retired-s0")
    before = {path: path.stat().st_mtime_ns for path in results.rglob("record.json")}
    code, out, err = project.isce("adopt", "--experiment", "tiny", "--partial")
    assert code == 0, err
    assert "3 of 6 records of tiny" in out
    changed = {path.parent.name for path, stamp in before.items() if path.exists() and path.stat().st_mtime_ns != stamp}
    assert changed == {"sce-s0"}
    assert (results / "attack" / "isce-released-s0" / "record.json").exists(), "stale, but the only one there is"
    assert not (results / "attack" / "retired-s0").exists(), "of no run of the experiment"
    assert project.isce("report", "tiny", "--records", "results", "--out", "out")[0] == 0
    drawn = project.root / "out" / "tiny" / "plots" / "robust.svg"
    assert (results / "robust.svg").read_bytes() == drawn.read_bytes(), "drawn from what is committed, not from build/"


def test_flag_and_diverged_training_reach_the_tables(project):
    for kind, run, flag in (("train", "sce-s0", "diverged"), ("attack", "isce-released-s0", "rejected")):
        record = records.read(project.record(kind, run))
        record.flags[flag] = "made up for this test"
        record.save(project.record(kind, run))
    assert project.isce("report", "tiny", "--records", "build/runs", "--out", "out")[0] == 0
    folder = project.root / "out" / "tiny"
    assert "sce.clean" not in json.loads((folder / "numbers.json").read_text())
    assert "isce-released.clean" in json.loads((folder / "numbers.json").read_text())
    caption = json.loads((folder / "tables" / "results.json").read_text())["caption"]
    assert caption.endswith(" 2 checks need attention."), "a flag that nobody knows is serious"
    table = json.loads((folder / "tables" / "flags.json").read_text())
    assert ["train sce-s0", "diverged", "serious", "made up for this test"] in table["rows"]
    assert "attack isce-released-s0: rejected" in (folder / "flags.txt").read_text()


def test_report_of_all_leaves_out_what_is_no_experiment(project):
    (project.root / "build" / "runs" / ".DS_Store").write_text("x")
    shutil.copytree(project.runs, project.runs.parent / "retired")
    code, _, err = project.isce("report", "--records", "build/runs", "--out", "out")
    assert code == 0, err
    assert "retired holds records of an experiment that has no file" in err
    assert [path.name for path in (project.root / "out").iterdir()] == ["tiny"]
