"""Killed processes, a full disk, a folder that can't be written, flipped bytes, a training that diverges.

Whatever happens, nothing that is finished is lost, the error is one clear line, and running again ends in the records
of a run that nothing happened to.
"""

import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import stub_project
import yaml

from isce.files import ROOT
from isce.runs import plan as workflow
from isce.runs import records

RUNS = ["sce-s0", "isce-released-s0"]
TWENTY_KILLS = 20
WITH_BOOK = ("reproduce", "--experiment", "tiny", "--jobs", "2")
WITHOUT_BOOK = (*WITH_BOOK, "--no-book")
DISK = 16 * 2**20


# --- kill -9


def test_killed_at_random_moments_it_ends_in_the_same_records(project):
    _kill_and_go_on(project, 2, most=20, until="train")


@pytest.mark.full
def test_killed_at_many_random_moments_it_ends_in_the_same_records(real):
    _kill_and_go_on(real, TWENTY_KILLS, most=150)
    assert real.planned() == set()


def _kill_and_go_on(project, kills, most, until=None):
    """Kill `make reproduce` at moments up to its ``most``-th change of a file; it then ends in the same records."""
    command = (*WITHOUT_BOOK, *(["--until", until] if until else []))
    before = {run: content for run, content in project.contents().items() if until in (None, run[0])}
    moments = random.Random(kills)
    whole = 0
    shutil.rmtree(project.root / "build")
    for _ in range(kills):
        if _killed(project, changes=moments.randint(1, most), pause=moments.uniform(0, 0.2), command=command):
            whole += 1  # it was done before its time had come: everything once more
            assert project.contents(before) == before
            shutil.rmtree(project.root / "build")
        for path in project.runs.rglob("record.json"):
            records.read(path)  # absent or whole, never a part
    code, out, err = project.isce(*command)
    assert code == 0, out + err
    assert project.contents(before) == before
    assert whole < kills


@pytest.mark.full
def test_killed_at_random_moments_with_the_book_it_ends_in_the_same_records_and_pages(real):
    project = real
    left_out = shutil.ignore_patterns(".*", "build", "_build", "__pycache__", "runs", "data")
    shutil.copytree(ROOT, project.root, ignore=left_out, dirs_exist_ok=True)
    before, moments = project.contents(), random.Random(1)
    code, out, err = project.isce(*WITH_BOOK)
    assert code == 0, out + err
    pages = _pages(project)
    shutil.rmtree(project.root / "build")
    whole = 0
    for _ in range(TWENTY_KILLS):
        if _killed(project, changes=moments.randint(1, 900), pause=moments.uniform(0, 0.2), command=WITH_BOOK):
            whole += 1
            shutil.rmtree(project.root / "build")
    code, out, err = project.isce(*WITH_BOOK)
    assert code == 0, out + err
    assert project.contents() == before
    assert _pages(project) == pages
    assert whole < TWENTY_KILLS


def _pages(project):
    """The pages of the book, each of which ends as a page ends; ``index.html`` only leads to the first."""
    html = project.root / "build" / "book" / "_build" / "html"
    found = {path.relative_to(html).as_posix() for path in html.rglob("*.html")}
    found = {page for page in found if not page.startswith("_static/")}
    assert {"index.html", "intro.html", "verdict.html"} <= found
    broken = [page for page in sorted(found) if not (html / page).read_text().rstrip().endswith("</html>")]
    assert broken == ["index.html"]
    return found


def _killed(project, changes, pause, command=WITHOUT_BOOK):
    """Kill `make reproduce` with all its children once so many files below build/ are new or changed.

    The moment hangs on the progress of the work and not on a clock, so that it is spread over all of it on any machine.

    Returns:
        Whether it was done before.
    """
    process = project.command(*command, start_new_session=True)
    try:
        seen, number = _stamps(project.root / "build"), 0
        while number < changes and process.poll() is None:
            time.sleep(0.01)
            now = _stamps(project.root / "build")
            number += len(now - seen)
            seen = now
        time.sleep(pause)
    finally:
        done = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # kernels have sessions of their own; they end within a second
    out, err = process.communicate()
    assert not done or process.returncode == 0, out + err
    return done


def _stamps(folder):
    found = set()
    for parent, _, files in os.walk(folder):  # goes on where a folder vanishes, unlike `rglob`
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118  thousands of files, again and again
                found.add((parent, name, status.st_mtime_ns, status.st_ino))
    return found


def test_snakemake_that_outlives_a_killed_command_keeps_others_out(project):
    project.record("attack", "sce-s0").unlink()
    notebook = project.runs / "attack" / "sce-s0" / "notebook.ipynb"
    notebook.unlink()
    (project.root / "hold").touch()  # the stub waits until this test is over
    process = project.command("reproduce", "--experiment", "tiny", "--no-book", start_new_session=True)
    stub_project.until(notebook.exists)
    process.kill()  # and none of its children
    process.wait()
    try:
        code, _, err = project.reproduce()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert code == 1
    assert "another `make reproduce`" in err


