"""A batch size that fits, chosen before the work from a measured probe instead of after running out of memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isce.attacks.base import untouched

PROBE = 8
#: What is planned for above the bytes that autograd saves: gradients on their way back, the buffers of convolutions,
#: and what the allocator can't reuse.
SAFETY = 3
#: Copies of its image that an attack holds for each image: point, former, best and next point, their gradients, noise.
COPIES = 16
CPU_BYTES = 2**30
GPU_SHARE = 0.5


def saved_bytes(classifier: nn.Module, images: Tensor) -> int:
    """Bytes that autograd saves in a forward pass for the gradient with respect to the images.

    Each storage counts once however often and in whatever form it is saved; weights and buffers don't count.

    Args:
        classifier: maps images to logits; runs on the device of its parameters; left as it was.
        images: (N, C, H, W), floating point.
    """
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # holds the storage until all are counted, so that no address is used twice

    with untouched(classifier):
        # A copy: a slice would be counted with the whole data set that its storage holds.
        x = images.detach().to(device_of(classifier, images), copy=True).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = classifier(x)
    del logits
    for weight in (*classifier.parameters(), *classifier.buffers()):
        storages.pop(weight.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def batch_size(classifier: nn.Module, images: Tensor, *, budget: int | None = None, most: int = 256) -> int:
    """How many images to attack at once, so that the memory they take stays within a budget.

    Planned for each image: ``SAFETY`` times what autograd saves for it, measured on ``PROBE`` images, and ``COPIES``
    times the image itself. The outcome is ``most`` or a power of two below it, so that a slightly different amount of
    free memory gives the same number. For a batch-dependent classifier the batch is a part of the network: choose it by
    hand.

    Args:
        classifier: maps images to logits; left as it was.
        images: (N, C, H, W), N >= 1, floating point; the first few are the probe.
        budget: bytes; None: on a GPU ``GPU_SHARE`` of the memory that is free now, on the CPU ``CPU_BYTES``, a fixed
            number, so that the outcome is the same on every machine.
        most: largest batch to use.

    Returns:
        1 to ``most``; 1 also where a single image doesn't fit.

    Raises:
        ValueError: no images, ``budget`` or ``most`` below 1.
    """
    if not len(images):
        raise ValueError("need at least one image to measure")
    if most < 1 or (budget is not None and budget < 1):
        raise ValueError(f"most and budget must be at least 1, got most={most}, budget={budget}")
    probe = images[:PROBE]
    each = SAFETY * saved_bytes(classifier, probe) / len(probe) + COPIES * probe[0].nbytes
    fit = int((_budget(device_of(classifier, images)) if budget is None else budget) / each)
    return most if fit >= most else 2 ** max(0, fit.bit_length() - 1)


def device_of(classifier: nn.Module, images: Tensor) -> torch.device:
    """Where the classifier computes: the device of its parameters, or of the images where it has none."""
    return next((p.device for p in classifier.parameters()), images.device)


def _budget(device: torch.device) -> float:
    return GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES
