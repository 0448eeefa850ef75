"""The publishing workflow: well-formed, off until a maintainer switches it on, and true to the Makefile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isce.files import ROOT

PATH = ROOT / ".github" / "workflows" / "publish.yml"
WORKFLOW = yaml.safe_load(PATH.read_text(encoding="utf-8"))
JOBS = WORKFLOW["jobs"]
SCRIPTS = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


def schema_errors(path: Path) -> str:
    """What GitHub's own schema of workflows, which the checker ships, has against a file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_workflow_obeys_githubs_schema():
    assert schema_errors(PATH) == ""


def test_a_workflow_that_does_not_is_found(tmp_path: Path):
    (tmp_path / "w.yml").write_text(PATH.read_text(encoding="utf-8").replace("runs-on:", "runs_on:", 1))
    assert "runs-on" in schema_errors(tmp_path / "w.yml")


def test_it_runs_by_hand_tests_before_it_publishes_and_writes_nowhere_else():
    """YAML 1.1 reads the key ``on`` as true."""
    assert set(WORKFLOW[True]) == {"workflow_dispatch"}
    publishing = {name for name, job in JOBS.items() if "permissions" in job}
    assert publishing == {"pages", "release"}
    assert all(set(JOBS[name]["needs"]) == {"test", "book"} for name in publishing)
    assert WORKFLOW["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_shell(script: str):
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {name for script in SCRIPTS for name in re.findall(r"\bmake ([\w-]+)", script)}
    assert targets == {"test-full", "pdf"}
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in targets)


def test_a_release_has_checksums_of_what_it_holds(tmp_path: Path):
    """The gathering script, run on a small repository with a rendered book."""
    (gather,) = (script for script in SCRIPTS if "SHA256SUMS" in script and "git archive" in script)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "isce"\nversion = "1.2.3"\n')
    (tmp_path / "book" / "_build" / "html").mkdir(parents=True)
    (tmp_path / "book" / "_build" / "html" / "index.html").write_text("book")
    (tmp_path / "book" / "_build" / "isce.pdf").write_text("pdf")
    (tmp_path / "checkpoints" / "digits").mkdir(parents=True)
    (tmp_path / "checkpoints" / "digits" / "sce-s0.safetensors").write_text("weights")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (["init", "-q"], ["add", "pyproject.toml"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", gather], cwd=tmp_path, check=True)
    names = [line.split()[1] for line in (tmp_path / "release" / "SHA256SUMS").read_text().splitlines()]
    assert names == [
        "digits.sce-s0.safetensors",
        "isce-1.2.3-book.pdf",
        "isce-1.2.3-book.tar.gz",
        "isce-1.2.3-source.tar.gz",
    ]
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "release", check=False)
    assert checked.returncode == 0
