"""The book, built once from the committed records, and a browser to look at it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isce.files import ROOT
from isce.publish import browser
from isce.strict import ConfigError


@pytest.fixture(scope="session")
def run() -> Callable[..., None]:
    """Runs one command of the package; what it printed is shown if it fails."""

    def command(*arguments: str | Path) -> None:
        line = [sys.executable, "-m", "isce", *map(str, arguments)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return command


@pytest.fixture(scope="session")
def book(run: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the rendered book."""
    folder = tmp_path_factory.mktemp("book")
    run("report", "--records", ROOT / "results", "--out", folder / "report")
    run("book", "--report", folder / "report", "--records", ROOT / "results", "--out", folder)
    return folder / "_build" / "html"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program; without one these tests are skipped, with what to install."""
    try:
        return browser.chromium()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def context(chromium: str):
    """A browser's context, without a network."""
    with browser.offline_browser() as opened:
        yield opened
