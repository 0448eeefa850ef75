#!/bin/sh
# torchmetrics 1.9.0: probabilities that are taken for logits. A batch with one value outside [0, 1] counts as logits,
# and the whole batch goes through the softmax (or sigmoid) once more. One rounding is enough: ten members of an
# ensemble that are sure of a class give 0.1 each, in float32 the sum is 1.0000001. The calibration error of a good
# network becomes that of a bad one, by one image out of a thousand, and by how much depends on the size of the batches.
# In BinaryAccuracy each probability above 0 is then above 0.5. No warning is given.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: ten equal networks that are sure of a class: the mean of their probabilities is at most 1 + 1.2e-07
#   seen: calibration error of one of them 0.050, of their mean 0.718
#   seen: 1000 images: calibration error 0.013
#   seen: one of them is such a mean: 0.730 in one batch, 0.085 in batches of 100, warnings: 0
#   seen: BinaryAccuracy of 500 at 0.7 and 500 at 0.3: 1.000; one of them is such a mean: 0.500

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torchmetrics
venv torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
python - <<'PY'
import warnings

import torch
from _toy import see
from torchmetrics.classification import BinaryAccuracy, MulticlassCalibrationError


def calibration(probabilities, size=1000):
    metric = MulticlassCalibrationError(num_classes=10)
    for some, labels in zip(probabilities.split(size), target.split(size)):
        metric.update(some, labels)
    return float(metric.compute())


target = torch.arange(1000) % 10
predicted = torch.where(torch.arange(1000) % 20 == 0, (target + 1) % 10, target)  # 95% are right
member = torch.nn.functional.one_hot(predicted, 10).float()
mean = sum(member / 10 for _ in range(10))
above = float(mean.max()) - 1
text = "ten equal networks that are sure of a class: the mean of their probabilities is at most"
see(f"{text} 1 + {above:.1e}", 0 < above < 1e-6 and torch.allclose(mean, member))
alone, together = calibration(member), calibration(mean)
text = f"calibration error of one of them {alone:.3f}, of their mean {together:.3f}"
see(text, abs(alone - 0.05) < 1e-3 and together > 0.5)
probabilities = 0.93 * member + 0.007
good = calibration(probabilities)
see(f"1000 images: calibration error {good:.3f}", good < 0.02)
probabilities[0] = mean[0]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    whole, parts = calibration(probabilities), calibration(probabilities, 100)
text = f"one of them is such a mean: {whole:.3f} in one batch, {parts:.3f} in batches of 100, warnings: {len(said)}"
see(text, whole > 0.5 and 3 * good < parts < whole / 2 and not said)
even = torch.arange(1000) % 2 == 0
binary = torch.where(even, 0.7, 0.3)
before = float(BinaryAccuracy()(binary, even.long()))
binary[0] = mean.max()
after = float(BinaryAccuracy()(binary, even.long()))
text = f"BinaryAccuracy of 500 at 0.7 and 500 at 0.3: {before:.3f}; one of them is such a mean: {after:.3f}"
see(text, before == 1 and after == 0.5)
PY
