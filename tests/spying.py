"""Watch the attacks that an evaluation runs, and stop it where it is asked to."""

from __future__ import annotations

from collections.abc import Container

from isce import attacks
from isce.attacks import AttackResult


class KilledError(BaseException):
    """As if the process had been killed: nothing in the package catches it."""


class Spy:
    """Every call of ``attacks.run``: row, threat, places of its images; some calls, or some rows, raise an error."""

    def __init__(self, monkeypatch, raises: Container[int | str] = (), error: BaseException | None = None) -> None:
        """Raise at the calls of these numbers (from 1), and in the rows ``<row> <threat>`` of these names."""
        self.raises, self.error, self.real = raises, error or KilledError(), attacks.run
        self.calls: list[tuple[str, str, list[int]]] = []
        monkeypatch.setattr(attacks, "run", self)

    def __call__(self, spec, classifier, objective, x, y, threat, **more) -> AttackResult:
        self.calls.append((spec.label, threat.label, more["index"].tolist()))
        if len(self.calls) in self.raises or f"{spec.label} {threat.label}" in self.raises:
            raise self.error
        return self.real(spec, classifier, objective, x, y, threat, **more)

    def rows(self) -> list[str]:
        """The rows of the calls since this was asked last."""
        found = [label for label, _, _ in self.calls]
        self.calls.clear()
        return found
