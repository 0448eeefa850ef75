"""What a network is, as a hash: the same in every process, and another one for whatever may compute anything else.

A module's values are not all of it: its forward may read lists, closures, hooks, settings and globals, and its class
may be another under the same name. So whatever can be reached from it is described: modules and objects by class and
values, functions and classes by their code and by what that reads. Of this package, torch, numpy and Python itself
names will do: semantics numbers and versions stand beside this hash.
"""

from __future__ import annotations

import dis
import functools
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import (
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import torch
from torch import Tensor, nn

from isce.files import canonical, sha256

_log = logging.getLogger(__name__)

# Of a module's own attributes: they are for training and for state dicts, and decide no logits.
_ASIDE = {
    "training",
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
}
_HOOKS = {name for name in vars(nn.Module()) if "_hooks" in name} - _ASIDE  # dicts, by numbers that rise in a process
_MADE = ("_abc_impl", "_backward_cls")  # of a class, made by its metaclass
_C = (ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType)  # of a class, written in C
_READS = ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")


class _UnknownError(Exception):
    """There is something that can't be described."""


def identity(net: nn.Module) -> str:
    """Hash of a network; of one that can't be described a number that never comes again."""
    try:
        return sha256(canonical(_Description().of(net)))
    except (_UnknownError, RecursionError) as error:
        _log.warning("can't tell %s from other networks, no row is taken over: %s", type(net).__name__, error)
        return secrets.token_hex()


def digest(tensor: Tensor) -> str:
    """Hash of a tensor's type, shape and values."""
    plain = tensor.detach().cpu().contiguous()
    return sha256(
        f"{plain.dtype} {tuple(plain.shape)}".encode() + plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    )


class _Description:
    """Lists and texts that say what an object is; what was met before is named by its number."""

    def __init__(self) -> None:
        self._met: dict[int, tuple[int, object]] = {}  # with the object: another could get the id of one that is gone

    def of(self, value: Any) -> Any:
        """Describe any value.

        Raises:
            _UnknownError: it can't be done.
        """
        if value is None or type(value) in (bool, int, float, complex, str):
            return repr(value)
        if type(value) is bytes:
            return ["bytes", sha256(value)]
        if type(value) is tuple:
            return ["tuple", *map(self.of, value)]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, set | frozenset):  # in whatever order
            return ["set", *sorted(json.dumps(self.of(one)) for one in value)]
        if id(value) in self._met:
            return ["met", self._met[id(value)][0]]
        self._met[id(value)] = len(self._met), value
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        return [self.of(type(value)), *self._parts(value)]

    def _parts(self, value: Any) -> list[Any]:
        """What an object consists of, beside its class."""
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise _UnknownError(f"a tensor that is sparse, quantised or without values, {tuple(value.shape)}")
            return [digest(value), self.of(vars(value))]
        if isinstance(value, nn.Module):
            return [self._module(value)]
        if isinstance(value, ModuleType) and _known(value.__name__):
            return [value.__name__]
        if isinstance(value, MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if type(value) is list:
            return [self.of(one) for one in value]
        if type(value) is dict:
            return [[self.of(name), self.of(one)] for name, one in value.items()]
        if isinstance(value, property):
            return [self.of(value.fget)]
        if isinstance(value, staticmethod | classmethod):
            return [self.of(value.__func__)]
        if isinstance(value, functools.cached_property):
            return [self.of(value.func)]
        return self._kept(value)

    def _module(self, part: nn.Module) -> Any:
        own = {name: value for name, value in sorted(vars(part).items()) if name not in _ASIDE}
        hooks = {name: own.pop(name) for name in _HOOKS & own.keys()}
        numbers = sorted({number for by_number in hooks.values() for number in by_number})
        ranked = {n: {numbers.index(i): hook for i, hook in held.items()} for n, held in sorted(hooks.items())}
        return [self.of(own), self.of(ranked)]

    def _kept(self, value: Any) -> list[Any]:
        """What pickle would keep of an object, and its attributes, of which it may leave some out."""
        try:
            kept = value.__reduce_ex__(4)
            if not isinstance(kept, str):
                kept = [list(part) if isinstance(part, Iterator) else part for part in kept]
        except Exception as error:  # the object's own
            raise _UnknownError(f"{type(value).__qualname__}: {error}") from error
        own = None
        if isinstance(kept, str):  # a name
            kept = [getattr(value, "__module__", None), kept]
            own = getattr(value, "__dict__", None)
        elif not _named(type(value)):
            own = getattr(value, "__dict__", None)
        return [self.of(kept), self.of(own)]

    def _class(self, kind: type) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if _named(kind):
            return ["class", name]
        # Other special attributes (annotations, slots, tables of dataclasses) are what its methods were made from.
        own = {n: v for n, v in sorted(vars(kind).items()) if callable(v) or not n.startswith("__")}
        own = {n: v for n, v in own.items() if n not in _MADE and not isinstance(v, _C)}
        return ["class", name, self.of(kind.__bases__), self.of(own)]

    def _function(self, function: FunctionType) -> Any:
        """Its code, and all values that are there when it is called."""
        code, home = function.__code__, str(function.__globals__.get("__name__"))
        if _known(home) and "<" not in code.co_qualname:  # neither a lambda nor made by another function
            return ["function", f"{home}.{code.co_qualname}"]
        cells = [self._cell(cell) for cell in function.__closure__ or ()]
        given = [self.of(function.__defaults__), self.of(function.__kwdefaults__), self.of(vars(function))]
        return ["function", self._code(code), cells, given, None if _known(home) else self.of(_read(function))]

    def _cell(self, cell: Any) -> Any:
        try:
            held = cell.cell_contents
        except ValueError:
            return "empty"
        return self.of(held)

    def _code(self, code: CodeType) -> Any:
        """What a function does, wherever it stands."""
        arguments = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        names = [list(code.co_names), list(code.co_varnames)]
        table = code.co_exceptiontable.hex()
        return [code.co_code.hex(), table, arguments, names, [self.of(one) for one in code.co_consts]]


def _read(function: FunctionType) -> dict[str, Any]:
    """The globals that a function reads, and of modules that are not known what its names can mean there.

    Raises:
        _UnknownError: a module that it imports itself is not there, or is named in relation to its own.
    """
    read, names = _names(function.__code__)
    found: dict[str, Any] = {}
    for way, name in sorted(read):
        if way == "IMPORT_NAME":
            if not _known(name) and name not in sys.modules:
                raise _UnknownError(f"{function.__code__.co_qualname} imports a module {name!r} that can't be found")
            found[name] = sys.modules.get(name)
        elif name in function.__globals__:
            found[name] = function.__globals__[name]
    modules = {value.__name__: value for value in found.values() if isinstance(value, ModuleType)}
    todo = list(modules.values())
    for module in todo:  # grows by the modules of a package
        if not _known(module.__name__):
            inside = {name: vars(module)[name] for name in sorted(names & vars(module).keys())}
            found |= {f"{module.__name__}.{name}": value for name, value in inside.items()}
            more = {v.__name__: v for v in inside.values() if isinstance(v, ModuleType) and v.__name__ not in modules}
            modules |= more
            todo += more.values()
    return {name: value.__name__ if isinstance(value, ModuleType) else value for name, value in found.items()}


def _names(code: CodeType) -> tuple[set[tuple[str, str]], set[str]]:
    """Names that a function reads of its module or imports, with the way; and all names, those of attributes too."""
    read = {(one.opname, one.argval) for one in dis.get_instructions(code) if one.opname in _READS}
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = _names(inner)
            read, names = read | more[0], names | more[1]
    return read, names


def _named(kind: type) -> bool:
    """Whether a class is known by its name, that is, found under it; one that is made in passing may bear any."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    made_by_python = bool(kind.__flags__ & 1 << 9)
    return _known(kind.__module__) and (found is kind or not made_by_python)


@functools.cache
def _known(module: str) -> bool:
    """Whether a module belongs to this package, torch, numpy or Python; one's own file may be called test.py, too."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    standard = file is None or Path(file).is_relative_to(Path(os.__file__).parent)
    return top in ("isce", "numpy", "torch") or (top in sys.stdlib_module_names and standard)
