#!/bin/sh
# deeprobust 0.2.11: two attacks on images. PGD with bound="l2" measures gradient and change over the whole batch: eps
# is the length of the changes of all images together, and an image's share shrinks with the size of the batch. One by
# one most images break, forty at a time look robust. CarliniWagner looks for the smallest constant that works, and
# gives back the last point of its last try, whether it worked or not. It never forgets that it once succeeded, so from
# then on the constant only falls, and the more steps the search has, the surer it ends with a point that is no attack.
# See deeprobust/image/attack/pgd.py and cw.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: PGD, l2, eps 0.7, 1 at a time: 12 of 40 right; changes up to 0.70, those of the first batch together 0.69
#   seen: PGD, l2, eps 0.7, 10 at a time: 34 of 40 right; changes up to 0.48, those of the first batch together 0.55
#   seen: PGD, l2, eps 0.7, 40 at a time: 39 of 40 right; changes up to 0.37, those of the first batch together 0.70
#   seen: the larger the batch, the more are left
#   seen: CarliniWagner, 1 search steps: 5 of 5 at their targets, mean change 2.94
#   seen: CarliniWagner, 5 search steps: 1 of 5 at their targets, mean change 0.40
#   seen: CarliniWagner, 9 search steps: 0 of 5 at their targets, mean change 0.03
#   seen: more steps, fewer targets

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no deeprobust
venv torch==2.13.0 numpy==2.4.6 scipy==1.17.1
# Without what it asks for: data sets, plots, graphs, and defences, which its attacks do not need.
pip install --quiet --disable-pip-version-check --no-deps deeprobust==0.2.11
python - <<'PY'
import contextlib
import io
import sys
from unittest.mock import MagicMock

import numpy as np
import scipy.optimize.optimize as old
import torch
from _toy import correct, distance, images, network, see, versions

old._status_message = {}  # a name that scipy has given up, for an optimizer that is not used here
unneeded = ("texttable", "torchvision", "torchvision.transforms")
for name in (*unneeded, "deeprobust.image.defense", "deeprobust.image.netmodels"):
    sys.modules[name] = MagicMock()
from deeprobust.image.attack.cw import CarliniWagner
from deeprobust.image.attack.pgd import PGD

versions(["deeprobust==0.2.11"])
x, y = images()
net = network(4)
net.get_logits = net.forward
np.random.seed(0)
options = {"bound": "l2", "epsilon": 0.7, "num_steps": 40, "step_size": 0.1}
left, longest, together = {}, {}, {}
for batch in (1, 10, 40):
    parts = zip(x.split(batch), y.split(batch))
    points = torch.cat([PGD(net, "cpu").generate(one, label, **options).detach() for one, label in parts])
    left[batch], longest[batch] = correct(net, points, y), float(distance(points, x).max())
    together[batch] = float((points - x)[:batch].norm())
    text = f"PGD, l2, eps 0.7, {batch} at a time: {left[batch]} of 40 right; changes up to {longest[batch]:.2f}"
    see(f"{text}, those of the first batch together {together[batch]:.2f}", together[batch] < 0.701)
see("the larger the batch, the more are left", left[1] + 10 < left[10] < left[40] and longest[40] < 0.5)
x, y = x[:5], y[:5]
target = (y + 1) % 10
options = {"initial_const": 1.0, "max_iterations": 60, "learning_rate": 0.05}
reached = []
for steps in (1, 5, 9):
    with contextlib.redirect_stdout(io.StringIO()):
        cases = zip(x.split(1), y.split(1), target.tolist())
        attack = CarliniWagner(net, "cpu")
        points = torch.cat([attack.generate(*case, binary_search_steps=steps, **options) for case in cases])
    reached.append(correct(net, points, target))
    size = float(distance(points, x).mean())
    see(f"CarliniWagner, {steps} search steps: {reached[-1]} of 5 at their targets, mean change {size:.2f}", size > 0)
see("more steps, fewer targets", reached[0] == 5 and reached[1] < 4 and reached[-1] == 0)
PY
