"""Chromium without a window and without a network: it prints the book, and the tests look at its pages with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright

from isce.strict import ConfigError

VARIABLE = "ISCE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def chromium() -> str:
    """The browser to use: what ``ISCE_CHROMIUM`` names, else Chromium or Chrome from the path.

    Raises:
        ConfigError: there is none; the message says what to install.
    """
    if named := os.environ.get(VARIABLE):
        if shutil.which(named) is None:
            raise ConfigError(f"{VARIABLE} names {named!r}, which is no program")
        return named
    for name in (*NAMES, str(MAC)):
        if found := shutil.which(name):
            return found
    raise ConfigError(
        "no Chromium or Chrome found: install one (Debian: `apt-get install chromium`; macOS: Google Chrome) or let "
        f"{VARIABLE} name its program"
    )


@contextmanager
def offline_browser() -> Generator[BrowserContext]:
    """A fresh profile of a headless browser that can open files, and nothing else.

    Raises:
        ConfigError: there is no browser.
    """
    program = chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program)
        try:
            yield browser.new_context(offline=True, reduced_motion="reduce")
        finally:
            browser.close()
