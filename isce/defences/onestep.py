"""Adversarial training at scale (Kurakin et al. 2017): half of each batch is moved by one step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.defences.base import Batch, Defence
from isce.losses.checks import number


class OneStep(Defence):
    """Train on clean images and on images after one step, half of each batch each (Kurakin et al. 2017).

    Of m images the last k = m // 2 become x - eps sign(d CE(x, y_ll) / d x), clipped to [0, 1]: a step towards y_ll,
    the class that the network finds least likely, so that no label leaks into the step. The loss is
    ((m - k) L_clean + weight k L_adversarial) / (m - k + weight k) with the objective's loss of each half, a mean.
    Taken here: the step goes down the cross-entropy of the raw logits, whatever the objective; half of the batch as in
    the paper's runs.

    Each image has its own eps: the absolute value of a normal draw, drawn until it is at most ``clip``.

    Args:
        weight: of the adversarial half, at least 0; the paper's is 0.3.
        clip: largest eps, in (0, 1], in units of [0, 1]; 0.3 is DEEPSEC's for MNIST (the paper's 16/255 is for
            ImageNet).
        deviation: of the normal, above 0, in units of [0, 1]; 50/255 is DEEPSEC's for MNIST.
    """

    name = "one-step"
    title = "one-step adversarial training"
    source = "Kurakin et al. 2017"

    def __init__(self, weight: float = 0.3, clip: float = 0.3, deviation: float = 50 / 255) -> None:
        super().__init__()
        self.weight = number("weight", weight, at_least=0)
        self.clip = number("clip", clip, above=0, at_most=1)
        self.deviation = number("deviation", deviation, above=0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted loss of both halves; the logits are those of the images as the network is shown them."""
        k = len(batch.y) // 2
        clean = len(batch.y) - k
        x = torch.cat([batch.x[:clean], self._moved(batch, batch.x[clean:])]) if k else batch.x
        logits, embedding = batch.outputs(x)

        def half(part: slice) -> Tensor:
            return batch.objective(logits[part], batch.y[part], embedding[part])

        if not k:
            return half(slice(None)), logits
        total = clean * half(slice(clean)) + self.weight * k * half(slice(clean, None))
        return total / (clean + self.weight * k), logits

    def _moved(self, batch: Batch, x: Tensor) -> Tensor:
        """Images (k, C, H, W) after one step towards their least likely class."""
        sizes = torch.empty(len(x), 1, 1, 1)
        nn.init.trunc_normal_(sizes, 0, self.deviation, 0, self.clip, generator=batch.draws)
        x = x.detach().requires_grad_()
        logits, _ = batch.outputs(x)
        cost = F.cross_entropy(logits, logits.argmin(1), reduction="sum")
        (slope,) = torch.autograd.grad(cost, x)
        return (x.detach() - sizes.to(x) * slope.sign()).clamp(0, 1)
