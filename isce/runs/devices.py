"""The device that a run works on, by its name."""

from __future__ import annotations

import torch

from isce.parameters.base import check_device
from isce.strict import ConfigError


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: a name that is not allowed, or a GPU that torch does not see.
    """
    check_device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        seen = f"{count} GPU{'s' * (count > 1)}" if count else "no GPU"
        raise ConfigError(f"device {name!r} asked for, but torch {torch.__version__} sees {seen}")
    return device
