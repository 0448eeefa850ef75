"""A classifier as a package gets it: its errors stay known, images and logits are cast for it, and its points back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isce.attacks.base import Found, Problem, TimeLimitError
from isce.attacks.rejection import rejects
from isce.attacks.spec import AttackSpec

Run = Callable[[AttackSpec, Problem, int], Found]


class Lent(nn.Module):
    """A classifier as a package gets it: what goes wrong in a call stays known, whatever the package makes of it.

    Args:
        classifier: the classifier, in evaluation mode.
        deadline: in the seconds of ``time.monotonic``; a call after it raises :class:`TimeLimitError`. None: none.

    Attributes:
        error: what a call raised; None: nothing.
        sound: bool (), no score that was handed out is NaN or infinite, and no gradient of an image is NaN.
    """

    def __init__(self, classifier: nn.Module, deadline: float | None = None) -> None:
        super().__init__()
        self.training = False
        self.classifier, self.deadline = classifier, math.inf if deadline is None else deadline
        self.batch_dependent = bool(getattr(classifier, "batch_dependent", False))
        self.rejects = rejects(classifier)
        self.error: Exception | None = None
        self.sound = torch.tensor(True)
        self.register_forward_hook(self._look)

    def forward(self, x: Tensor, **options: Any) -> Any:
        """What the classifier returns."""
        try:
            if time.monotonic() > self.deadline:
                raise TimeLimitError("time limit reached")
            return self.classifier(x, **options)
        except Exception as error:
            self.error = error
            raise

    def _look(self, _: nn.Module, given: tuple[Tensor, ...], found: Any) -> None:
        """Check logits of any call, and the gradient that comes back: ``sign`` makes 0 of NaN without a word."""
        x, logits = given[0], found[0] if isinstance(found, tuple) else found
        if logits.ndim != 2 or len(logits) != len(x):
            self.error = ValueError(f"logits must have shape ({len(x)}, classes), got {tuple(logits.shape)}")
            raise self.error
        self._note(logits.detach().isfinite())
        if x.requires_grad and logits.requires_grad:
            x.register_hook(lambda gradient: self._note(~gradient.isnan()))

    def _note(self, sound: Tensor) -> None:
        self.sound = self.sound.to(sound.device) & sound.all()


class Cast(nn.Module):
    """A classifier with another precision outside than inside.

    Args:
        classifier: the classifier.
        inside: type of the images that it takes.
        outside: type of the logits, and of an embedding, that are handed out.
    """

    def __init__(self, classifier: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
        super().__init__()
        self.classifier, self.inside, self.outside = classifier, inside, outside
        self.batch_dependent = bool(getattr(classifier, "batch_dependent", False))
        self.training = False  # foolbox asks

    def forward(self, x: Tensor, **options: Any) -> Any:
        """Logits (N, K), or logits and embedding, cast.

        Raises:
            OverflowError: they are finite and don't fit the type outside.
        """
        found = self.classifier(x.to(self.inside), **options)
        return tuple(map(self._cast, found)) if isinstance(found, tuple) else self._cast(found)

    def _cast(self, values: Tensor) -> Tensor:
        cast = values.to(self.outside)
        if bool((values.isfinite() & ~cast.isfinite()).any()):
            raise OverflowError(f"logits of up to {float(values.abs().max()):.2g} don't fit {self.outside}")
        return cast


def cast(attack: Run, *, double: bool) -> Run:
    """Give a package's attack images and logits of one precision, whatever the network's own.

    Logits in half precision come as float32: packages write them into buffers of float32, and subtract them from each
    other.

    Args:
        attack: runs one restart.
        double: it also computes in float64; otherwise images and logits in float64 come as float32.
    """

    def run(spec: AttackSpec, problem: Problem, restart: int) -> Found:
        dtype = problem.x.dtype if double else torch.float32
        part = _cast(problem, dtype)
        found = attack(spec, part, restart)
        if dtype == problem.x.dtype:
            return found
        # An image is not quite its own rounding: pixels that the attack left alone get their value back.
        return Found.only(torch.where(found.points == part.x, problem.x, found.points))

    return run


def _cast(problem: Problem, dtype: torch.dtype) -> Problem:
    source = None if problem.source is None else _cast(problem.source, dtype)
    if problem.x.dtype == problem.logits.dtype == dtype:
        return replace(problem, source=source)
    classifier = Cast(problem.classifier, problem.x.dtype, dtype)
    tensors = {name: getattr(problem, name).to(dtype) for name in ("x", "best", "logits")}
    return replace(problem, classifier=classifier, source=source, **tensors)
