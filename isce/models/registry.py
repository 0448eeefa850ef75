"""Networks by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature

from isce.losses.checks import integer, known
from isce.models.base import Backbone, Shape
from isce.models.lipschitz import LipschitzCNN, LipschitzDense
from isce.models.resnet import PreActivationResNet, ResNet18
from isce.models.shallow import EluCNN, IntervalCNN, LeNet, SmallCNN

_NETWORKS: dict[str, Callable[..., Backbone]] = {
    "elu-cnn": EluCNN,
    "interval-cnn": IntervalCNN,
    "lenet": LeNet,
    "lipschitz-cnn": LipschitzCNN,
    "lipschitz-dense": LipschitzDense,
    "resnet-18": ResNet18,
    "small-cnn": SmallCNN,
    **{f"preact-resnet-{depth}": partial(PreActivationResNet, depth) for depth in (20, 32, 110)},
}


def names() -> list[str]:
    """Names that :func:`build` knows, sorted."""
    return sorted(_NETWORKS)


def check_batch_statistics(name: str) -> None:
    """Refuse a network without batch normalisation (:class:`ValueError`)."""
    normalised = [key for key in names() if "batch_statistics" in signature(_NETWORKS[key]).parameters]
    if name not in normalised:
        allowed = ", ".join(normalised)
        raise ValueError(f"batch_statistics needs a network with batch normalisation ({allowed}), got {name!r}")


def build(
    name: str,
    *,
    input_shape: Shape,
    mean: Sequence[float],
    std: Sequence[float],
    embedding_dim: int | None = None,
    batch_statistics: bool = False,
) -> Backbone:
    """Build a backbone with random weights (from torch's global generator, as torch's layers draw them).

    Args:
        name: one of :func:`names`.
        input_shape: channels, height and width of an image.
        mean: mean of each channel, for images in [0, 1].
        std: standard deviation of each channel, for images in [0, 1].
        embedding_dim: width of the embedding; None: the network's own.
        batch_statistics: batch normalisation by the batch at hand even in evaluation mode, as in the released script.

    Raises:
        ValueError: unknown name, or parameters that the network can't take.
        TypeError: parameters that are no numbers.
    """
    network = known("network", name, _NETWORKS)
    if embedding_dim is not None and integer("embedding_dim", embedding_dim) < 1:
        raise ValueError(f"embedding_dim must be at least 1 or None, got {embedding_dim}")
    if not batch_statistics:
        return network(input_shape, mean, std, embedding_dim)
    check_batch_statistics(name)
    return network(input_shape, mean, std, embedding_dim, batch_statistics)
