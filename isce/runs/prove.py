"""Prove that a change of the code changes no result: the same runs by the old code and by the new, byte for byte.

Bits are equal on one machine with one set of packages, so both trees run here and now.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from isce.files import ROOT, sha256
from isce.runs.records import read_all
from isce.strict import ConfigError


def prove(base: str, experiment: str, build: Path, root: Path = ROOT) -> dict[str, str]:
    """Run an experiment by the code of a commit and by the code as it stands, and compare records and side files.

    Args:
        base: the commit.
        experiment: a file of ``experiments/``, the same in both trees.
        build: folder for both trees; what it held before is removed.
        root: the project's folder, a git repository.

    Returns:
        For each run, such as ``attack/sce-s0``, what differs; empty where nothing does.

    Raises:
        ConfigError: not a repository, an unknown commit, or an experiment that does not end in one of the trees.
    """
    shutil.rmtree(build, ignore_errors=True)
    old, new = build / "old", build / "new"
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    for name in filter(None, listed):
        if (root / name).is_file():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, new / name)
    old.mkdir(parents=True)
    archive = _git(root, "archive", "--format=tar", base)
    subprocess.run(["tar", "-x", "-C", str(old)], input=archive, check=True)  # noqa: S603, S607
    for tree in (old, new):
        print(f"{experiment} by the code in {tree}", flush=True)  # noqa: T201
        _run(tree, experiment)
    return _compare(*(tree / "build" / "runs" / experiment for tree in (old, new)))


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        raise ConfigError(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


def _run(tree: Path, experiment: str) -> None:
    data = str(Path(os.environ.get("ISCE_DATA", "data")).resolve())
    command = [sys.executable, "-m", "isce", "reproduce", "--no-book", "--experiment", experiment]
    environment = os.environ | {"ISCE_DATA": data, "PYTHONPATH": str(tree)}
    if subprocess.call(command, cwd=tree, env=environment):  # noqa: S603
        raise ConfigError(f"{experiment} does not end by the code in {tree}; see above")


def _compare(old: Path, new: Path) -> dict[str, str]:
    """What differs between two folders of runs, by run; provenance and keys aside."""
    sides = [{path.parent.relative_to(side).as_posix(): path for path in read_all(side)} for side in (old, new)]
    found: dict[str, str] = {}
    for run in sorted({*sides[0], *sides[1]}):
        if not (run in sides[0] and run in sides[1]):
            found[run] = "runs on one side alone"
            continue
        contents = [read_all(side[run].parent)[side[run]].content() for side in sides]
        names = [name for name in contents[0] if name != "key" and contents[0][name] != contents[1].get(name)]
        files = sorted({name for content in contents for name in content["files"]})
        names += [name for name in files if not _same(*(side[run].with_name(name) for side in sides))]
        found[run] = ", ".join(names)
    return found


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and sha256(one) == sha256(other)
