"""Batches from a set that lies whole on the device, as bytes; augmentation there as well."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from isce.data.sets import Split

SHIFT = 0.1  # largest shift, as a share of the side


class DeviceSet:
    """One split on the device: bytes and labels."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.images, self.labels, self.peak = split.images.to(device), split.labels.to(device), split.peak

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, moves: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and labels at ``index``; images flipped, then shifted, as drawn by :func:`draw_moves`."""
        if moves is None:
            images = self.images[index]
        else:
            _, channels, height, width = self.images.shape
            every = torch.arange(max(channels, height, width), device=index.device)
            # A shifted image is continued by its edge pixels.
            rows = (every[:height] - moves["down"][index, None]).clamp(0, height - 1)[:, None, :, None]
            columns = (every[:width] - moves["right"][index, None]).clamp(0, width - 1)
            columns = torch.where(moves["flip"][index, None], width - 1 - columns, columns)[:, None, None, :]
            images = self.images[index[:, None, None, None], every[:channels, None, None], rows, columns]
        unit = images.to(torch.float32) / self.peak
        return unit.contiguous(memory_format=torch.channels_last), self.labels[index]


def mean_image(split: Split) -> Tensor:
    """Mean of each pixel (C, H, W) over a split, images in [0, 1]; from whole numbers, so exact until the division."""
    total = sum(part.sum(0, dtype=torch.int64) for part in split.images.split(1000))
    assert isinstance(total, Tensor)
    return (total.double() / (len(split) * split.peak)).to(torch.float32)


def draw_moves(split: DeviceSet, generator: torch.Generator) -> dict[str, Tensor]:
    """Shifts of up to a tenth of the side either way, in pixels, and horizontal flips: one draw for each image."""
    height, width = split.images.shape[2:]
    down, right = round(SHIFT * height), round(SHIFT * width)
    size = (len(split),)
    drawn = {
        "down": torch.randint(-down, down + 1, size, generator=generator),
        "right": torch.randint(-right, right + 1, size, generator=generator),
        "flip": torch.randint(0, 2, size, generator=generator).bool(),
    }
    return {name: tensor.to(split.images.device) for name, tensor in drawn.items()}
