"""Faults of the packages whose attacks are run here."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any


def of_package(function: Callable[..., Any], package: str = "advertorch") -> Callable[..., Any]:
    """The function as one of a package's own: what it raises is that package's failure, not ours."""
    names = function.__globals__ | {"__name__": f"{package}.planted"}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
