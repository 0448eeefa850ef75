"""AugMix (Hendrycks et al. 2020): predictions that agree between an image and two mixtures of its augmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from isce.compat import import_transforms
from isce.defences.base import Batch, Defence, seeded
from isce.losses.checks import integer, number

GROUP = 16  # images that share the operations of one draw


class AugMix(Defence):
    """Train on L(x) + lam JSD(p(x), p(x'), p(x'')) with two augmentations of each image (Hendrycks et al. 2020).

    ``torchvision.transforms.v2.AugMix`` with severity 3, three chains of one to three operations, and without the
    operations that the paper leaves out because they are corruptions of its test (brightness, contrast, colour,
    sharpness). x' and x'' are whole bytes, which torchvision rounds down; its weakest solarisation still turns
    white black.

    For time's sake the operations of the chains are drawn once for every 16 images of a batch (torchvision shares
    them within a tensor); the weights of the mixture are drawn for each image. The paper draws all for each image.

    Args:
        lam: weight of the divergence, at least 0; the paper's is 12.
        severity: of an operation, 1 to 10.
        width: number of chains that are mixed, at least 1.
    """

    name = "augmix"
    title = "AugMix"
    source = "Hendrycks et al. 2020"

    def __init__(self, lam: float = 12.0, severity: int = 3, width: int = 3) -> None:
        super().__init__()
        self.lam = number("lam", lam, at_least=0)
        self.severity, self.width = integer("severity", severity), integer("width", width, at_least=1)
        number("severity", severity, at_least=1, at_most=10)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of the images as they are, and divergence; the accuracy is counted from the images as they are."""
        with seeded(batch.seed()):
            views = [batch.x, self.augmented(batch.x), self.augmented(batch.x)]
        logits, embedding = (part.chunk(3) for part in batch.outputs(torch.cat(views)))
        loss = batch.objective(logits[0], batch.y, embedding[0])
        return loss + self.lam * _divergence(logits), logits[0]

    def augmented(self, x: Tensor) -> Tensor:
        """Mixtures of augmentations of images (N, C, H, W) in [0, 1]; draws from torch's global generator."""
        mix = import_transforms().AugMix(severity=self.severity, mixture_width=self.width, all_ops=False)
        whole = (255 * x).round().to(torch.uint8).cpu()
        return torch.cat([mix(part) for part in whole.split(GROUP)]).to(x) / 255


def _divergence(logits: Sequence[Tensor]) -> Tensor:
    """Jensen-Shannon divergence of the softmax of logits (N, K), in nats, averaged over the images."""
    logs = torch.stack([one.log_softmax(1) for one in logits])
    mean = logs.logsumexp(0) - math.log(len(logs))  # of the probabilities, by logarithms: nothing underflows
    return (logs.exp() * (logs - mean)).sum(2).mean()
