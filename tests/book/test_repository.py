"""Buttons and launch links: there when the repository's address is set, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from sphinx.errors import ConfigError

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from isce_repository import BUTTONS, TOOLTIPS, configure, launches

REPOSITORY = {"branch": "stable", "path_to_book": "book"}
ADDRESS = "https://github.com/someone/isce"


def write_config(folder: Path, url: str) -> None:
    (folder / "_config.yml").write_text(yaml.safe_dump({"repository": REPOSITORY | {"url": url}}))


def configured(folder: Path, url: str) -> SimpleNamespace:
    write_config(folder, url)
    config = SimpleNamespace(html_theme_options={"show_navbar_depth": 1})
    configure(SimpleNamespace(srcdir=folder), config)
    return config


def test_buttons_are_there_with_an_address_alone(tmp_path: Path):
    for url in ("", ADDRESS):
        config = configured(tmp_path, url)
        assert [config.html_theme_options[name] for name in BUTTONS] == [bool(url)] * 3
        found = launches(*config.isce_repository, "notebooks/attack.ipynb")
        assert {name for name, _ in found} == (set(TOOLTIPS) if url else set())
    place = "someone/isce"
    assert found == [
        ("Binder", f"https://mybinder.org/v2/gh/{place}/stable?urlpath=lab/tree/notebooks/attack.ipynb"),
        ("Colab", f"https://colab.research.google.com/github/{place}/blob/stable/notebooks/attack.ipynb"),
    ]
    assert launches("https://gitlab.com/someone/isce", "main", "a.ipynb") == []


def test_binder_makes_the_pinned_environment_and_installs_the_package():
    """It reads both files from the root as long as there is no folder of its own."""
    assert not any((ROOT / name).exists() for name in ("binder", ".binder"))
    assert (ROOT / "environment.yml").is_file()
    assert os.access(ROOT / "postBuild", os.X_OK)
    assert "pip install --no-deps --editable ." in (ROOT / "postBuild").read_text(encoding="utf-8")


@pytest.mark.parametrize("url", ["someone/isce", "http://github.com/someone/isce", ADDRESS + "/tree/main"])
def test_what_is_no_address_is_refused(tmp_path: Path, url: str):
    with pytest.raises(ConfigError, match=r"repository\.url must be https://"):
        configured(tmp_path, url)


def test_the_configuration_names_it_once_and_sets_no_button():
    text = (ROOT / "book" / "_config.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert set(config["repository"]) == {"url", *REPOSITORY}
    assert not any(f"{name}:" in text for name in (*BUTTONS, "launch_buttons"))
    assert "isce_repository" in config["sphinx"]["local_extensions"]


@pytest.mark.full
@pytest.mark.parametrize("url", ["", ADDRESS])
def test_a_page_shows_them(tmp_path: Path, url: str):
    """The theme reads what the extension sets: one page, rendered with and without an address."""
    config = f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = ['isce_repository']\n"
    config += "html_theme = 'sphinx_book_theme'\n"
    write_config(tmp_path, url)
    (tmp_path / "conf.py").write_text(config)
    (tmp_path / "index.rst").write_text("Title\n=====\n\nText.\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    marks = ("btn-source-repository-button", "btn-source-issues-button", "dropdown-download-buttons", "mybinder.org/v2")
    assert [mark in page for mark in marks] == [bool(url)] * len(marks)
