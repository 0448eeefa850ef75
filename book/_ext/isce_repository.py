"""Sphinx extension: all that needs the repository's address: ``repository.url`` in _config.yml, its one place.

Without it there are no buttons. With it every page has repository, issue and download buttons, and one to launch the
notebooks on Binder or Colab; each table and figure has launch links for the notebook that made it. Binder installs
``environment.yml`` and runs ``postBuild``; on Colab the reader installs the package, as ``notebooks.md`` says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ConfigError

ADDRESS = re.compile(r"https://(?P<host>[\w.-]+)/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?")
BUTTONS = ("use_repository_button", "use_issues_button", "use_download_button")
FIRST = "notebooks/train.ipynb"
TOOLTIPS = {"Binder": "Open on Binder", "Colab": "Open on Colab; first install the package (page Executed notebooks)"}


def launches(url: str, branch: str, notebook: str) -> list[tuple[str, str]]:
    """Where a notebook of the repository opens ready to run: (name, address); nothing for hosts that neither reads."""
    match = ADDRESS.fullmatch(url)
    if match is None or match["host"] != "github.com":
        return []
    place = f"{match['owner']}/{match['name']}"
    return [
        ("Binder", f"https://mybinder.org/v2/gh/{place}/{branch}?urlpath=lab/tree/{notebook}"),
        ("Colab", f"https://colab.research.google.com/github/{place}/blob/{branch}/{notebook}"),
    ]


def configure(app: Sphinx, config: Config) -> None:
    """Switch the theme's buttons on if there is an address, else off.

    Jupyter Book hands the address to the theme, but not where _config.yml sets theme options itself, as ours does.
    """
    repository = yaml.safe_load((Path(app.srcdir) / "_config.yml").read_text(encoding="utf-8"))["repository"]
    url, branch = repository["url"], repository["branch"]
    if url and ADDRESS.fullmatch(url) is None:
        raise ConfigError(f"repository.url must be https://<host>/<owner>/<name> or empty, got {url!r}")
    place = {"repository_url": url, "repository_branch": branch, "path_to_docs": repository["path_to_book"]}
    config.html_theme_options |= place | dict.fromkeys(BUTTONS, bool(url))
    config.isce_repository = (url, branch)


def add_launch_button(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The theme has one for pages that are notebooks; here it opens the repository's notebooks from every page."""
    address, branch = app.config.isce_repository
    found = launches(address, branch, FIRST)
    if found:
        buttons = [{"type": "link", "text": name, "url": url, "tooltip": TOOLTIPS[name]} for name, url in found]
        group = {"type": "group", "tooltip": "Run the notebooks", "icon": "fas fa-rocket", "label": "launch-buttons"}
        context["header_buttons"].insert(0, group | {"buttons": buttons})


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.add_config_value("isce_repository", ("", "main"), "env", types=[tuple])
    app.connect("config-inited", configure)
    app.connect("html-page-context", add_launch_button, priority=510)  # after the theme's own buttons
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