# --- a full disk


def _mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here ({done.stderr.strip()})")


@pytest.fixture
def disk(project):
    """A small file system of its own below build/, with all that was there; filled by :func:`_fill`."""
    if os.geteuid():
        pytest.skip("only root may mount the small file system that this test fills")
    build = project.root / "build"
    shutil.move(build, project.root / "former")
    build.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", build)
    try:
        shutil.copytree(project.root / "former", build, dirs_exist_ok=True)
        yield build
    finally:
        subprocess.run(["umount", "--lazy", build], check=True)


def _fill(disk, leave):
    """Fill a disk up to so many bytes; removing the file that it returns makes room again."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        file.write(bytes(free - leave))
    return filler


def _one_line_each(err, *, runs):
    """The error output is one line of `isce` for each failed run, which names it, and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("isce: ")]
    assert len(lines) == len(set(lines))
    assert "Traceback" not in err
    assert {" ".join(line.split()[1:4]).rstrip(":") for line in lines} <= runs
    return lines


def test_full_disk_at_the_start_is_one_line_and_costs_nothing(project, disk):
    project.change("experiments/tiny.yaml", "epochs: 2", "epochs: 3")
    filler = _fill(disk, leave=0)
    code, _, err = project.reproduce()
    assert code == 1
    (line,) = err.strip().splitlines()
    assert "No space left on device" in line
    assert str(project.root / "build") in line
    filler.unlink()
    project.change("experiments/tiny.yaml", "epochs: 3", "epochs: 2")
    assert project.planned() == set()


def test_full_disk_in_a_run_is_one_line_and_the_run_is_mended_by_running_again(project, disk):
    before = project.contents()
    folder = project.runs / "train" / "sce-s0"
    for path in folder.iterdir():
        if path.name != "params.yaml":
            path.unlink()
    filler = _fill(disk, leave=2**20)
    run = ["run", "train", str(folder / "params.yaml")]
    code, _, err = project.isce(*run)
    assert code == 1
    (line,) = _one_line_each(err, runs={"train tiny sce-s0"})
    assert "No space left on device" in line
    assert not (folder / "record.json").exists()
    filler.unlink()
    code, out, err = project.isce(*run)
    assert code == 0, out + err
    assert project.contents() == before


@pytest.mark.full
@pytest.mark.parametrize(("kind", "leave"), [("train", 2**20), ("attack", 2**16), ("minmax", 2**12)])
def test_full_disk_while_an_experiment_runs(project, disk, kind, leave):
    before = project.contents()
    for run in RUNS:
        for path in (project.runs / kind / run).iterdir():
            if path.name != "params.yaml":
                path.unlink()
    others = {p: p.read_bytes() for p in project.runs.rglob("record.json")}
    filler = _fill(disk, leave)
    code, out, err = project.reproduce()
    assert code == 1
    assert "finished runs are kept, run again to go on" in out
    lines = _one_line_each(err, runs={f"{kind} tiny {run}" for run in RUNS})
    assert lines
    assert all("No space left on device" in line for line in lines)
    assert {p: p.read_bytes() for p in others} == others
    filler.unlink()
    code, out, err = project.reproduce()
    assert code == 0, out + err
    assert project.contents() == before


def test_full_disk_leaves_the_committed_records_as_they_were(project, disk):
    (disk / "results").mkdir()
    (project.root / "results").symlink_to(disk / "results")
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    before = {p: p.read_bytes() for p in (disk / "results").rglob("*") if p.is_file()}
    filler = _fill(disk, leave=2**13)
    code, _, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 1
    assert "No space left on device" in err
    assert {p: p.read_bytes() for p in (disk / "results").rglob("*") if p.is_file()} == before
    filler.unlink()
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    assert {p: p.read_bytes() for p in (disk / "results").rglob("*") if p.is_file()} == before


# --- a folder that can't be written


@contextlib.contextmanager
def _read_only(folder):
    if os.geteuid():
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    _mount("--bind", folder, folder)  # to root permissions say nothing
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_build_folder_that_cannot_be_written_is_one_line(project):
    project.change("experiments/tiny.yaml", "epochs: 2", "epochs: 3")
    with _read_only(project.root / "build"):
        code, _, err = project.reproduce()
    assert code == 1
    (line,) = err.strip().splitlines()
    assert str(project.root / "build") in line
    project.change("experiments/tiny.yaml", "epochs: 3", "epochs: 2")
    assert project.planned() == set()


def test_results_that_cannot_be_written_stay_as_they_were(project):
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    results = project.root / "results"
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    with _read_only(results):
        code, _, err = project.isce("adopt", "--experiment", "tiny")
    assert code == 1
    (line,) = err.strip().splitlines()
    assert str(results) in line
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0  # it can be written again
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", ["train", pytest.param("attack", marks=pytest.mark.full)])
def test_run_that_cannot_be_written_is_named_and_mended_by_running_again(project, kind):
    before = project.contents()
    folder = project.runs / kind / "sce-s0"
    project.record(kind, "sce-s0").unlink()
    with _read_only(folder):
        code, _, err = project.reproduce()
    assert code == 1
    assert err.strip() == f"isce: {folder} can't be written"
    if kind == "train":  # a whole chain to run again: only its plan
        assert project.planned() == {f"{later} sce-s0" for later in ("train", "attack", "minmax")}
        return
    code, out, err = project.reproduce()
    assert code == 0, out + err
    assert project.contents() == before


