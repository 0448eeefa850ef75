"""Numbers in exponent notation, such as ``1e-3``: YAML 1.1, which PyYAML and papermill read, takes them for text."""

from __future__ import annotations

import re
from typing import Any

import yaml

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")


class Loader(yaml.SafeLoader):
    """Reads them as numbers, as YAML 1.2 does."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def read_exponents(value: Any) -> Any:
    """Return the value with each text that spells such a number as that number, in lists and mappings too."""
    if isinstance(value, str):
        return float(value) if _NUMBER.match(value) else value
    if isinstance(value, list):
        return [read_exponents(item) for item in value]
    if isinstance(value, dict):
        return {name: read_exponents(item) for name, item in value.items()}
    return value
