#!/bin/sh
# attackbenchlib 2.0.2: what it says of a network after an attack. robust_accuracy_auc, the area under the curve of
# robust accuracy, is not one: it begins at the first distance that the attack found instead of at 0, ends at the last,
# and draws a slope between two steps. An attack that breaks every image leaves a larger area than one that breaks a
# quarter of them, and a network whose images all break at one distance has area 0, however large that is. robust_acc_*,
# said to be certified robustness, counts as robust what the last point did not break, whatever the smallest distance
# says that stands beside it: FAB with its eps finds a point for every image, far nearer than 0.2, and all count as
# robust at 0.2. superdeepfool goes 1.5 times as far as DeepFool at each step and never comes back (the paper's attack
# of that name is more exact than DeepFool, by a projection). See attackbench/metrics/curves.py and
# attackbench/attacks/original/superdeepfool.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: DeepFool: 40 of 40 broken, robust_accuracy_auc 0.3101
#   seen: PGD, eps 0.5: 10 of 40 broken, robust_accuracy_auc 0.0001
#   seen: PGD, eps 0.1: 0 of 40 broken, robust_accuracy_auc 1.0000
#   seen: DeepFool, the first image alone: broken at 0.56, robust_accuracy_auc 0.0
#   seen: FAB: points for 40 of 40 images, the farthest 0.15 away; robust_acc_0.2 1.00
#   seen: deepfool: changes of 1.02 times the smallest, in the median
#   seen: superdeepfool: changes of 1.53 times the smallest, in the median

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no attackbenchlib
venv torch==2.13.0 numpy==2.4.6 tqdm==4.70.1
# Without what it asks for: the upload of results, and torchvision (data only).
pip install --quiet --disable-pip-version-check --no-deps attackbenchlib==2.0.2
python - 2>log <<'PY' || { tail -n 5 log; exit 1; }
import sys
from unittest.mock import MagicMock

import numpy as np
import torch
from _toy import images, network, see, versions
from torch.utils.data import DataLoader, TensorDataset

for name in ("PIL", "wandb", "torchvision", "torchvision.datasets", "torchvision.transforms"):
    sys.modules[name] = MagicMock()
from attackbench import get_stats, preconfigured, run_attack

versions(["attackbenchlib==2.0.2"])
x, y = images()
net = network(4)


def measure(attack, norm="l2", chosen=slice(None), **options):
    """The attack's results, and what the package says of them."""
    data = DataLoader(TensorDataset(x[chosen], y[chosen]), batch_size=40)
    results = run_attack(net, data, getattr(preconfigured, attack), norm, device=torch.device("cpu"), **options)
    stats = get_stats(results, norm, include_optimality=False, certified_thresholds=[0.2, 0.5])
    return results, stats


def broken(results):
    return sum(results["adv_success"])


found, all_broken = measure("deepfool")
some, some_broken = measure("pgd")
none, none_broken = measure("pgd", epsilon=0.1)
for text, results, stats in (
    ("DeepFool", found, all_broken),
    ("PGD, eps 0.5", some, some_broken),
    ("PGD, eps 0.1", none, none_broken),
):
    count, area = broken(results), stats["robust_accuracy_auc"]
    holds = {40: 0.2 < area < 0.5, 0: area == 1}.get(count, 3 < count < 20 and area < 0.01)
    see(f"{text}: {count} of 40 broken, robust_accuracy_auc {area:.4f}", holds)
first, alone = measure("deepfool", chosen=slice(1))
distance, area = first["distances"]["l2"][0], alone["robust_accuracy_auc"]
see(f"DeepFool, the first image alone: broken at {distance:.2f}, robust_accuracy_auc {area:.1f}", area == 0 < distance)
fab, stats = measure("fab", "linf")
largest, rate = max(fab["distances"]["linf"]), stats["linf_success_rate"]
text = f"FAB: points for {40 * rate:.0f} of 40 images, the farthest {largest:.2f} away"
robust = stats["robust_acc_0.2"]
see(f"{text}; robust_acc_0.2 {robust:.2f}", rate == 1 and largest < 0.19 and robust == 1)
weight, logits = net[1].weight.double(), net(x).double()
gaps = logits.gather(1, y[:, None]) - logits
exact = (gaps / (weight[y][:, None] - weight).norm(dim=2)).masked_fill(gaps == 0, torch.inf).amin(1).numpy()
for attack, low, high in (("deepfool", 1.0, 1.1), ("superdeepfool", 1.45, 1.65)):
    ratio = np.median(np.array(measure(attack)[0]["distances"]["l2"]) / exact)
    see(f"{attack}: changes of {ratio:.2f} times the smallest, in the median", low < ratio < high)
PY
