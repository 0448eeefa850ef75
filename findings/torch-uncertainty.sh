#!/bin/sh
# torch-uncertainty 0.13.0: a guarantee and two metrics. ConformalClsTHR and ConformalClsAPS say that their sets hold
# the label with probability 1 - alpha. They take the plain quantile of the calibration scores, without the correction
# for their finite number that the guarantee rests on (the package's ConformalRegCQR has it): with 100 images and alpha
# 0.01 twice as many labels are missed as promised. VariationRatio, said to take (images, members, classes), takes the
# first dimension for the members: an ensemble that agrees on all images looks as uncertain as can be, and how uncertain
# depends on which images share a batch. AURC and the metrics at a coverage or risk take equal confidences in any order:
# a network whose confidences are all 1 gets another value for each order of the images. See
# torch_uncertainty/post_processing/conformal/thr.py and aps.py, metrics/classification/variation_ratio.py and
# risk_coverage.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: alpha 0.1, 20 images to calibrate: labels missed, mean of 300 trials: THR 0.139, APS 0.132, by hand 0.092
#   seen: alpha 0.01, 100 images to calibrate: labels missed, mean of 300 trials: THR 0.020, APS 0.020, by hand 0.010
#   seen: VariationRatio of 5 members that agree on all 100 images, 10 a batch: 0.90
#   seen: VariationRatio of 5 members that agree on all 100 images, 2 a batch: 0.50
#   seen: VariationRatio of 5 members that agree on all 100 images, 1 a batch: 0.00
#   seen: given as (members, images, classes): 0.00
#   seen: 10 of 100 wrong, all confidences 1
#   seen: AURC in 40 orders of the images: 0.083 to 0.115
#   seen: CovAt5Risk in 40 orders of the images: 0.000 to 0.149

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torch-uncertainty
venv torch==2.13.0 numpy==2.4.6 scikit-learn==1.9.1 torchmetrics==1.9.0
# Without what it asks for: plots, and training by lightning.
pip install --quiet --disable-pip-version-check --no-deps torch-uncertainty==0.13.0
python - <<'PY'
import sys
from math import ceil
from unittest.mock import MagicMock

import torch
import torchmetrics  # noqa: F401 (before the plots that it uses where it finds them)
from _toy import see, versions
from torch.nn.functional import one_hot

plots = ("matplotlib", "matplotlib.axes", "matplotlib.figure", "matplotlib.pyplot", "matplotlib.ticker", "seaborn")
for name in ("torch_uncertainty.utils", "torch_uncertainty.utils.checks", "einops", "tqdm", *plots):
    sys.modules[name] = MagicMock()
from torch_uncertainty.metrics.classification import AURC, CovAt5Risk, VariationRatio
from torch_uncertainty.post_processing import ConformalClsAPS, ConformalClsTHR

versions(["torch-uncertainty==0.13.0"])
draws = torch.Generator().manual_seed(0)


def data(n):
    """Logits of a weak classifier of 10 classes, and labels."""
    labels = torch.randint(10, (n,), generator=draws)
    return torch.randn(n, 10, generator=draws) + one_hot(labels, 10), labels


for alpha, n in ((0.1, 20), (0.01, 100)):
    missed = {"THR": 0.0, "APS": 0.0, "by hand": 0.0}
    for _ in range(300):
        (logits, labels), (fresh, truth) = data(n), data(200)
        for name, kind in (("THR", ConformalClsTHR), ("APS", ConformalClsAPS)):
            torch.manual_seed(0)
            predictor = kind(alpha=alpha, model=torch.nn.Identity(), enable_ts=False)
            predictor.fit([(logits, labels)])
            missed[name] += float((predictor(fresh)[range(200), truth] == 0).float().mean()) / 300
        scores = 1 - logits.softmax(1)[range(n), labels]
        bound = scores.sort().values[ceil((n + 1) * (1 - alpha)) - 1]
        missed["by hand"] += float((1 - fresh.softmax(1)[range(200), truth] > bound).float().mean()) / 300
    text = ", ".join(f"{name} {value:.3f}" for name, value in missed.items())
    holds = min(missed["THR"], missed["APS"]) > 1.2 * alpha and missed["by hand"] < 1.1 * alpha
    see(f"alpha {alpha}, {n} images to calibrate: labels missed, mean of 300 trials: {text}", holds)
votes = one_hot(torch.arange(100) % 10, 10).float()[:, None].repeat(1, 5, 1)
for count in (10, 2, 1):
    ratio = VariationRatio()
    for batch in votes.split(count):
        ratio.update(batch)
    value = float(ratio.compute())
    text = f"VariationRatio of 5 members that agree on all 100 images, {count} a batch: {value:.2f}"
    see(text, abs(value - (1 - 1 / count)) < 1e-5)
ratio = VariationRatio()
ratio.update(votes.transpose(0, 1))
see(f"given as (members, images, classes): {float(ratio.compute()):.2f}", float(ratio.compute()) < 1e-6)
labels = torch.arange(1000) % 10
answers = torch.where(torch.arange(1000) < 100, (labels + 1) % 10, labels)
sure = (120.0 * one_hot(answers, 10)).softmax(1)
see(f"10 of 100 wrong, all confidences {float(sure.amax(1).min()):.0f}", float(sure.amax(1).min()) == 1)
for kind, spread in ((AURC, 0.01), (CovAt5Risk, 0.05)):
    values = []
    for _ in range(40):
        order = torch.randperm(1000, generator=draws)
        metric = kind()
        metric.update(sure[order], labels[order])
        values.append(float(metric.compute().nan_to_num(0)))
    text = f"{kind.__name__} in 40 orders of the images: {min(values):.3f} to {max(values):.3f}"
    see(text, max(values) - min(values) > spread)
PY
