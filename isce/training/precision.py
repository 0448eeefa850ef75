"""The precision of a training: bfloat16 halves a step where the processor computes in it, and only there."""

from __future__ import annotations

from typing import Literal

import torch


def native(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; a processor without such instructions converts at every step."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def resolve(precision: str, device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return what ``float32``, ``bfloat16`` or ``auto`` means on a device: ``auto`` takes what is native there."""
    if precision == "auto":
        return "bfloat16" if native(device) else "float32"
    return "bfloat16" if precision == "bfloat16" else "float32"


def slow(precision: str, device: torch.device) -> bool:
    """Whether a run was told to use bfloat16 where the device only imitates it."""
    return precision == "bfloat16" and not native(device)
