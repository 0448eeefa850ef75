"""What the parameters of every kind of run have in common."""

from __future__ import annotations

import re

from isce.strict import ConfigError, Strict


class RunParameters(Strict):
    """Everything that decides the results of one run, given the bytes of the checkpoints that the run works on.

    A field that is added later declares ``json_schema_extra={"neutral": value}``, the value that stands for what the
    code did before: with that value older records stay current. ``{"decides": False}`` marks a field that is a title.
    """

    def parts(self) -> list[str]:
        """Name the parts of the package that the run uses, as ``isce.parameters.semantics`` does."""
        return []

    def packages(self) -> set[str]:
        """Name the packages that the run computes with."""
        return {"torch"}


def check_eps(norm: str, eps: list[float]) -> None:
    """Refuse a grid of eps that doesn't rise strictly within (0, 1] for linf, above 0 for l2 (:class:`ValueError`)."""
    low = [e for e in eps if not e > 0]
    high = [e for e in eps if norm == "linf" and e > 1]
    if low or high:
        allowed = "(0, 1] for linf" if norm == "linf" else "above 0 for l2"
        raise ValueError(f"eps must be {allowed} (images lie in [0, 1]), got {(low + high)[0]}")
    if sorted(set(eps)) != eps:
        raise ValueError(f"eps must rise strictly, got {eps}")
    if len({f"{e:g}" for e in eps}) < len(eps):
        raise ValueError(f"records name an eps by six digits, which must tell them apart, got {eps}")


def check_device(name: str) -> str:
    """Return the name of a device if it is of a kind that is known, whether this machine has it or not.

    Raises:
        ConfigError: it is not; lists what is allowed.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N (the GPU with number N), got {name!r}")
    return name
