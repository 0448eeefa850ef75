"""Exact constants of linear logits, which the bounds are judged against."""

import math

import torch
from torch import Tensor


def linear_constants(weight: Tensor, norm: float) -> Tensor:
    """Return K_{yk} = ||w_k - w_y||_q with 1/p + 1/q = 1 (Hoelder, attained) for logits W x + b on an l_p ball."""
    dual = math.inf if norm == 1 else 1.0 if norm == math.inf else norm / (norm - 1)
    return torch.linalg.vector_norm(weight[:, None] - weight[None], ord=dual, dim=2)
