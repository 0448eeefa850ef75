"""A classifier that resizes and pads its images at random before it looks at them (Xie et al. 2018), with keyed draws.

A draw is a number, its key. It decides size and place by itself, for all images alike, so that an image's logits depend
neither on the batch around it nor on how often the network was called before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.checks import integer
from isce.models.base import Backbone, Classifier, Shape, check_images

SHARE = 331 / 299  # side of the padded image, as a share of the image's: the paper's, on ImageNet


class Sides(NamedTuple):
    """Sides of square images, in pixels: as given, the largest after resizing, and after padding."""

    given: int
    largest: int
    padded: int

    def place(self, draw: int) -> tuple[int, int, int]:
        """Size, first row and first column of the resized image within the padded one, uniform over the draws."""
        digest = hashlib.blake2b(f"resize-pad/{draw}".encode(), digest_size=24).digest()
        one, two, three = (int.from_bytes(digest[start : start + 8], "big") for start in (0, 8, 16))
        size = self.given + one % (self.largest - self.given + 1)
        return size, two % (self.padded - size + 1), three % (self.padded - size + 1)


def sides(shape: Shape, largest: int | None = None, padded: int | None = None) -> Sides:
    """Check the sides that go with images of a shape, and fill in what is not given.

    Args:
        shape: channels, height and width of an image.
        largest: of the sizes that an image is resized to, from its own up; None: one less than ``padded``.
        padded: side of the padded image; None: 331/299 of the image's, rounded up, at least 2 more.

    Raises:
        TypeError: not integers.
        ValueError: images that aren't square, or sides that don't rise: given <= largest <= padded, given < padded.
    """
    _, height, given = shape
    if height != given:
        raise ValueError(f"resize-pad needs square images, got {height}x{given}")
    padded = max(math.ceil(SHARE * given), given + 2) if padded is None else integer("padded", padded)
    largest = padded - 1 if largest is None else integer("largest", largest)
    if not given <= largest <= padded or given == padded:
        rule = f"at least {given}, the image's side, and largest at most padded, which must be above {given}"
        raise ValueError(f"largest and padded must be {rule}; got {largest} and {padded}")
    return Sides(given, largest, padded)


class ResizePadClassifier(Classifier):
    """A classifier of images that are resized (bilinear) and padded with 0 at a random place.

    In evaluation mode logits and embedding are means over :attr:`draws`. One draw is the defence as its authors use it.
    Several are what an adversary sees who knows it. The logits are averaged, not their log-probabilities: of an image
    the two differ by the same number for all classes, so decision, margin and cross-entropy are the same, and a score
    map whose scale has a meaning keeps it. The mean over draws is not the defence: judge one draw at a time.

    Args:
        backbone: network for the padded images, ``backbone.input_shape``.
        score_map: map from embeddings to logits.
        sides: of images, resized and padded ones.

    Attributes:
        draws: keys of the draws in evaluation mode, at least one.
        drawn: key of the draw in training mode; None: as in evaluation mode.
    """

    def __init__(self, backbone: Backbone, score_map: nn.Module, sides: Sides) -> None:
        super().__init__(backbone, score_map)
        self.sides = sides
        self.draws: tuple[int, ...] = (0,)
        self.drawn: int | None = None

    def transform(self, x: Tensor, draw: int) -> Tensor:
        """Images (N, C, side, side) in [0, 1] as one draw shows them, (N, C, padded, padded) in [0, 1]."""
        size, top, left = self.sides.place(draw)
        if size != self.sides.given:
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        right, bottom = (self.sides.padded - size - start for start in (left, top))
        return F.pad(x, (left, right, top, bottom))

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the draws of logits (N, classes) and embeddings (N, D), for images in [0, 1].

        Raises:
            TypeError, ValueError: as :meth:`isce.models.base.Backbone.forward`; no draws.
        """
        check_images(x, (self.backbone.input_shape[0], self.sides.given, self.sides.given))
        draws = self.draws if self.drawn is None or not self.training else (self.drawn,)
        if not draws:
            raise ValueError("draws must hold at least one key")
        parts = [Classifier.outputs(self, self.transform(x, draw)) for draw in draws]
        logits, embedding = (torch.stack(several).mean(0) for several in zip(*parts, strict=True))
        return logits, embedding


def is_randomised(classifier: Any) -> bool:
    """Whether a classifier computes with keyed draws, which its attribute ``draws`` holds."""
    return hasattr(classifier, "draws")


@contextmanager
def at(classifier: Any, draws: Sequence[int]) -> Generator[None]:
    """Let a classifier compute with these draws inside; afterwards with its own.

    Raises:
        TypeError: it has none.
    """
    if not is_randomised(classifier):
        raise TypeError(f"{type(classifier).__name__} has no draws")
    before = classifier.draws
    classifier.draws = tuple(draws)
    try:
        yield
    finally:
        classifier.draws = before
