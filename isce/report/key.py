"""Names of the numbers of an experiment, such as ``sce.worst@0.1``: read, written and taken apart here alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from isce.attacks.spec import BLIND

MAIN = "main"
_KEY = re.compile(
    r"(?:(?P<label>[^:@]+)\.)?(?P<kind>clean|rejected|attack|hit|own|worst|certified|explain)(?::(?P<row>[^@]+))?"
    r"(?:@(?P<norm>(?!main\b)[a-z]\w*))?(?:@(?P<eps>main|[0-9.]+(?:e[+-]?[0-9]+)?))?"
)


@dataclass(frozen=True)
class Key:
    """Name a number as ``<label>.<kind>:<row>@<norm>@<eps>``; all but the kind may be missing.

    Attributes:
        kind: ``clean``; ``rejected``, share of clean images that are rejected; ``attack``, accuracy after one row of a
            suite; ``hit``, target success of a targeted row; ``own``, the lowest row on the own training loss;
            ``worst``; ``certified``; or ``explain``.
        row: label of the row; for ``explain`` the quantity.
        norm: threat model, empty for the norm of the experiment.
        eps: eps as text, ``main`` for the main one of the experiment; empty where the threat model has none.
        label: label of the objective; empty where the key stands beside the objective.
    """

    kind: str
    row: str = ""
    norm: str = ""
    eps: str = ""
    label: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key from its text.

        Raises:
            ValueError: the text is no key.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise ValueError(f"expected <objective>.<kind>:<row>@<threat>, got {text!r}")
        return cls(**{name: part or "" for name, part in match.groupdict().items()})

    @classmethod
    def at(cls, kind: str, eps: float, row: str = "") -> Self:
        """Return the key of a number at an eps of the experiment's own norm."""
        return cls(kind, row, eps=f"{eps:g}")

    @classmethod
    def under(cls, kind: str, threat: str, own: str, row: str = "") -> Self:
        """Return the key of a number under a threat that is named as in records: ``linf@0.1``, ``spatial``.

        Args:
            kind: see the class.
            threat: label of the threat model.
            own: norm of the experiment, which keys leave out.
            row: see the class.
        """
        norm, _, eps = threat.partition("@")
        return cls(kind, row, eps=f"{float(eps):g}") if norm == own else cls(kind, row, norm, eps)

    def __str__(self) -> str:
        """Return the text that :meth:`parse` reads."""
        label, row = f"{self.label}." if self.label else "", f":{self.row}" if self.row else ""
        return f"{label}{self.kind}{row}" + "".join(f"@{part}" for part in (self.norm, self.eps) if part)

    def threat(self, own: str) -> str:
        """Return the threat as records name it; ``own`` is the norm of the experiment."""
        return f"{self.norm or own}@{self.eps}" if self.eps else self.norm

    @property
    def on_own_loss(self) -> bool:
        """Whether the row ascends the training loss of the objective."""
        return self.row.removesuffix(f"-{BLIND}").endswith("-training")

    @property
    def blind(self) -> bool:
        """Whether the row is blind to the rejection of a network."""
        return self.row.endswith(f"-{BLIND}")


def split_run(run: str) -> tuple[str, str]:
    """Return the objective's label and the training seed that the name of a run holds: ``sce-s0``."""
    label, _, seed = run.rpartition("-s")
    return label, seed
