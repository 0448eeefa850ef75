"""Finding a browser: what is named, else what is on the path, else one error that says what to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from isce.publish import browser
from isce.strict import ConfigError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path with one folder, empty so far, and no browser named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    monkeypatch.setattr(browser, "MAC", tmp_path / "none")
    return tmp_path


def install(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def test_the_path_is_searched_in_order(programs: Path):
    chrome = install(programs, "google-chrome")
    assert browser.chromium() == chrome
    chromium = install(programs, "chromium")
    assert browser.chromium() == chromium


def test_what_is_named_comes_first_and_must_be_a_program(programs: Path, monkeypatch: pytest.MonkeyPatch):
    install(programs, "chromium")
    monkeypatch.setenv(browser.VARIABLE, install(programs, "own"))
    assert browser.chromium() == str(programs / "own")
    monkeypatch.setenv(browser.VARIABLE, "/none/chrome")
    with pytest.raises(ConfigError, match="ISCE_CHROMIUM names '/none/chrome'"):
        browser.chromium()


def test_without_any_it_says_what_to_install(programs: Path):
    with pytest.raises(ConfigError, match="apt-get install chromium"):
        browser.chromium()
