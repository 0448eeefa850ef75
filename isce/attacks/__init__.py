"""Attacks behind one signature: every one gets the same problem and returns points verified inside ball and box."""

from __future__ import annotations

from isce.attacks.base import AttackResult, ForeignError, TimeLimitError
from isce.attacks.driver import run
from isce.attacks.spec import about, names
from isce.attacks.threat import Threat

__all__ = ["AttackResult", "ForeignError", "Threat", "TimeLimitError", "about", "names", "run"]
