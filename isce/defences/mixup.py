"""mixup (Zhang et al. 2018): training on convex combinations of two images and of their labels."""

from __future__ import annotations

from torch import Tensor

from isce.compat import import_transforms
from isce.defences.base import Batch, Defence, seeded
from isce.losses.checks import number


class Mixup(Defence):
    """Train on x_lam = lam x_i + (1 - lam) x_j with the target lam e_i + (1 - lam) e_j (Zhang et al. 2018, eq. 1).

    One lam ~ Beta(alpha, alpha) for each batch, whose images are mixed with their neighbours in it
    (``torchvision.transforms.v2.MixUp``).

    Args:
        alpha: of the Beta distribution, above 0; 1, the default, is uniform, as in the paper's CIFAR-10 runs.
    """

    name = "mixup"
    title = "mixup"
    source = "Zhang et al. 2018"
    soft = True

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = number("alpha", alpha, above=0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of the mixed images; the logits are those of the mixed images too."""
        with seeded(batch.seed()):
            x, target = import_transforms().MixUp(alpha=self.alpha, num_classes=batch.classes)(batch.x, batch.y)
        logits, embedding = batch.outputs(x)
        return batch.objective(logits, target, embedding), logits
