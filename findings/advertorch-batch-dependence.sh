#!/bin/sh
# advertorch 0.2.3: an image's outcome depends on the images beside it, twice. CarliniWagnerL2Attack stops early by the
# *sum* of the batch's losses (abort_early, on by default), so one image that makes no more progress, or one that still
# does, decides for all. FABAttack takes the weight with which it pulls points back towards their images from the first
# image of the batch alone. Networks here have neither batch norm nor dropout.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: C&W, abort_early=True: 22 of 40 distances differ (0.872 to 1.000 times that alone)
#   seen: C&W, abort_early=False: 0 of 40 distances differ (1.000 to 1.000 times that alone)
#   seen: FAB: 9 of 40 distances differ (0.971 to 1.002 times that alone)

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
import torch
from _toy import advertorch, distance, images, network, see

attacks = advertorch().attacks
x, y = images()
linear = network(4)
torch.manual_seed(1)
curved = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
curved.requires_grad_(False)


def moved(attack, labels):
    """How many distances differ by more than 0.1%, and the extremes of distance in the batch over distance alone."""
    together = distance(attack.perturb(x, labels), x)
    alone = torch.cat([distance(attack.perturb(x[i : i + 1], labels[i : i + 1]), x[i : i + 1]) for i in range(len(x))])
    ratio = together / alone
    extremes = f"({float(ratio.min()):.3f} to {float(ratio.max()):.3f} times that alone)"
    return int(((ratio - 1).abs() > 1e-3).sum()), extremes


cw = {"num_classes": 10, "max_iterations": 100, "binary_search_steps": 4, "initial_const": 0.1}
for early in (True, False):
    count, extremes = moved(attacks.CarliniWagnerL2Attack(linear, abort_early=early, **cw), y)
    see(f"C&W, abort_early={early}: {count} of 40 distances differ {extremes}", (count > 0) == early)
count, extremes = moved(attacks.FABAttack(curved, norm="L2", n_iter=30), curved(x).argmax(1))
see(f"FAB: {count} of 40 distances differ {extremes}", count > 0)
PY
