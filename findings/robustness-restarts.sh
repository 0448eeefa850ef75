#!/bin/sh
# robustness 1.2.1.post2 (MadryLab): restarts that make the attack no stronger. random_restarts, said to take the worst
# attack for each image, makes a mask of the broken images by ~ on bytes: 0 and 1 become 255 and 254, both of which
# count as true, and every restart overwrites all points of those before it. What comes back is the last restart, for
# all images, to the bit. Twenty restarts cost twenty times as much and break as many images as one. And True, where the
# documentation asks for a bool and speaks of many restarts, is one restart. torch warns of the mask's type, once, and
# not of what it does. See robustness/attacker.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: 20 runs from random starts: 38 of 40 right after the first, 36 after the last, 29 after all
#   seen: random_restarts=20: 36 of 40 right, its points are those of the last run: True
#   seen: random_restarts=True: its points are those of the first run alone: True

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no robustness
venv torch==2.13.0 numpy==2.4.6 tqdm==4.70.1
# Without what it asks for: data sets, logs, plots.
pip install --quiet --disable-pip-version-check --no-deps robustness==1.2.1.post2
python - <<'PY'
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from _toy import correct, images, network, see, versions

for name in ("cox", "cox.utils", "cox.store", "GPUtil", "dill", "pandas", "PIL"):
    sys.modules[name] = MagicMock()
torch.Tensor.cuda = lambda self: self  # the attack asks for a GPU
from robustness.attacker import AttackerModel

versions(["robustness==1.2.1.post2"])
x, y = images()
smooth = network(4)


class Rough(torch.nn.Module):
    """The toy network behind ripples, which make the attack's success depend on where it starts."""

    def forward(self, points, **_):
        return smooth(points + 0.1 * torch.sin(60 * points))


net = Rough()
model = AttackerModel(net, SimpleNamespace(mean=torch.zeros(1), std=torch.ones(1))).eval()
options = {"constraint": "inf", "eps": 0.08, "step_size": 0.03, "iterations": 5, "random_start": True}


def attack(restarts):
    return model(x, y, make_adv=True, random_restarts=restarts, **options)[1]


torch.manual_seed(0)
runs = [attack(restarts=0) for _ in range(20)]
torch.manual_seed(0)
restarted = attack(restarts=20)
one, last = correct(net, runs[0], y), correct(net, runs[-1], y)
worst = int(torch.stack([net(points).argmax(1) == y for points in runs]).all(0).sum())
text = f"20 runs from random starts: {one} of 40 right after the first, {last} after the last, {worst} after all"
see(text, worst < min(one, last) - 3)
left = correct(net, restarted, y)
same = torch.equal(restarted, runs[-1])
see(f"random_restarts=20: {left} of 40 right, its points are those of the last run: {same}", left == last and same)
torch.manual_seed(0)
same = torch.equal(attack(restarts=True), runs[0])
see(f"random_restarts=True: its points are those of the first run alone: {same}", same)
PY
