"""The attack of the authors' released script, kept as it is. It is not a valid l_inf attack: nothing bounds it but the
box, and it does not ask for the true label. It shows what that script would print, and enters no worst case.
"""  # noqa: D205

from __future__ import annotations

from torch import Tensor

from isce.attacks.ascent import ascend, slope
from isce.attacks.base import Found, Problem, sign, training_loss
from isce.attacks.spec import AttackSpec


def released(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Sign steps up the training loss for the network's own prediction, from the image, clipped to the box alone.

    ``step_size`` is in units of pixel values in [0, 1] (the script's 0.01 and 0.04 on [-1, 1] are 0.005 and 0.02 here).
    The prediction is taken anew at every step, as the script's loss does. The last point counts, success or not.
    """
    assert spec.step_size is not None  # the suite's check refuses that
    loss = training_loss(problem.objective)
    size = spec.step_size

    def value(point: Tensor) -> Tensor:
        logits, embedding = problem.outputs(point)
        return loss(logits, logits.detach().argmax(1), embedding)

    def step(point: Tensor, gradient: Tensor, _: int) -> Tensor:
        return (point + size * sign(gradient)).clamp(0, 1)

    return Found.only(ascend(problem.x, lambda point: slope(value, point), step, spec.steps))
