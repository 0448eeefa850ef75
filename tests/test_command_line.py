"""Bad arguments of ``python -m isce``: one line that names the value and what is allowed, before any work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isce.__main__ import main
from isce.files import ROOT
from isce.runs import execution, home
from isce.strict import ConfigError

HERE, NOWHERE = "results", "/nonexistent/folder"
BOOK = ["--records", HERE, "--out", NOWHERE]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required: command"]),
        (["nonesuch"], ["'nonesuch'", "'reproduce', 'run'"]),
        (["reproduce", "--experiment", "nonesuch"], ["unknown experiment 'nonesuch'; known: ", "digits"]),
        (["reproduce", "--profile", "nonesuch"], ["unknown profile 'nonesuch'; known: local, slurm"]),
        (["reproduce", "--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N", "'gpu'"]),
        (["reproduce", "--device", "gpu", "--dry-run"], ["device must be auto, cpu, cuda or cuda:N", "'gpu'"]),
        (["reproduce", "--device", "cuda:99"], ["device 'cuda:99' asked for, but torch", "sees"]),
        (["reproduce", "--jobs", "0"], ["--jobs: must be a whole number from 1, got 0"]),
        (["reproduce", "--jobs", "many"], ["--jobs: must be a whole number from 1, got many"]),
        (["reproduce", "--until", "attack"], ["--until: invalid choice: 'attack'", "'train'"]),
        (["run", "nonesuch", "params.yaml"], ["'nonesuch'", "'train', 'attack'"]),
        (["run", "train", NOWHERE], [f"can't read {NOWHERE}: No such file"]),
        (["run", "train", "params.yaml", "--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N", "'gpu'"]),
        (["run", "train", "params.yaml", "--device", "cuda:99"], ["device 'cuda:99' asked for, but torch", "sees"]),
        (["report"], ["required: --records, --out"]),
        (["report", "--records", NOWHERE, "--out", NOWHERE], ["no attack record of any experiment", NOWHERE]),
        (
            ["report", "digits", "--records", NOWHERE, "--out", NOWHERE],
            ["no attack record of digits:", NOWHERE],
        ),
        (["book", "--source", NOWHERE, "--report", HERE, *BOOK], [f"{NOWHERE}/_toc.yml is not there (--source)"]),
        (["book", "--report", NOWHERE, *BOOK], [f"{NOWHERE} is not there (--report)"]),
        (["links", "--report", NOWHERE, *BOOK], [f"{NOWHERE} is not there (--report)"]),
        (["book", "--report", HERE, "--records", NOWHERE, "--out", HERE], [f"{NOWHERE} is not there (--records)"]),
        (["pdf", "--book", NOWHERE], [f"no rendered book in {NOWHERE}: `make book` first"]),
        (["compare", "--experiment", "nonesuch"], ["unknown experiment 'nonesuch'; known: "]),
        (["compare", "--experiment", "released"], ["no attack record of 'released' in", "EXPERIMENT=released"]),
        (["adopt", "--experiment", "nonesuch"], ["unknown experiment 'nonesuch'; known: "]),
        (
            ["adopt", "--experiment", "released", "--results", NOWHERE],
            ["there is no record", "EXPERIMENT=released` first"],
        ),
        (["verify", NOWHERE], [f"can't read record {NOWHERE}/record.json: No such file"]),
    ],
)
def test_it_is_one_line(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert code in (1, 2)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("isce: ")
    assert all(word in line for word in words), line


def test_folders_of_other_programs_are_in_the_home_where_it_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    for name in home.FOLDERS:
        monkeypatch.delenv(name, raising=False)
    home.use_writable_folders(tmp_path / "instead")
    assert [name for name in home.FOLDERS if name in os.environ] == []


def test_folders_of_other_programs_that_cannot_be_made_are_put_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "home").touch()  # not even root can make a folder in a file
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in home.FOLDERS:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("IPYTHONDIR", "/as/it/was")
    home.use_writable_folders(tmp_path / "instead")
    found = {name: os.environ[name] for name in home.FOLDERS}
    assert found.pop("IPYTHONDIR") == "/as/it/was"
    assert found == {name: str(tmp_path / "instead" / home.FOLDERS[name]) for name in found}


def test_parameter_that_a_notebook_does_not_know_fails_papermill_s_command(tmp_path):
    command = [sys.executable, "-m", "papermill", "notebooks/train.ipynb", str(tmp_path / "out.ipynb")]
    command += ["-p", "epoch", "3", "-p", "folder", str(tmp_path / "run"), "--no-progress-bar"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ConfigError: notebook parameters: unknown parameter 'epoch'; known: " in done.stderr
    assert not (tmp_path / "run").exists()


def test_parameters_outside_of_a_plan_are_named(monkeypatch):
    monkeypatch.setattr(execution, "read_params", lambda path: {"key": "0"})
    with pytest.raises(ConfigError, match=r"/params\.yaml must lie in a folder EXPERIMENT/KIND/RUN"):
        execution.execute("train", Path("/params.yaml"), "cpu")
