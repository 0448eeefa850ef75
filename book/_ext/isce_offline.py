"""Sphinx extension: the built book loads nothing from elsewhere and is valid HTML.

MathJax comes from the installed package ``sphinx-mathjax-offline``; only the one bundle and the fonts that it needs
are copied into the book (the package's own extension would copy all 24 MB).
"""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import files
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
BUNDLE = "tex-chtml.js"
# What the theme and its parts write that a page on the disk, or a reader without eyes, stumbles over.
MENDS = {
    # Fonts preloaded as cross-origin requests: browsers refuse them, loudly, for pages on the disk.
    r'<link rel="preload" as="font"[^>]*>': "",
    # 1.5 MB that draws each icon as SVG; the style sheet and the icon font, loaded as well, show the same icons.
    r'<script src="[^"]*/fontawesome/[^"]*/all\.min\.js[^>]*></script>': "",
    r'<summary>(?=<span class="toctree-toggle")': '<summary aria-label="Pages below">',
    # A list whose children are no list items; without the role it is a plain group of entries.
    r'<div role="list" class="citation-list">': '<div class="citation-list">',
}
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


def drop_thebe_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book always adds the scripts of thebe, which point to a CDN; this book runs no code in the browser."""
    context["script_files"] = [script for script in context["script_files"] if "thebe" not in str(script).lower()]
    context["css_files"] = [style for style in context["css_files"] if "thebe" not in str(style).lower()]


def drop_thebe_settings(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Its settings in the page's body."""
    for node in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in node.astext() or "kernelName" in node.astext():
            node.parent.remove(node)


def number_ids(app: Sphinx, doctree: nodes.document) -> None:
    """sphinx-proof gives all proofs, and all theorems' bodies, one id, which HTML forbids; nothing refers to it."""
    for number, node in enumerate(doctree.findall(nodes.Element)):
        if node.get("ids") in (["proof"], ["proof-content"]):
            node["ids"] = [f"{node['ids'][0]}-{number}"]


def mend_pages(app: Sphinx, error: Exception | None) -> None:
    """Apply ``MENDS`` to every page."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = cleaned = page.read_text(encoding="utf-8")
        for pattern, replacement in MENDS.items():
            cleaned = re.sub(pattern, replacement, cleaned)
        if cleaned != text:
            page.write_text(cleaned, encoding="utf-8")


def write_side_by_side(app: Sphinx, env: Any) -> None:
    """Pages are written by as many processes as there are processors; they are read by one, which numbers them."""
    app.parallel = os.cpu_count() or 1


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.connect("doctree-read", number_ids)
    app.connect("env-updated", write_side_by_side)
    app.connect("doctree-resolved", drop_thebe_settings, priority=900)
    app.connect("html-page-context", drop_thebe_scripts, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", mend_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
