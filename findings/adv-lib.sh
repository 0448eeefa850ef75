#!/bin/sh
# adv-lib 0.2.8: three attacks that do other than they are asked. minimal_apgd with targeted=True counts a point as
# found where its class is not the target, which is so from the start: it halves eps and gives the images back, none of
# them moved. Untargeted, its max_eps is the middle of the search: changes are up to twice as large. apgd with
# best_loss=True, said to look for the strongest point, leaves out n_iter and makes 100 steps. pgd_linf looks at a point
# before it steps on from it, so the last step never counts: one step with the whole eps, without a random start, is no
# attack at all.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: targeted, up to an l_2 distance of 3: minimal_apgd moves 0 of 40 images and reaches 0 targets, apgd 40
#   seen: minimal_apgd, norm 2, max_eps=0.375: breaks 33 of 40 with changes up to 0.749, 31 above max_eps
#   seen: minimal_apgd, norm inf, max_eps=0.0625: breaks 38 of 40 with changes up to 0.122, 34 above max_eps
#   seen: apgd, best_loss=False: 21 passes with n_iter=20, 301 with n_iter=300
#   seen: apgd, best_loss=True: 101 passes with n_iter=20, 101 with n_iter=300
#   seen: pgd_linf, eps 0.2 in 1 step of 0.2: 0 of 40 images moved, 40 right
#   seen: pgd_linf, eps 0.2 in 2 steps of 0.2: 40 of 40 images moved, 0 right

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no adv-lib
venv torch==2.13.0 numpy==2.4.6 tqdm==4.70.1
# Without what it asks for: torchvision, for one distance, and visdom, for plots.
pip install --quiet --disable-pip-version-check --no-deps adv-lib==0.2.8
python - <<'PY'
import sys
from unittest.mock import MagicMock

import torch
from _toy import correct, distance, images, network, see, versions

sys.modules["torchvision"] = sys.modules["visdom"] = MagicMock()
from adv_lib.attacks import apgd, pgd_linf
from adv_lib.attacks.auto_pgd import minimal_apgd

versions(["adv-lib==0.2.8"])
x, y = images()
target = (y + 1) % 10
net = network(4)
asked = 0


def counted(points):
    global asked
    asked += 1
    return net(points)


torch.manual_seed(0)
points = minimal_apgd(net, x, target, norm=2, max_eps=3.0, targeted=True, n_iter=20, binary_search_steps=10)
plain = apgd(net, x, target, eps=3.0, norm=2, targeted=True, n_iter=20)
hits, moved, other = correct(net, points, target), int((distance(points, x) > 0).sum()), correct(net, plain, target)
text = f"targeted, up to an l_2 distance of 3: minimal_apgd moves {moved} of 40 images"
see(f"{text} and reaches {hits} targets, apgd {other}", moved == hits == 0 and other > 35)
for norm, most in ((2, 0.375), (float("inf"), 0.0625)):
    points = minimal_apgd(net, x, y, norm=norm, max_eps=most, n_iter=20, binary_search_steps=10)
    broken = net(points).argmax(1) != y
    size = distance(points, x, norm)
    beyond = int((broken & (size > 1.001 * most)).sum())
    text = f"minimal_apgd, norm {norm}, max_eps={most}: breaks {int(broken.sum())} of 40 with changes"
    see(f"{text} up to {float(size.max()):.3f}, {beyond} above max_eps", beyond > 5 and size.max() > 1.5 * most)
for best in (False, True):
    calls = []
    for steps in (20, 300):
        asked = 0
        apgd(counted, x, y, eps=0.05, norm=float("inf"), n_iter=steps, best_loss=best)
        calls.append(asked)
    text = f"apgd, best_loss={best}: {calls[0]} passes with n_iter=20, {calls[1]} with n_iter=300"
    see(text, calls == ([101, 101] if best else [21, 301]))
for steps in (1, 2):
    points = pgd_linf(net, x, y, 0.2, steps=steps, random_init=False, relative_step_size=1.0)
    moved, left = int((distance(points, x) > 0).sum()), correct(net, points, y)
    text = f"pgd_linf, eps 0.2 in {steps} step{'s' * (steps > 1)} of 0.2: {moved} of 40 images moved, {left} right"
    see(text, (moved, left) == ((0, 40) if steps == 1 else (40, 0)))
PY
