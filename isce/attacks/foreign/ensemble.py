"""AutoAttack, standard version (Croce and Hein 2020): APGD on cross-entropy and targeted, FAB targeted, Square."""

from __future__ import annotations

import sys
from typing import Any

from isce import compat
from isce.attacks.base import Found, Problem
from isce.attacks.keys import seeded
from isce.attacks.spec import AttackSpec


def autoattack(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """AutoAttack standard through pyautoattack: each of its attacks works on what those before have left.

    It draws from the global generator for a whole batch at once, so its draws (not its strength) depend on the batch.
    One of its checks ends whatever traces the process, a debugger or coverage: that is set anew.
    The standard version goes after nine wrong classes; with fewer than ten classes, here, after as many as there are.
    """
    package: Any = compat.import_pyautoattack()
    trace = sys.gettrace()
    with seeded(problem.seed, int(problem.index[0]), restart, "package"), compat.quiet():
        attack = package.AutoAttack(
            problem.classifier,
            norm={"linf": "Linf", "l2": "L2"}[problem.threat.norm],
            eps=float(problem.threat.eps),
            seed=problem.seed,
            version="standard",
            device=problem.x.device,
        )
        for part in (attack.apgd_targeted, attack.fab):
            part.n_target_classes = min(part.n_target_classes, problem.logits.shape[1] - 1)
        try:
            points = attack.run_standard_evaluation(problem.x, problem.y, batch_size=len(problem.x))[0]
        finally:
            sys.settrace(trace)
        return Found.only(points)
