"""A second copy of the package, in which a fault can be planted in any function, found by a trace."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import math
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

RAISES = "exception"


class PlantedError(Exception):
    """The fault of a function that raises."""


class Fault:
    """Makes another value of one that a function returned, by what becomes of its tensors, arrays and floats."""

    def __init__(self, array: Callable[[Any], Any], number: Callable[[float], float] | None = None) -> None:
        self.array, self.number, self.hits = array, number, 0

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor | np.ndarray):
            changed = self.array(value)
            self.hits += changed is not value
            return changed
        if isinstance(value, float) and self.number is not None:
            self.hits += 1
            return self.number(value)
        if isinstance(value, dict):
            return {name: self(one) for name, one in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self, value))
        if isinstance(value, list | tuple):
            return type(value)(map(self, value))
        if is_dataclass(value) and not isinstance(value, type):
            twin = copy.copy(value)
            for field in fields(value):  # past its checks
                object.__setattr__(twin, field.name, self(getattr(value, field.name)))
            return twin
        return value


def _nan(value: Any) -> Any:
    floating = value.is_floating_point() if isinstance(value, torch.Tensor) else value.dtype.kind == "f"
    return value * math.nan if floating else value  # a product: a tensor keeps its graph


FAULTS = {
    "NaN": Fault(_nan, lambda _: math.nan),
    "one row fewer": Fault(lambda value: value[:-1] if value.ndim else value),
    "one dimension more": Fault(lambda value: value[None]),
}


class Plants:
    """What every function of the copy asks when it is entered and when it returns."""

    def __init__(self) -> None:
        self.traced: dict[str, dict[str, None]] | None = None
        self.place, self.kind, self.passing, self.shown = "", "", 0, 0
        self.calls: dict[str, int] = {}

    def trace(self, scene: Callable[[], Any]) -> tuple[Any, dict[str, dict[str, None]]]:
        """What a scene returns, and the functions that it calls, each with the faults that it can show."""
        scene()  # what is called once in a process, to be remembered, is no place for a fault
        self.traced, self.calls = {}, {}
        found = scene()
        called, self.traced = self.traced, None
        return found, called

    def plant(self, place: str, kind: str, scene: Callable[[], Any]) -> Any:
        """What a scene returns, or raises, with a fault; of several calls of the function the first goes well."""
        self.place, self.kind, self.shown = place, kind, 0
        self.passing = 0 if kind == RAISES else min(1, self.calls[place] - 1)
        try:
            return scene()
        finally:
            self.place = ""

    def enter(self, name: str) -> None:
        if self.traced is not None:
            self.traced.setdefault(name, {})[RAISES] = None
            self.calls[name] = self.calls.get(name, 0) + 1
        if name == self.place and self.kind == RAISES:
            self.shown += 1
            raise PlantedError(name)

    def leave(self, name: str, value: Any) -> Any:
        if self.traced is not None:
            for kind, fault in FAULTS.items():
                before = fault.hits
                fault(value)
                if fault.hits > before:
                    self.traced[name][kind] = None
        if name != self.place or self.kind == RAISES:
            return value
        self.passing -= 1
        if self.passing >= 0:
            return value
        self.shown += 1
        return FAULTS[self.kind](value)

    def wrap(self, name: str) -> Callable[[Any], Any]:
        """Decorator of the function with this name."""

        def decorate(function: Any) -> Any:
            @functools.wraps(function)
            def generator(*args: Any, **named: Any) -> Iterator[Any]:
                for value in function(*args, **named):
                    yield self.leave(name, value)

            @functools.wraps(function)
            def plain(*args: Any, **named: Any) -> Any:
                return self.leave(name, function(*args, **named))

            return generator if inspect.isgeneratorfunction(function) else plain

        return decorate


class _Rewrite(ast.NodeTransformer):
    """Makes every function, method and inner function ask."""

    def __init__(self, module: str) -> None:
        self.path = [module]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.path.append(node.name)
        self.generic_visit(node)
        self.path.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.path.append(node.name)
        self.generic_visit(node)
        name = ".".join(self.path)
        self.path.pop()
        after_docstring = 0 if ast.get_docstring(node) is None else 1
        node.body.insert(after_docstring, ast.parse(f"__plants__.enter({name!r})").body[0])
        node.decorator_list.append(ast.parse(f"__plants__.wrap({name!r})", mode="eval").body)
        return node


class _Loader(SourceFileLoader):
    plants: Plants

    def get_code(self, fullname: str) -> CodeType:  # neither read from nor written to a cache
        path = self.get_filename(fullname)
        tree = _Rewrite(fullname).visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__plants__"] = self.plants
        super().exec_module(module)


class _Finder:
    def __init__(self, plants: Plants) -> None:
        self.plants = plants

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname.split(".")[0] == "isce" else None
        if found is not None and found.origin is not None:
            found.loader = _Loader(fullname, found.origin)
            found.loader.plants = self.plants
        return found


def _ours() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "isce"}


@contextmanager
def planted_copy() -> Generator[Plants]:
    """Inside, ``isce`` is imported anew, as a copy; afterwards the modules are those of before."""
    before, plants = _ours(), Plants()
    finder = _Finder(plants)
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield plants
    finally:
        sys.meta_path.remove(finder)
        for name in _ours():
            del sys.modules[name]
        sys.modules.update(before)
