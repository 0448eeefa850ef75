"""Sphinx extension: the built book loads nothing from elsewhere, and draws its theory figures itself.

MathJax comes from the installed package ``sphinx-mathjax-offline``; only the one bundle and the fonts that it needs
are copied into the book (the package's own extension would copy all 24 MB).
"""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
BUNDLE = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"


def mathjax_folder() -> Path:
    """The folder of the installed package that holds MathJax."""
    for file in files(PACKAGE) or []:
        if file.as_posix().endswith(f"static/mathjax/{BUNDLE}"):
            return Path(str(file.locate())).parent
    raise ExtensionError(f"the installed package {PACKAGE} holds no {BUNDLE}; install the version that is pinned")


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy the bundle and its fonts beside the other static files."""
    if error is not None or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    (target / FONTS).mkdir(parents=True, exist_ok=True)
    for file in [source / BUNDLE, *sorted((source / FONTS).glob("*.woff"))]:
        copy = target / file.relative_to(source)
        if not copy.exists() or copy.stat().st_size != file.stat().st_size:
            shutil.copyfile(file, copy)


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book always adds the scripts of thebe, which point to a CDN; this book runs no code in the browser."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(script.filename).lower() and "THEBE" not in str(getattr(script, "attributes", ""))
    ]


def draw_figures(app: Sphinx) -> None:
    """Draw the theory figures; files whose content stays the same are left alone."""
    from isce import theory_figures

    theory_figures.write_all(Path(app.srcdir) / "figures")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the three steps."""
    app.connect("builder-inited", draw_figures)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
