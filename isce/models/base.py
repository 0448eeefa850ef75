"""What networks are made of: a backbone with normalisation inside, and the classifier around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.losses.checks import check_tensor, integer, numbers

Shape = tuple[int, int, int]


def check_images(x: object, shape: Shape) -> None:
    """Refuse what is no batch of floating-point images (N, *shape).

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: another shape.
    """
    check_tensor("images", x)
    assert isinstance(x, Tensor)
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {x.dtype}")
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        raise ValueError(f"images must be (N, {', '.join(map(str, shape))}), got {tuple(x.shape)}")


class Backbone(nn.Module):
    """Base of all networks: images in [0, 1] to embeddings, normalised before the first layer.

    A subclass sets its layers with :meth:`_set_layers`, or implements :meth:`features` and sets :attr:`embedding_dim`.
    The normalisation is by channel, or that of the released script after :meth:`normalise_as_released`.

    Args:
        input_shape: channels, height and width of an image.
        mean: mean of each channel over the training images, in [0, 1].
        std: standard deviation of each channel over the training images; a channel that never varies is divided by 1.

    Raises:
        ValueError: ``input_shape``, ``mean`` and ``std`` don't fit together or are out of range.
        TypeError: not numbers.
    """

    embedding_dim: int
    layers: nn.Sequential
    embed: nn.Module

    def __init__(self, input_shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape) < 1:
            raise ValueError(f"input_shape must be 3 positive numbers (channels, height, width), got {input_shape}")
        channels, height, width = (integer("each size of input_shape", size) for size in input_shape)
        self.input_shape: Shape = channels, height, width
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            found = numbers(name, values).float()
            if found.shape != (channels,) or not bool(((found >= 0) & (found <= 1)).all()):
                raise ValueError(f"{name} must be {channels} numbers in [0, 1], one a channel, got {values}")
            self.register_buffer(name, found.reshape(-1, 1, 1))
        self.std[self.std == 0] = 1.0
        self.mean_image: Tensor | None
        self.register_buffer("mean_image", None)

    def normalise_as_released(self) -> None:
        """From now on prepare images as the released script does: [-1, 1], less a mean image, then each standardised.

        The standardisation is the usual one: less the image's own mean, divided by the larger of its standard deviation
        and 1 / sqrt(values in it). The mean image (C, H, W), in [0, 1], starts at 0: fill :attr:`mean_image` with the
        mean of the training images, or load it. It is saved in the state dict.
        """
        self.mean_image = torch.zeros(self.input_shape)

    def normalise(self, x: Tensor) -> Tensor:
        """Images in [0, 1] (N, C, H, W) as the first layer sees them."""
        if self.mean_image is None:
            return (x - self.mean) / self.std
        centred = 2 * (x - self.mean_image)  # of images in [-1, 1] and their mean
        centred = centred - centred.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        # The floor comes before the root, whose gradient at 0 is infinite.
        return centred / variance.clamp(min=1 / math.prod(self.input_shape)).sqrt()

    def _at_least(self, size: int, name: str) -> Shape:
        """Return channels, height and width of an image; refuse one that is smaller (:class:`ValueError`)."""
        channels, height, width = self.input_shape
        if min(height, width) < size:
            raise ValueError(f"{name} needs images of at least {size}x{size}, got {height}x{width}")
        return channels, height, width

    def _set_layers(self, layers: Sequence[nn.Module], width: int, embedding_dim: int | None) -> None:
        """Set the layers, which end with ``width`` values, then a linear layer to ``embedding_dim`` values if asked."""
        self.layers = nn.Sequential(*layers)
        self.embed = nn.Identity() if embedding_dim is None else nn.Linear(width, embedding_dim)
        self.embedding_dim = width if embedding_dim is None else embedding_dim

    def scores(self, score_map: nn.Module) -> nn.Module:
        """The map from embedding to logits as this network needs it; here as it is."""
        return score_map

    def features(self, x: Tensor) -> Tensor:
        """Embeddings (N, embedding_dim) of normalised images (N, C, H, W)."""
        return self.embed(self.layers(x))

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images.

        Args:
            x: images (N, C, H, W), floating point, in [0, 1] (the range isn't checked: an attack checks its own).

        Returns:
            Embeddings (N, embedding_dim).

        Raises:
            TypeError: ``x`` isn't a tensor, or isn't floating point.
            ValueError: ``x`` has another shape than the network was built for.
        """
        return self.features(self.prepared(x))

    def prepared(self, x: Tensor) -> Tensor:
        """Check images (N, C, H, W) as :meth:`forward` does, and normalise them."""
        check_images(x, self.input_shape)
        return self.normalise(x)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that can keep to the statistics of the batch at hand in evaluation mode too.

    Running statistics are tracked while training either way, so that a network trained "as released" can also be
    evaluated with frozen statistics: set :attr:`batch_statistics` to False.

    Attributes:
        batch_statistics: in evaluation mode normalise by the batch at hand (True) or by running statistics (False).
    """

    def __init__(self, channels: int, batch_statistics: bool) -> None:
        super().__init__(channels)
        self.batch_statistics = batch_statistics

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """``input`` (N, C, H, W), normalised by channel."""
        if self.training or not self.batch_statistics:
            return super().forward(input)
        return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)


class Classifier(nn.Module):
    """A backbone and the map from its embedding to decision logits; prediction is the arg-max of the logits.

    Args:
        backbone: network that gives the embedding.
        score_map: map from embeddings (N, D) to logits (N, C), as the objective's ``score_map`` returns it.
    """

    def __init__(self, backbone: Backbone, score_map: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.score_map = score_map

    @property
    def batch_dependent(self) -> bool:
        """Whether, as it stands, logits of one image depend on the other images of the batch (in evaluation mode)."""
        return any(isinstance(m, BatchNorm) and m.batch_statistics for m in self.modules())

    @overload
    def forward(self, x: Tensor, return_embedding: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_embedding: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, return_embedding: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Raw logits of images in [0, 1].

        Args:
            x: images (N, C, H, W), floating point.
            return_embedding: also return the embedding that the logits were made from.

        Returns:
            Logits (N, classes), or logits and embedding (N, D).

        Raises:
            TypeError, ValueError: see :meth:`Backbone.forward`.
        """
        logits, embedding = self.outputs(x)
        return (logits, embedding) if return_embedding else logits

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding of images, as :meth:`forward` returns them."""
        embedding = self.backbone(x)
        return self.score_map(embedding), embedding
