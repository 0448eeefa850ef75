"""Which code a run depends on, as one hash: the modules its notebook reaches, less those that decide no figure.

A change of a loss file reruns the runs of that family and nothing else; a change of a comment, a docstring or of a
figure's colour reruns no run at all.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from isce.records import canonical, sha256

# Rooms that check, move, draw or write, but decide no figure (the parameters they check are hashed themselves), and
# registries, which only say in which module a name is: that module counts, for the runs that use it.
PASSIVE = frozenset(
    {
        "isce",
        "isce.attacks",
        "isce.attacks.registry",
        "isce.config",
        "isce.experiments",
        "isce.explain_figures",
        "isce.figures",
        "isce.losses",
        "isce.models",
        "isce.notebook",
        "isce.records",
        "isce.sources",
        "isce.suites",
    }
)


def module_file(module: str, root: Path) -> Path | None:
    """The source file of a module of this package, or None if ``module`` names none (it may name an attribute)."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.cache
def essence(source: str) -> str:
    """Source text without docstrings, comment lines and blank lines.

    Works on lines, not on a dump of the syntax tree, so that it is the same on every Python version.
    """
    lines: list[str | None] = list(source.splitlines())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                    lines[number] = None
    kept = [line.rstrip() for line in lines if line is not None]
    return "\n".join(line for line in kept if line and not line.lstrip().startswith("#"))


def notebook_code(path: Path) -> str:
    """The code cells of a notebook as one text; magics (lines that start with ``%``) are left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("%"))


@functools.cache
def _imports(source: str, module: str, is_package: bool) -> tuple[str, ...]:
    """Every module name that a source may import, those under ``if TYPE_CHECKING`` left out."""
    queue: list[ast.AST] = [ast.parse(source)]
    found: list[str] = []
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            queue += node.orelse
            continue
        queue += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = parts[: len(parts) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found += [name, *(f"{name}.{alias.name}" for alias in node.names)]
    return tuple(found)


def closure(roots: Iterable[str], root: Path, skip: Iterable[str] = PASSIVE) -> set[str]:
    """All modules of this package that the given ones reach by import, themselves included, less ``skip``."""
    skipped, found, queue = set(skip), set[str](), [r for r in roots if r.split(".")[0] == "isce"]
    while queue:
        name = queue.pop()
        path = module_file(name, root)
        if path is None or name in found or name in skipped:
            continue
        found.add(name)
        package = name.rpartition(".")[0]
        reached = _imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
        queue += [package, *(r for r in reached if r.split(".")[0] == "isce")]
    return found


def code_hash(notebook: Path, root: Path, extra: Iterable[str] = ()) -> str:
    """SHA-256 over a notebook's code cells and the essence of every module they reach.

    Args:
        notebook: the notebook that runs.
        root: folder that holds the package.
        extra: modules that are reached by name at run time: the families of the run's objective, network and attacks.
    """
    code = notebook_code(notebook)
    modules = closure([*_imports(code, "notebook", False), *extra], root)
    parts = {name: sha256(essence(file.read_text(encoding="utf-8"))) for name, file in module_files(modules, root)}
    return sha256(canonical({"notebook": code, "modules": parts}))


def module_files(modules: Iterable[str], root: Path) -> Iterator[tuple[str, Path]]:
    """Modules with their source files, in the order of their names."""
    for name in sorted(modules):
        path = module_file(name, root)
        if path is not None:
            yield name, path
