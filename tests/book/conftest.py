"""The book, built once from the committed records, and a browser to look at it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isce.browser import chromium, offline_browser
from isce.config import ROOT, ConfigError


def run(*arguments: str | Path) -> None:
    """One command of the package; what it printed is shown if it fails."""
    command = [sys.executable, "-m", "isce", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered book."""
    folder = tmp_path_factory.mktemp("book")
    run("report", "--records", ROOT / "results", "--out", folder / "report")
    run("book", "--report", folder / "report", "--records", ROOT / "results", "--out", folder)
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def context():
    """A browser's context, without a network."""
    try:
        chromium()
    except ConfigError as error:
        pytest.skip(str(error))
    with offline_browser() as opened:
        yield opened
