"""Every loss written out for one example after another in plain floats, from its paper, to hold ours against."""

from __future__ import annotations

import math
from typing import Any

Rows = list[list[float]]

# The suite's problems have 4 classes and embeddings of 3.
CENTRES = [[0.5, 0.0, -1.0], [0.0, 1.0, 0.0], [-0.25, 0.5, 0.0], [1.0, 1.0, 1.0]]
HALF_LOG_DET = [0.25, -0.5, 0.0, 0.75]


def entropy(z: list[float], y: int, smoothing: float = 0.0) -> float:
    """Cross-entropy of softmax(z) with the smoothed label."""
    top = max(z)
    log_sum = top + math.log(sum(math.exp(v - top) for v in z))
    label = [smoothing / len(z) + (1 - smoothing) * (k == y) for k in range(len(z))]
    return sum(q * (log_sum - v) for q, v in zip(label, z, strict=True) if q)


def squared(a: list[float], b: list[float]) -> float:
    return sum((u - v) ** 2 for u, v in zip(a, b, strict=True))


def normalised(a: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in a))
    return [v / length if length else 0.0 for v in a]


def sce(logits: Rows, target: list[int], embedding: Rows, smoothing: float) -> list[float]:
    return [entropy(z, y, smoothing) for z, y in zip(logits, target, strict=True)]


def isce(logits: Rows, target: list[int], embedding: Rows, smoothing: float, inference: Any = 2.0) -> list[float]:
    result = []
    for z, y in zip(logits, target, strict=True):
        m = inference[y] if isinstance(inference, list) else inference
        terms = m if isinstance(m, list) else [m] * len(z)
        result.append(entropy([v + (terms[k] if k != y else 0.0) for k, v in enumerate(z)], y, smoothing))
    return result


def isce_released(
    logits: Rows,
    target: list[int],
    embedding: Rows,
    smoothing: float,
    inference: float = 0.1,
    scale: float = 1.0,
    clip: bool = True,
) -> list[float]:
    result = []
    for z, y in zip(logits, target, strict=True):
        out = normalised(z)
        p = z.index(max(z))
        out[p] = scale * (out[p] + inference)
        if clip:
            out[p] = min(max(out[p], -1.0), 1.0)
        result.append(entropy(out, y, smoothing))
    return result


def contrastive(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, margin: float = 1.0, lam: float = 0.05
) -> list[float]:
    result = []
    for i, y in enumerate(target):
        terms = []
        for j, other in enumerate(target):
            if j == i:
                continue
            distance = math.sqrt(squared(embedding[i], embedding[j]))
            terms.append(distance**2 / 2 if other == y else max(0.0, margin - distance) ** 2 / 2)
        verification = sum(terms) / len(terms) if terms else 0.0
        result.append(entropy(logits[i], y, smoothing) + lam * verification)
    return result


def triplet(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, margin: float = 0.2, lam: float = 1.0
) -> list[float]:
    u = [normalised(h) for h in embedding]
    result = []
    for a, y in enumerate(target):
        negatives = [squared(u[a], u[n]) for n, other in enumerate(target) if other != y]
        terms = []
        for p, other in enumerate(target):
            if p == a or other != y or not negatives:
                continue
            positive = squared(u[a], u[p])
            semi_hard = [d for d in negatives if d > positive]
            terms.append(max(0.0, positive - (min(semi_hard) if semi_hard else max(negatives)) + margin))
        result.append(entropy(logits[a], y, smoothing) + lam * (sum(terms) / len(terms) if terms else 0.0))
    return result


def center(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, lam: float = 0.003, alpha: float = 0.5
) -> list[float]:
    rows = zip(logits, target, embedding, strict=True)
    return [entropy(z, y, smoothing) + lam / 2 * squared(h, CENTRES[y]) for z, y, h in rows]


def lgm(
    logits: Rows,
    target: list[int],
    embedding: Rows,
    smoothing: float,
    alpha: float = 0.3,
    lam: float = 0.1,
    covariance: str = "identity",
) -> list[float]:
    result = []
    half_log_det = HALF_LOG_DET if covariance == "diagonal" else [0.0] * len(HALF_LOG_DET)
    for z, y in zip(logits, target, strict=True):
        d = [-v - half for v, half in zip(z, half_log_det, strict=True)]
        values = [-(1 + alpha * (k == y)) * d[k] - half_log_det[k] for k in range(len(z))]
        result.append(entropy(values, y, smoothing) + lam * (d[y] + half_log_det[y]))
    return result


def mmc(logits: Rows, target: list[int], embedding: Rows, smoothing: float, c_mm: float = 10.0) -> list[float]:
    return [-z[y] / 2 for z, y in zip(logits, target, strict=True)]


def cosface(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, scale: float = 10.0, margin: float = 0.35
) -> list[float]:
    return [
        entropy([v - scale * margin * (k == y) for k, v in enumerate(z)], y, smoothing)
        for z, y in zip(logits, target, strict=True)
    ]


def arcface(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, scale: float = 10.0, margin: float = 0.5
) -> list[float]:
    def turned(cosine: float) -> float:
        if abs(cosine) > 1:  # not an angle: its sine counts as 0
            return cosine * math.cos(margin) if cosine > 0 else cosine - margin * math.sin(margin)
        theta = math.acos(cosine)
        return math.cos(theta + margin) if theta + margin < math.pi else cosine - margin * math.sin(margin)

    return [
        entropy([scale * turned(v / scale) if k == y else v for k, v in enumerate(z)], y, smoothing)
        for z, y in zip(logits, target, strict=True)
    ]


def logit_squeezing(
    logits: Rows, target: list[int], embedding: Rows, smoothing: float, lam: float = 0.5
) -> list[float]:
    return [
        entropy(z, y, smoothing) + lam * math.sqrt(sum(v * v for v in z)) for z, y in zip(logits, target, strict=True)
    ]
