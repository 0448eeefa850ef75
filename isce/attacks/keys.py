"""Randomness keyed by seed, image, restart and purpose: order, batches and a restart of the process don't change it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor


def _key(*parts: int | str, size: int = 4) -> int:
    """Make a seed of ``size`` bytes from whole numbers and words."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=size).digest()
    return int.from_bytes(digest, "big")


def keyed_noise(
    seed: int, index: Tensor, restart: int, shape: torch.Size, norm: str, *purpose: str, key_bytes: int = 4
) -> Tensor:
    """Draw uniform noise from the unit ball, one draw for each key (seed, index, restart, purpose).

    Args:
        seed: any integer.
        index: (N,) positions of the images in their data set.
        restart: number of the restart.
        shape: of one image.
        norm: ``linf`` or ``l2``.
        purpose: a word for what is drawn; none for a random start. Draws for two purposes are independent.
        key_bytes: of a generator's seed; 7 gives the draws of the min-max analysis, which scales in two steps.

    Returns:
        float32 (N, *shape) on the CPU.
    """
    noise = torch.empty(len(index), *shape)
    generator = torch.Generator()
    for row, position in zip(noise, index.tolist(), strict=True):
        generator.manual_seed(_key(seed, position, restart, *purpose, size=key_bytes))
        if norm == "linf":
            row.uniform_(-1, 1, generator=generator)
        else:  # a direction, times a radius with the density of the ball
            row.normal_(generator=generator)
            radius = torch.rand((), generator=generator) ** (1 / row.numel())
            row.mul_(radius / row.norm()) if key_bytes == 4 else row.div_(row.norm()).mul_(radius)
    return noise


def keyed_normal(seed: int, index: Tensor, shape: torch.Size, *purpose: str) -> Tensor:
    """Draw standard normal noise, one draw for each key (seed, index, purpose); float32 (N, *shape) on the CPU."""
    noise = torch.empty(len(index), *shape)
    generator = torch.Generator()
    for row, position in zip(noise, index.tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(_key(seed, position, *purpose)))
    return noise


def keyed_draws(seed: int, purpose: str, number: int) -> tuple[int, ...]:
    """Return keys of so many draws of a randomised classifier; those of two purposes are disjoint."""
    return tuple(_key(seed, draw, purpose, "draw", size=7) for draw in range(number))


def random_targets(seed: int, index: Tensor, y: Tensor, classes: int) -> Tensor:
    """Draw a wrong class for each image (N,), int64, uniform, by the key (seed, index) alone."""
    draws = torch.tensor([_key(seed, position, "target") for position in index.tolist()], device=y.device)
    return (y + 1 + draws % (classes - 1)) % classes


@contextmanager
def seeded(*key: int | str) -> Generator[None, None, None]:
    """Seed the global generators of torch (CPU and current GPU) and NumPy, for a package that draws from them; put
    them back afterwards.
    """  # noqa: D205
    import numpy as np  # the core needs torch only

    state = np.random.get_state()  # noqa: NPY002
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.manual_seed(_key(*key))
            np.random.seed(_key(*key))  # noqa: NPY002
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
