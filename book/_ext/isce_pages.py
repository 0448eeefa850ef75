"""Sphinx extension: a page for each attack, each objective and each room of the package, made when a build begins.

What registries and classes know comes from these; what only words can say comes from ``_templates/attacks.yml`` and
``losses.yml``. An attack or objective without words there gets a page all the same: the first line of its docstring.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from sphinx.application import Sphinx
from sphinx.config import Config

from isce import losses
from isce.attacks import Threat, about
from isce.attacks import names as attack_names
from isce.attacks.driver import load
from isce.attacks.spec import AttackSpec
from isce.files import write_atomic
from isce.losses.base import LossOptions, Objective
from isce.report.attacks import TARGETED

#: Chapter of the book on a family of attacks, where its name is another.
CHAPTERS = {"search": "queries", "staged": "matched", "fmn": "minimum"}


def attack_page(name: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one attack for the template."""
    known = about(name)
    row: dict[str, Any] = words.get("row") or _example_row(name)
    spec, norm = AttackSpec(**row), "linf" if "linf" in known.norms else known.norms[0]
    arguments = ", ".join(f"{key}={_code(value)}" for key, value in row.items())
    listed = yaml.safe_dump(row, default_flow_style=True, sort_keys=False, width=1000).strip()
    return {
        "name": name,
        "known": known,
        "title": known.family,
        "text": _first_line(load(name)),
        "steps": bool(words),
        "chapter": CHAPTERS.get(known.family, known.family),
        "listed": listed,
        "arguments": arguments,
        "threat": spec.threat or Threat(norm, 0.1),
        "label": spec.label,
        "targeted": TARGETED[known.targeted],
        **words,
        "row": row,
    }


def _example_row(name: str) -> dict[str, Any]:
    """Shortest row of an attack: with steps, and a budget where the attack doesn't work at an experiment's eps."""
    known = about(name)
    row: dict[str, Any] = {"attack": name} | ({"steps": 10} if known.steps else {})
    row |= {"targeted": True} if known.targeted == "must" else {}
    if known.eps is None and not {"linf", "l2"}.intersection(known.norms):
        row |= {"norm": known.norms[0], "eps": 20}
    return row


def loss_page(name: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one objective for the templates."""
    objective, base = losses.build(name), Objective()
    signature = inspect.signature(type(objective)).parameters.values()
    own = {p.name: p.default for p in signature if p.kind is not p.VAR_KEYWORD}
    common = {key: getattr(objective, key) for key in LossOptions.__annotations__}
    changed = {key: value for key, value in common.items() if value != getattr(base, key)}
    defaults = {key: _code(value) for key, value in (own | changed).items()}
    about_each = dict.fromkeys(defaults, "see the class.") | words.get("parameters", {})
    if strangers := sorted(set(about_each) - set(defaults)):
        raise ValueError(f"losses.yml: objective {name!r} has no parameter {', '.join(strangers)}")
    page = {
        "name": name,
        "title": type(objective).__name__,
        "text": _first_line(type(objective)),
        "objective": objective,
        "own": own,
        "defaults": defaults,
        "mapped": objective.needs_embedding or type(objective).score_map is not Objective.score_map,
    }
    return page | dict(words) | {"parameters": about_each}


def _first_line(found: object) -> str:
    return (inspect.getdoc(found) or "").partition("\n")[0]


def _code(value: object) -> str:
    """Value as Python code with double quotes."""
    return json.dumps(value) if isinstance(value, str | dict) else repr(value)


def _words(folder: Path, kind: str, known: list[str]) -> dict[str, dict[str, Any]]:
    """Words by name, in the order of the file, then the names that have none."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((folder / f"{kind}.yml").read_text(encoding="utf-8"))
    if strangers := sorted(set(found) - set(known)):
        raise ValueError(f"{kind}.yml: no {kind} of the name {', '.join(strangers)}")
    return found | {name: {} for name in known if name not in found}


def write_pages(book: Path) -> None:
    """Write every page below ``reference``; pages whose content stays the same, and no others, are left alone."""
    templates = book / "_templates"
    loader = jinja2.FileSystemLoader(templates)
    made = jinja2.Environment(loader=loader, keep_trailing_newline=True, undefined=jinja2.ChainableUndefined)  # noqa: S701
    attacks = [attack_page(*item) for item in _words(templates, "attacks", attack_names()).items()]
    objectives = [loss_page(*item) for item in _words(templates, "losses", losses.names()).items()]
    rooms: dict[str, dict[str, Any]] = yaml.safe_load((templates / "api.yml").read_text(encoding="utf-8"))
    api = [{"name": name, **page} for name, page in rooms.items()]
    texts = {"losses/table.txt": made.get_template("losses.j2").render(pages=objectives)}
    texts["attacks/table.txt"] = made.get_template("attacks.j2").render(pages=attacks)
    for kind, one, pages in (("attacks", "attack", attacks), ("losses", "loss", objectives), ("api", "api", api)):
        template = made.get_template(f"{one}.md.j2")
        texts |= {f"{kind}/{page['name']}.md": template.render(page) for page in pages}
    for name, text in texts.items():
        path, text = book / "reference" / name, text.rstrip() + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, text)
    for kind in ("api", "attacks", "losses"):
        for path in (book / "reference" / kind).glob("*.md"):
            if f"{kind}/{path.name}" not in texts:
                path.unlink()


def begin(app: Sphinx, config: Config) -> None:
    """Write the pages before the table of contents looks for them."""
    write_pages(Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step."""
    app.connect("config-inited", begin, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
