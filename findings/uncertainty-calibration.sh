#!/bin/sh
# uncertainty-calibration 0.1.4: a calibration error of 0 for a network that is wrong where it is sure.
# get_calibration_error first asks whether the probabilities repeat themselves: with less than a quarter as many values
# as images in each class it takes them for those of a binning method and makes one bin of each value. So does what was
# rounded to four decimals, or is exactly 0 or 1 for most images. A bin of one image then counts as error 0, and all
# that is between 0 and 1 is bins of one image. Noise of 1e-9 sends the same probabilities the other way. And alpha,
# said to give intervals of 1 - alpha, is taken as a percentage: those for the default 0.1 are of 99.9%, not 90%.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: 800 of 1000 right and certain, 200 wrong with a confidence of 0.80 to 0.98: a root mean square error of 0.40
#   seen: get_calibration_error, marginal: 0.000, with noise of 1e-9 0.073, with debias=False 0.188
#   seen: get_calibration_error, top-label: 0.000, with noise of 1e-9 0.398, with debias=False 0.398
#   seen: get_ece of the same: 0.178
#   seen: get_calibration_error_uncertainties, alpha 0.1: an interval 1.5 times as wide as for alpha 10, 2.2 for 32

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no uncertainty-calibration
venv numpy==2.4.6 scikit-learn==1.9.1 uncertainty-calibration==0.1.4
python - <<'PY'
import calibration
import numpy as np
from _toy import see

labels = np.arange(1000) % 10
sure = np.ones(1000)
sure[:200] = 0.8 + 0.0009 * np.arange(200)
predicted = np.where(np.arange(1000) < 200, (labels + 1) % 10, labels)  # 200 are wrong, with a confidence of 0.89
probabilities = np.repeat(((1 - sure) / 9)[:, None], 10, 1)
probabilities[np.arange(1000), predicted] = sure
stored = probabilities.round(4)
noise = 1e-9 * np.random.default_rng(0).random((1000, 10))
by_hand = np.sqrt((sure[:200] ** 2).sum() / 1000)
text = "800 of 1000 right and certain, 200 wrong with a confidence of 0.80 to 0.98"
see(f"{text}: a root mean square error of {by_hand:.2f}", 0.39 < by_hand < 0.41)
for mode in ("marginal", "top-label"):
    exact, near = (calibration.get_calibration_error(p, labels, mode=mode) for p in (stored, stored + noise))
    biased = calibration.get_calibration_error(stored, labels, mode=mode, debias=False)
    text = f"get_calibration_error, {mode}: {exact:.3f}, with noise of 1e-9 {near:.3f}"
    see(f"{text}, with debias=False {biased:.3f}", exact < 0.02 and near > 0.05 and biased > 0.1)
value = calibration.get_ece(stored, labels)
see(f"get_ece of the same: {value:.3f}", 0.17 < value < 0.19)
draws = np.random.default_rng(1)
probabilities = draws.random(1000)
labels = (draws.random(1000) < probabilities**2).astype(int)
widths = []
for alpha in (0.1, 10, 32):
    np.random.seed(0)
    low, _, high = calibration.get_calibration_error_uncertainties(probabilities, labels, alpha=alpha)
    widths.append(high - low)
text = "get_calibration_error_uncertainties, alpha 0.1: an interval {:.1f} times as wide as for alpha 10, {:.1f} for 32"
see(text.format(widths[0] / widths[1], widths[0] / widths[2]), widths[0] > 1.2 * widths[1] > 1.2 * widths[2])
PY
