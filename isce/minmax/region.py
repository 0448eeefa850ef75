"""The inference region, measured (derived here from the words of the paper's introduction, in both of its senses).

First sense: the gap between the distributions of clean data and of adversarial examples, as a trained model sees
it. Second sense: the Kullback-Leibler divergence between the ground truth and the prediction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from isce.losses.base import negative_margin
from isce.minmax.checks import check_logits


class InferenceRegion(NamedTuple):
    """What ``inference_region`` measures.

    Attributes:
        examples: one row per example. ``label``, ``prediction``, ``adversarial_prediction``; ``margin`` and
            ``adversarial_margin``, z_y - max_{k != y} z_k; ``margin_drop``, their difference; ``logit_shift``,
            ||z(x') - z(x)||_inf (half of the m that surely covers it: the box counterpart); ``covered``, margin > 2
            logit_shift, which implies that the attack failed; ``kl_clean_adversarial``, KL(p(x) || p(x'));
            ``kl_truth_clean`` and ``kl_truth_adversarial``, KL(onehot || p) = SCE at x and x'. Nats.
        classes: one row per class that occurs, then ``all``, as index. ``examples``, their number; the mean of
            every measure above; ``feature_shift``, ||mean h(x') - mean h(x)||_2 of the embeddings h;
            ``feature_spread``, root mean square distance of the clean h from their mean; ``relative_shift``, the first
            over the second (in the row ``all`` its mean over classes); ``frechet_distance`` of clean and adversarial
            h, see that function. In the row ``all`` alone (NaN elsewhere): ``separation`` and
            ``adversarial_separation``, :func:`scatter_ratio` of clean and adversarial h.
    """

    examples: pd.DataFrame
    classes: pd.DataFrame


def inference_region(clean: tuple[Tensor, Tensor], attacked: tuple[Tensor, Tensor], y: Tensor) -> InferenceRegion:
    """Measure the inference region of a trained model under one attack.

    Args:
        clean: logits (N, C) and embeddings (N, D) of the images.
        attacked: the same of the attack's points.
        y: (N,) int64 classes.

    Returns:
        The measures per example and per class.

    Raises:
        ValueError: logits and classes that don't fit each other.
        TypeError: logits not floating point or labels not int64.
    """
    target = y.cpu()
    (logits, features), (other, moved) = ([part.double().cpu() for part in parts] for parts in (clean, attacked))
    check_logits(logits, target)
    check_logits(other, target)
    examples = _per_example(logits, other, target)
    return InferenceRegion(examples, _per_class(examples, features, moved))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians fitted to two sets of features (Dowson, Landau 1982).

    ||m1 - m2||^2 + tr(S1 + S2 - 2 (S1^{1/2} S2 S1^{1/2})^{1/2}). With few examples per dimension a sample
    covariance is far off, so both are shrunk towards a multiple of the identity as Ledoit and Wolf (2004) do; the
    shrinkage fades as examples grow.

    Args:
        first: (N, D) finite.
        second: (M, D) finite.

    Returns:
        The squared distance, in squared feature units; NaN with fewer than two examples on either side.
    """
    if min(len(first), len(second)) < 2:
        return float("nan")
    mean = ((first.mean(0) - second.mean(0)) ** 2).sum()
    one, other = (torch.from_numpy(np.asarray(_covariance(f))) for f in (first, second))
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return max(float(mean + one.trace() + other.trace() - 2 * cross), 0.0)


def scatter_ratio(features: Tensor, labels: Tensor) -> float:
    """Scatter between classes over scatter within: sum_c n_c ||m_c - m||^2 / sum_i ||h_i - m_{c(i)}||^2 (Fisher).

    Args:
        features: (N, D).
        labels: (N,) int64.

    Returns:
        The ratio of the traces, free of the features' scale; infinite where no class has any scatter, NaN with one.
    """
    _, place, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return float("nan")
    means = torch.zeros(len(counts), features.shape[1], dtype=features.dtype).index_add_(0, place, features)
    means = means / counts[:, None]
    within = (features - means[place]).square().sum()
    between = (counts * (means - features.mean(0)).square().sum(1)).sum()
    return float(between / within)


def _covariance(features: Tensor) -> np.ndarray:
    from sklearn.covariance import ledoit_wolf  # a second to import, for each training as well

    return ledoit_wolf(features.double().cpu().numpy())[0]


def _per_example(clean: Tensor, attacked: Tensor, target: Tensor) -> pd.DataFrame:
    margins = -negative_margin(clean, target), -negative_margin(attacked, target)
    shift = (attacked - clean).abs().amax(1)
    log_clean, log_attacked = F.log_softmax(clean, 1), F.log_softmax(attacked, 1)
    divergence = (log_clean.exp() * (log_clean - log_attacked)).sum(1).clamp(min=0)
    columns = {
        "label": target,
        "prediction": clean.argmax(1),
        "adversarial_prediction": attacked.argmax(1),
        "margin": margins[0],
        "adversarial_margin": margins[1],
        "margin_drop": margins[0] - margins[1],
        "logit_shift": shift,
        "covered": margins[0] > 2 * shift,
        "kl_clean_adversarial": divergence,
        "kl_truth_clean": F.nll_loss(log_clean, target, reduction="none"),
        "kl_truth_adversarial": F.nll_loss(log_attacked, target, reduction="none"),
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def _per_class(examples: pd.DataFrame, features: Tensor, moved: Tensor) -> pd.DataFrame:
    measures = [c for c in examples.columns if not c.endswith(("label", "prediction"))]
    groups = {int(c): np.flatnonzero(examples["label"] == c) for c in sorted(examples["label"].unique())}
    rows: dict[int | str, dict[str, float]] = {}
    for name, members in (*groups.items(), ("all", np.arange(len(examples)))):
        clean, attacked = features[members], moved[members]
        centre = clean.mean(0)
        rows[name] = {
            "examples": len(members),
            **examples.iloc[members][measures].astype(float).mean().to_dict(),
            "feature_shift": float((attacked.mean(0) - centre).norm()),
            "feature_spread": float(((clean - centre) ** 2).sum(1).mean().sqrt()),
            "frechet_distance": frechet_distance(clean, attacked),
        }
        rows[name]["relative_shift"] = rows[name]["feature_shift"] / max(rows[name]["feature_spread"], 1e-30)
        rows[name] |= {"separation": float("nan"), "adversarial_separation": float("nan")}
    labels = torch.tensor(examples["label"].tolist())
    rows["all"]["relative_shift"] = float(np.mean([rows[name]["relative_shift"] for name in groups]))
    rows["all"]["separation"] = scatter_ratio(features, labels)
    rows["all"]["adversarial_separation"] = scatter_ratio(moved, labels)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")
