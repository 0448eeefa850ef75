"""Networks for images in [0, 1], normalisation inside. Imports torch only.

A network is a :class:`Backbone` (image to embedding) and a score map (embedding to decision scores, owned by the
objective), joined by one :class:`Classifier`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isce.models.base import Backbone, Classifier, Shape
from isce.models.shallow import LeNet, SmallCNN

__all__ = ["Backbone", "Classifier", "LeNet", "SmallCNN", "build", "names"]

_NETWORKS: dict[str, Callable[..., Backbone]] = {"lenet": LeNet, "small-cnn": SmallCNN}


def names() -> list[str]:
    """Names that :func:`build` knows, sorted."""
    return sorted(_NETWORKS)


def build(
    name: str,
    *,
    input_shape: Shape,
    mean: Sequence[float],
    std: Sequence[float],
    embedding_dim: int | None = None,
) -> Backbone:
    """A new backbone with random weights (from torch's global generator, as torch's layers draw them).

    Args:
        name: one of :func:`names`.
        input_shape: channels, height and width of an image.
        mean: mean of each channel, for images in [0, 1].
        std: standard deviation of each channel, for images in [0, 1].
        embedding_dim: width of the embedding; None: the network's own.

    Raises:
        ValueError: unknown name, or parameters that the network can't take.
    """
    if name not in _NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(names())}")
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"embedding_dim must be at least 1 or None, got {embedding_dim}")
    return _NETWORKS[name](input_shape, mean, std, embedding_dim)
