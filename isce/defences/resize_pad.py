"""Random resizing and padding (Xie et al. 2018): the network sees each image at another size and place."""

from __future__ import annotations

import torch

from isce.defences.base import Defence, Setting
from isce.losses.checks import integer
from isce.models import Classifier
from isce.models.base import Shape
from isce.models.randomised import ResizePadClassifier, sides


class ResizePad(Defence):
    """Resize an image to a random side from its own to ``largest``, and pad it with 0 at a random place to ``padded``.

    A part of the network (:class:`isce.models.randomised.ResizePadClassifier`), when it is tested as well. The paper
    leaves the interpolation open, here bilinear, and adds the layers to a network that is already trained; small
    images need a network trained with them, so here each batch is trained on at a draw of its own. Sizes and places
    are few: 29 on MNIST by default, 13 on digits.

    Args:
        largest: side in pixels, at least the image's; None: one less than ``padded``.
        padded: side in pixels, above the image's; None: 331/299 of the image's as in the paper, at least 2 more: 31 for
            MNIST, 36 for CIFAR-10.
    """

    name = "resize-pad"
    title = "resize and pad"
    source = "Xie et al. 2018"
    randomised = True

    def __init__(self, largest: int | None = None, padded: int | None = None) -> None:
        super().__init__()
        for what, value in (("largest", largest), ("padded", padded)):
            if value is not None:
                integer(what, value, at_least=1)
        if largest is not None and padded is not None and largest > padded:
            raise ValueError(f"largest must be at most padded, got {largest} and {padded}")
        self.largest, self.padded = largest, padded

    def check_run(self, run: Setting) -> None:
        """Refuse the released normalisation, and sides that don't suit the data's images."""
        sides(run.shape, self.largest, self.padded)
        if run.normalisation == "released":
            raise ValueError(f"the released normalisation has no mean image that {self.name} could move")

    def seen(self, shape: Shape) -> Shape:
        """Give the shape of the padded images."""
        padded = sides(shape, self.largest, self.padded).padded
        return shape[0], padded, padded

    def wrap(self, classifier: Classifier, shape: Shape) -> ResizePadClassifier:
        """Put the random layers before the backbone."""
        return ResizePadClassifier(classifier.backbone, classifier.score_map, sides(shape, self.largest, self.padded))

    def draw(self, classifier: Classifier, draws: torch.Generator) -> None:
        """Draw size and place for a batch."""
        assert isinstance(classifier, ResizePadClassifier)
        classifier.drawn = int(torch.randint(2**62, (1,), generator=draws))
