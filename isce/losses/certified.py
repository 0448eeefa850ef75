"""Certified I-SCE: the inference information of each image, class and network, from a bound over the input ball."""

from __future__ import annotations

from types import MappingProxyType
from typing import Unpack

from torch import Tensor

from isce.losses.base import LossOptions
from isce.losses.checks import number
from isce.losses.softmax import SoftmaxCrossEntropy, inference_softmax_cross_entropy


class CertifiedInferenceSoftmaxCrossEntropy(SoftmaxCrossEntropy):
    """I-SCE with the term that the ball needs: m_k(x) = u_k(x) - (z_k - z_y)(x), with u_k >= f_k - f_y on the ball.

    The loss log(1 + sum_{k != y} e^{u_k(x)}) is then at least the largest softmax cross-entropy over the ball, and an
    image with max_{k != y} u_k < 0 is proved (derived here). With bounds by interval arithmetic it is the training of
    Gowal et al. (2018), with linear relaxation that of Zhang et al. (2020). Training mixes it with plain softmax
    cross-entropy, and the radius grows: see the parameters. Called without bounds, as on validation images or by an
    attack, it is softmax cross-entropy.

    Matched attack: the margin of the raw logits.

    Args:
        eps: radius of the l_inf ball that images are to be proved on, in units of [0, 1]; above 0, at most 1.
        stretch: at least 1; training reaches the radius ``stretch`` eps. A larger ball than the one that counts resists
            over-fitting: Gowal et al. train with 0.2 for 0.1.
        wait: share of training, in [0, 1), with radius 0.
        ramp: share of training, in [0, 1], over which the radius then grows evenly, as the plain part fades.
        plain: share of plain softmax cross-entropy after that, in [0, 1].
        **options: see :class:`~isce.losses.base.Objective`.

    Raises:
        ValueError: a parameter out of range, or ``wait`` and ``ramp`` of more than 1 together.
    """

    name = "isce-certified"
    exempt = MappingProxyType({"soft": "the bounds are of the differences to one label"})
    needs_bounds = True

    def __init__(
        self,
        eps: float = 0.1,
        stretch: float = 1.0,
        wait: float = 0.02,
        ramp: float = 0.5,
        plain: float = 0.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.eps = number("eps", eps, above=0, at_most=1)
        self.stretch = number("stretch", stretch, at_least=1)
        self.wait = number("wait", wait, at_least=0)
        self.ramp = number("ramp", ramp, at_least=0)
        self.plain = number("plain", plain, at_least=0, at_most=1)
        if self.wait >= 1 or self.wait + self.ramp > 1:
            raise ValueError(f"wait must be below 1, and wait + ramp at most 1, got {wait} and {ramp}")
        if self.eps * self.stretch > 1:
            raise ValueError(f"stretch * eps must be at most 1, got {stretch} * {eps}")

    def schedule(self, progress: float) -> tuple[float, float]:
        """Return radius and share of plain cross-entropy at a point of training.

        Args:
            progress: share of the steps that were taken, in [0, 1].
        """
        grown = min(1.0, max(0.0, progress - self.wait) / self.ramp) if self.ramp else float(progress >= self.wait)
        return self.eps * self.stretch * grown, 1 - (1 - self.plain) * grown

    def certified(self, logits: Tensor, target: Tensor, upper: Tensor, plain: float) -> Tensor:
        """Compute the training loss from bounds.

        Args:
            logits: raw logits (N, C).
            target: int64 labels (N,).
            upper: u, upper bounds of f_k - f_y over the ball (N, C); differentiable.
            plain: share of plain softmax cross-entropy, see :meth:`schedule`.

        Returns:
            As :meth:`forward`.
        """
        true = logits.gather(1, target.unsqueeze(1))
        inference = upper - (logits - true)
        robust = inference_softmax_cross_entropy(
            logits, target, inference, per_example=True, **self._options(self.reduction)
        )
        return robust if plain == 0 else plain * self.forward(logits, target) + (1 - plain) * robust