# --- flipped bytes (those of record, checkpoint and examples are mended in test_reproduce.py)


def _flip(path):
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 0x10
    stamp = path.stat().st_mtime_ns
    path.write_bytes(bytes(blob))
    os.utime(path, ns=(stamp, stamp))


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("train", "record.json"),
        ("train", "best.safetensors"),
        ("train", "last.safetensors"),
        ("train", "notebook.ipynb"),
        ("attack", "record.json"),
        ("attack", "examples.safetensors"),
        ("attack", "robust.safetensors"),
        ("attack", "notebook.ipynb"),
        ("minmax", "record.json"),
        ("minmax", "notebook.ipynb"),
    ],
)
def test_flipped_byte_is_named_and_its_run_is_due(project, capsys, kind, file):
    _flip(project.runs / kind / "sce-s0" / file)
    after = {"train": {"train", "attack", "minmax"}, "attack": {"attack"}, "minmax": {"minmax"}}
    assert project.planned() == {f"{later} sce-s0" for later in after[kind]}
    workflow.plan("tiny", project.root / "build", project.root)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{kind} tiny sce-s0: ")
    assert str(project.runs / kind / "sce-s0" / file) in line
    assert "damaged" in line
    assert "it will be run again" in line


@pytest.mark.full
def test_damaged_notebook_is_mended_to_the_same_record(project):
    before = project.contents()
    notebook = project.runs / "minmax" / "sce-s0" / "notebook.ipynb"
    _flip(notebook)
    code, out, err = project.reproduce()
    assert code == 0, out + err
    assert f"{notebook.relative_to(project.root)} is damaged" in err
    assert project.contents() == before
    assert project.due() == []


@pytest.mark.full
def test_damaged_data_file_is_named_and_mended_by_a_good_one(project, tmp_path, monkeypatch):
    raw = Path(os.environ.get("ISCE_DATA") or "data") / "MNIST" / "raw"
    if len(list(raw.glob("*.gz"))) < 4:
        pytest.skip(f"needs MNIST's four files in {raw}; ISCE_DATA names the folder that holds MNIST")
    copy = tmp_path / "data" / "MNIST" / "raw"
    shutil.copytree(raw, copy, ignore=lambda _, names: [name for name in names if not name.endswith(".gz")])
    monkeypatch.setenv("ISCE_DATA", str(tmp_path / "data"))
    params = project.root / "build" / "runs" / "other" / "train" / "mnist-s0" / "params.yaml"
    params.parent.mkdir(parents=True)
    params.write_text(yaml.safe_dump({"key": "k", "dataset": "mnist", "epochs": 1, "train_images": 100}))
    for damaged in sorted(copy.iterdir()):
        _flip(damaged)
        code, _, err = project.isce("run", "train", str(params))
        assert code == 1
        (line,) = _one_line_each(err, runs={"train other mnist-s0"})
        assert str(damaged) in line
        assert "MNIST is damaged" in line
        assert not (params.parent / "record.json").exists()
        _flip(damaged)  # the same bit: whole again
        assert gzip.decompress(damaged.read_bytes())
    code, out, err = project.isce("run", "train", str(params))
    assert code == 0, out + err


# --- a training that diverges


@pytest.mark.full
def test_training_that_diverges_says_so_and_the_others_go_on(real):
    project = real
    before = project.contents()
    broken = "- name: isce\n  params:\n    inference: 1.0e+38\n"  # its loss overflows float32
    project.change("experiments/tiny.yaml", "- name: isce-released\n", f"- name: isce-released\n{broken}")
    code, out, err = project.reproduce()
    assert code == 0, out + err
    after = project.contents()
    assert {name: after[name] for name in before} == before
    ((_, run),) = {name for name in after if name[0] == "train"} - set(before)
    record = records.read(project.record("train", run))
    assert record.flags["diverged"] == "train_loss is inf in epoch 1 of 2"
    assert record.results["validation_accuracy"] is None
    assert f"train {run}: diverged (train_loss is inf in epoch 1 of 2)" in out.partition("RED FLAGS")[2]
    numbers = json.loads((project.root / "build" / "report" / "tiny" / "numbers.json").read_text())
    assert {name.partition(".")[0] for name in numbers if name.endswith(".clean")} == {"sce", "isce-released"}
    tables = project.root / "build" / "report" / "tiny" / "tables"
    assert " 1 check needs attention." in json.loads((tables / "results.json").read_text())["caption"]
    rows = json.loads((tables / "flags.json").read_text())["rows"]
    assert [f"train {run}", "diverged", "serious", "train_loss is inf in epoch 1 of 2"] in rows
