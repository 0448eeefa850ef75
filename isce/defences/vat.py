"""Virtual adversarial training (Miyato et al. 2017): predictions that a small move of the image hardly changes."""

from __future__ import annotations

import torch
from torch import Tensor

from isce.defences.base import Batch, Defence, Setting, divergence
from isce.losses.checks import number


class VirtualAdversarial(Defence):
    """Train on L + mean KL(p(x) || p(x + r)), where ||r||_2 = eps points where the divergence grows fastest.

    r is found by one power iteration (Miyato et al. 2017, section 3.3): from a random unit d, r = eps g / ||g|| with g
    the gradient of KL(p(x) || p(x + xi d)) for d. As in the paper p(x) is a constant in both, the gradient stops at r,
    the weight of the divergence is 1, and x + r need not lie in [0, 1]. No label is used to find r.

    The paper's xi is 1e-6. In float32 a move that short is lost in the rounding of pixels and probabilities, and g
    points anywhere; at 1e-3, taken here, it points as it does in float64. In bfloat16 that is lost as well: refused.

    Args:
        eps: length of r, above 0, in units of [0, 1]; the paper chooses it on validation images for each
            data set. 4 is taken here, about half the length of an MNIST image.
        xi: length of the trial move, above 0, in units of [0, 1].
    """

    name = "vat"
    title = "virtual adversarial training"
    source = "Miyato et al. 2017"

    def __init__(self, eps: float = 4.0, xi: float = 1e-3) -> None:
        super().__init__()
        self.eps = number("eps", eps, above=0)
        self.xi = number("xi", xi, above=0)

    def check_run(self, run: Setting) -> None:
        """Refuse every precision but float32."""
        if run.precision != "float32":
            raise ValueError(f"{self.name} needs float32 to find its direction: precision must be float32")

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and divergence; the accuracy is counted from the images as they are."""
        logits, embedding = batch.outputs(batch.x)
        log_p = logits.detach().log_softmax(1)
        move = self.eps * self._direction(batch, log_p)
        smooth = divergence(log_p, batch.outputs(batch.x + move)[0])
        return batch.objective(logits, batch.y, embedding) + smooth.mean(), logits

    def _direction(self, batch: Batch, log_p: Tensor) -> Tensor:
        """Unit vectors, shaped as the images; the random ones where the gradient is 0."""
        start = _unit(torch.randn(batch.x.shape, generator=batch.draws).to(batch.x))
        trial = (self.xi * start).requires_grad_()
        logits = batch.outputs(batch.x.detach() + trial)[0]
        # Relative to the top logit, whose own derivative q - p is lost in float32 where p is nearly 1: it is then minus
        # the sum of the others'. The softmax is the same.
        logits = logits - logits.gather(1, log_p.argmax(1, keepdim=True))
        spread = divergence(log_p, logits).sum()
        (slope,) = torch.autograd.grad(spread, trial)
        alive = (slope != 0).flatten(1).any(1).view(-1, 1, 1, 1)
        return torch.where(alive, _unit(slope), start)


def _unit(vectors: Tensor) -> Tensor:
    """Each image's values scaled to l_2 norm 1, or 0 if they are all 0."""
    # The largest becomes 1 first: the squares of a confident network's gradient are below what float32 holds.
    vectors = vectors / vectors.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / vectors.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1)
