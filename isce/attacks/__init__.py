"""Attacks behind one signature: every one gets the same problem and returns points verified inside ball and box."""

from __future__ import annotations

from isce.attacks.base import AttackResult, Threat
from isce.attacks.driver import run
from isce.attacks.registry import family, names, objectives, random

__all__ = ["AttackResult", "Threat", "family", "names", "objectives", "random", "run"]
