#!/bin/sh
# netcal 1.4.0: bins with too few images count as perfectly calibrated. sample_threshold, said to leave such bins out of
# the calibration errors, sets their accuracy and their confidence to 0, so their error is 0, and keeps them in the
# denominator: ECE divides by all images, ACE by all bins that have any. The fewer bins are left the better the network
# looks, and with none left every error is 0, without a word. And where only two labels occur among the images, or among
# those of one batch, a network of more classes is taken for one of two, and refused. See
# netcal/metrics/Miscalibration.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: sample_threshold 1: ECE 0.266, ACE 0.544, MCE 0.850
#   seen: sample_threshold 100: ECE 0.000, ACE 0.000, MCE 0.000
#   seen: sample_threshold 1000: ECE 0.000, ACE 0.000, MCE 0.000
#   seen: 667 of these images, all of class 0 or 1: refused as a network of two classes

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no netcal
venv torch==2.13.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
# Without what it asks for: Gaussian processes, plots.
pip install --quiet --disable-pip-version-check --no-deps netcal==1.4.0
python - <<'PY'
import numpy as np
from _toy import see, versions
from netcal.metrics.confidence import ACE, ECE, MCE

versions(["netcal==1.4.0"])
draws = np.random.default_rng(0)
labels = np.arange(1000) % 3
sure = np.concatenate([np.full(600, 0.99), draws.uniform(0.4, 0.9, 400)])
right = np.concatenate([np.arange(600) % 100 != 0, np.zeros(400, bool)])  # 0.99 is true, all below is wrong
predicted = np.where(right, labels, (labels + 1) % 3)
probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, 1)
probabilities[np.arange(1000), predicted] = sure
errors = {}
for threshold in (1, 100, 1000):
    kinds = (ECE, ACE, MCE)
    errors[threshold] = [float(kind(10, sample_threshold=threshold).measure(probabilities, labels)) for kind in kinds]
    text = "sample_threshold {}: ECE {:.3f}, ACE {:.3f}, MCE {:.3f}".format(threshold, *errors[threshold])
    see(text, {1: errors[1][0] > 0.2, 100: errors[threshold][0] < 0.02, 1000: sum(errors[threshold]) == 0}[threshold])
some = labels < 2
try:
    refused = float(ECE(10).measure(probabilities[some], labels[some])) < 0
except RuntimeError as error:
    refused = "binary" in str(error)
see(f"{some.sum()} of these images, all of class 0 or 1: refused as a network of two classes", refused)
PY
