#!/bin/sh
# advertorch 0.2.3: L2PGDAttack divides the gradient by its length, but by no less than 1e-6. A network whose logits are
# three times as large decides alike, yet the gradient of its cross-entropy is shorter, so the steps shrink to nothing
# and many images look robust. foolbox 3.3.4 with the same steps breaks every image at both scales.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   logits times 4: 0 of 40 left by advertorch, 0 by foolbox
#   logits times 12: 17 of 40 left by advertorch, 0 by foolbox
#   seen: advertorch leaves none, and with logits three times as large 10 or more
#   seen: foolbox leaves none at either scale

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3 foolbox==3.3.4
python - <<'PY'
import foolbox
from _toy import advertorch, correct, images, network, see

x, y = images()
x = x.double()  # so that float32's own rounding of the softmax plays no part
left = {}
for scale in (4, 12):
    net = network(scale).double()
    pgd = advertorch().attacks.L2PGDAttack(net, eps=1.0, nb_iter=40, eps_iter=0.1, rand_init=False)
    other = foolbox.attacks.L2PGD(steps=40, abs_stepsize=0.1, random_start=False)
    points = other(foolbox.PyTorchModel(net, bounds=(0, 1)), x, y, epsilons=1.0)[1]
    left[scale] = correct(net, pgd.perturb(x, y), y), correct(net, points, y)
    print(f"logits times {scale}: {left[scale][0]} of 40 left by advertorch, {left[scale][1]} by foolbox")
see("advertorch leaves none, and with logits three times as large 10 or more", left[4][0] == 0 and left[12][0] >= 10)
see("foolbox leaves none at either scale", left[4][1] == left[12][1] == 0)
PY
