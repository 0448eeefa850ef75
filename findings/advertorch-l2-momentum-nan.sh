#!/bin/sh
# advertorch 0.2.3: L2MomentumIterativeAttack divides the step back to the ball by the perturbation, element by element.
# One pixel that the network doesn't look at (gradient exactly 0) has perturbation 0, and every image comes back with a
# NaN in it. The logits are then NaN and the class is 0: images of class 0 count as robust, all others as broken, at any
# eps. LinfMomentumIterativeAttack has no such division.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: L2MomentumIterativeAttack, all pixels used: 0 of 40 images hold a NaN, 40 of 40 still right at eps 1e-6
#   seen: LinfMomentumIterativeAttack, all pixels used: 0 of 40 images hold a NaN, 40 of 40 still right at eps 1e-6
#   seen: L2MomentumIterativeAttack, one pixel unused: 40 of 40 images hold a NaN, 4 of 40 still right at eps 1e-6
#   seen: LinfMomentumIterativeAttack, one pixel unused: 0 of 40 images hold a NaN, 40 of 40 still right at eps 1e-6

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
from _toy import advertorch, correct, images, network, see

x, y = images()
net = network(4)
for blind in (False, True):
    if blind:
        net[1].weight[:, 0] = 0  # a dead corner, as the digits of many data sets have
    for name, nans in (("L2MomentumIterativeAttack", 40 * blind), ("LinfMomentumIterativeAttack", 0)):
        attack = getattr(advertorch().attacks, name)
        points = attack(net, eps=1e-6, nb_iter=5, eps_iter=1e-6).perturb(x, y)
        found = int(points.isnan().flatten(1).any(1).sum())
        text = f"{name}, {'one pixel unused' if blind else 'all pixels used'}: {found} of 40 images hold a NaN"
        see(f"{text}, {correct(net, points, y)} of {correct(net, x, y)} still right at eps 1e-6", found == nans)
PY
