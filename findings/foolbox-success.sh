#!/bin/sh
# foolbox 3.3.4: what `success` means. An image that is classified wrong from the start is a success at eps 0. A point
# that is NaN is a success as well, unless its label is 0: NewtonFoolAttack divides by the gradient's length to the
# fourth and hands back NaN once a network is sure of itself, and all of that counts. LinfPGD(steps=10) keeps the step
# of eps/30 that goes with the default of 40 steps: without a random start it ends a third of the way to the ball's rim.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: eps 0: 10 successes on 40 images, 10 of them wrong from the start
#   seen: NewtonFool: 31 of 40 points hold a NaN, 30 of these count as success
#   seen: LinfPGD(steps=10) moves pixels by 0.33 eps at most
#   seen: LinfPGD(steps=30) moves pixels by 1.00 eps at most
#   seen: LinfPGD(steps=40) moves pixels by 1.00 eps at most

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 foolbox==3.3.4
python - <<'PY'
import foolbox
import torch
from _toy import distance, images, network, see

x, y = images()
net = network(4)
model = foolbox.PyTorchModel(net, bounds=(0, 1))
attacks = foolbox.attacks
other = torch.where(torch.arange(40) < 10, (y + 1) % 10, y)  # ten images that are wrong from the start
success = attacks.LinfPGD()(model, x, other, epsilons=0.0)[2]
see(f"eps 0: {int(success.sum())} successes on 40 images, 10 of them wrong from the start", int(success.sum()) == 10)
points, _, success = attacks.NewtonFoolAttack()(model, x, y, epsilons=None)
nans = points.isnan().flatten(1).any(1)
text = f"NewtonFool: {int(nans.sum())} of 40 points hold a NaN, {int((nans & success).sum())} of these count as success"
see(text, int((nans & success).sum()) > 20 and bool(success[nans & (y > 0)].all()))
for steps, share in ((10, 1 / 3), (30, 1), (40, 1)):
    points = attacks.LinfPGD(steps=steps, random_start=False)(model, x, y, epsilons=0.1)[1]
    reached = float(distance(points, x, float("inf")).max()) / 0.1
    see(f"LinfPGD(steps={steps}) moves pixels by {reached:.2f} eps at most", abs(reached - share) < 1e-3)
PY
