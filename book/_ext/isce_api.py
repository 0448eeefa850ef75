"""Sphinx extension: the reference of the package, from its docstrings, signatures and parameter models.

autodoc and napoleon do the work. Added here: names resolve to the page that documents them, wherever they are defined;
models of parameters list their fields with what is allowed; what other packages document is not looked for.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.addnodes import desc_annotation, pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from isce.files import ROOT

SETTINGS: dict[str, Any] = {
    "add_module_names": False,
    "autodoc_class_signature": "mixed",
    "autodoc_member_order": "groupwise",
    "autodoc_typehints_format": "short",
    "napoleon_numpy_docstring": False,
    "napoleon_use_ivar": True,
    "napoleon_use_rtype": False,
    "python_use_unqualified_type_names": True,
    # Bases and type variables that no page documents.
    "nitpick_ignore": [
        ("py:class", "isce.losses.base.LossOptions"),
        ("py:class", "isce.strict.Model"),
    ],
    # Links that don't lead into this package are text: other packages' pages can't be read without a network.
    "nitpick_ignore_regex": [(r"py:.*", r"(?!isce\.).*")],
}
WRAPPED = re.compile(r"mappingproxy\((\{.*?\})\)", re.DOTALL)
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}


def settle(app: Sphinx, config: Config) -> None:
    """Settings of autodoc and napoleon that belong to this extension."""
    for name, value in SETTINGS.items():
        config[name] = value


def field_text(field: FieldInfo) -> str:
    """What a field means, what is allowed and its default, as one line of reStructuredText."""
    limits = [f"{word} {getattr(m, key):,}" for m in field.metadata for key, word in LIMITS.items() if hasattr(m, key)]
    parts = [field.description or "", " and ".join(limits)]
    if not field.is_required():
        value = field.get_default(call_default_factory=True)
        shown = value.model_dump() if isinstance(value, BaseModel) else value
        parts.append(f"default ``{shown!r}``")
    return "; ".join(part for part in parts if part) or "required"


def type_text(annotation: Any) -> str:
    """A field's type as one reads it: without module names."""
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def list_fields(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Add the fields of a model of parameters that its docstring doesn't list itself."""
    if what != "class" or not issubclass(found, BaseModel) or any(":ivar" in line for line in lines):
        return
    lines.append("")
    for field, about in found.model_fields.items():
        lines.append(f":ivar {field}: *{type_text(about.annotation)}*: {field_text(about)}".replace("|", r"\|"))


def escape_bars(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Bars in a docstring are absolute values, not substitutions."""
    lines[:] = [line if "`" in line else line.replace("|", r"\|") for line in lines]


def shorten_signature(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """A model's fields say what its signature would, and better; defaults name no object and no folder of a machine."""
    if what == "class" and issubclass(found, BaseModel):
        return "", None
    if signature is None:
        return None
    signature = WRAPPED.sub(r"\1", signature)
    signature = re.sub(
        r"<[^<>]*(<[^<>]*>)?>", "...", signature
    )  # an object's name would keep it from being read as Python
    return re.sub(rf"PosixPath\('{re.escape(str(ROOT))}(?:/([^']*))?'\)", _folder, signature), returned


def _folder(path: re.Match[str]) -> str:
    return f"ROOT / {path[1]!r}" if path[1] else "ROOT"


def show_values(app: Sphinx, doctree: nodes.document) -> None:
    """Values of mappings without the wrapper that keeps them from being changed."""
    for about in doctree.findall(desc_annotation):
        for text in list(about.findall(nodes.Text)):
            if (value := WRAPPED.sub(r"\1", text)) != text:
                text.parent.replace(text, nodes.Text(value))


def rejoin(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """A property's sentence with a colon stays a sentence: napoleon takes what is before the colon for a type."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what in ("property", "attribute") and types:
        lines[:] = [f"{types[0].removeprefix(':type: ')}: {lines[0]}", *lines[1:]]
        lines.remove(types[0])


def skip(app: Sphinx, what: str, name: str, found: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what pydantic puts into its classes."""
    return True if name in ("model_config", "model_post_init") else None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Element | None:
    """Link an object of this package where it is documented, whichever module its name says or leaves out."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target:
        return None
    documented = env.get_domain("py").objects  # pyright: ignore[reportAttributeAccessIssue]
    end = "." + (target.rpartition(".")[2] if target.startswith("isce.") else target)
    places = [name for name in documented if name.endswith(end)]
    if target.startswith("isce."):
        wanted = _load(target)
        places = [name for name in places if wanted is not None and _load(name) is wanted]
    places.sort(key=len)  # a room's face before the module that defines the object
    if not places or any(_load(name) is not _load(places[0]) for name in places):
        return None
    place = documented[places[0]]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, text, places[0])


def _load(name: str) -> Any:
    """The object with this full name, or None."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("config-inited", settle)
    app.connect("autodoc-process-docstring", escape_bars, priority=800)  # after napoleon
    app.connect("autodoc-process-docstring", list_fields, priority=900)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("doctree-read", show_values)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", rejoin, priority=700)  # after napoleon, too
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
