#!/bin/sh
# torchattack 1.7.2 (not torchattacks): attacks that go another way than they are asked. MIG adds the gradient of the
# true class's probability where it should take it away: the attack makes the network surer of each image, breaks none,
# and with targeted=True moves away from the target. GRA turns its loss round for targeted=True, but not the average of
# the losses around a point: it moves away from the target, too. NIFGSM keeps no momentum, whatever decay: each step
# follows the newest gradient alone. And a step size that is left out, eps / steps, is set in the first call and then
# stays: with attack.eps raised later the points get no farther. See torchattack/mig.py, gra.py, nifgsm.py, mifgsm.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: clean images: probability 0.578 for the true class, 0.050 for the target
#   seen: MIFGSM, linf, eps 0.2: 40 of 40 broken, true class 0.051; targeted: 40 at the target, its probability 0.573
#   seen: MIG, linf, eps 0.2: 0 of 40 broken, true class 0.958; targeted: 0 at the target, its probability 0.002
#   seen: GRA, linf, eps 0.2: 38 of 40 broken; targeted: 0 at the target, its probability 0.004
#   seen: four strong gradients up, one weak down, steps of 0.02, decay 0: MIFGSM at 0.06, NIFGSM at 0.06
#   seen: four strong gradients up, one weak down, steps of 0.02, decay 1: MIFGSM at 0.10, NIFGSM at 0.06
#   seen: MIFGSM, attack.eps = 0.05: changes up to 0.05, 40 of 40 right; a new one: 40 right
#   seen: MIFGSM, attack.eps = 0.2: changes up to 0.05, 40 of 40 right; a new one: 0 right

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torchattack
venv torch==2.13.0 numpy==2.4.6
# Without what it asks for: torchvision, for pretrained networks.
pip install --quiet --disable-pip-version-check --no-deps torchattack==1.7.2
python - <<'PY'
import sys
from unittest.mock import MagicMock

import torch
from _toy import correct, distance, images, network, see, versions

parts = ("", ".models", ".models.feature_extraction", ".transforms", ".transforms.functional")
for name in ("PIL", *(f"torchvision{part}" for part in parts)):
    sys.modules[name] = MagicMock()
import torchattack

versions(["torchattack==1.7.2"])
x, y = images()
target = (y + 1) % 10
net = network()


def attack(name, labels, victim=net, start=x, **options):
    torch.manual_seed(0)
    options = {"eps": 0.2, "steps": 10, **options}
    made = torchattack.create_attack(name, victim, device=torch.device("cpu"), **options)
    return made(start, labels).detach()


def sure(points, labels=y):
    return float(net(points).softmax(1)[range(40), labels].mean())


text = f"clean images: probability {sure(x):.3f} for the true class, {sure(x, target):.3f} for the target"
see(text, correct(net, x, y) == 40)
wanted = {"MIFGSM": (40, 40), "MIG": (0, 0)}
for name, counts in wanted.items():
    points, aimed = attack(name, y), attack(name, target, targeted=True)
    found = 40 - correct(net, points, y), correct(net, aimed, target)
    text = f"{name}, linf, eps 0.2: {found[0]} of 40 broken, true class {sure(points):.3f}"
    holds = found == counts and (sure(points) > 0.9) == (sure(aimed, target) < 0.01) == (name == "MIG")
    see(f"{text}; targeted: {found[1]} at the target, its probability {sure(aimed, target):.3f}", holds)
points, aimed = attack("GRA", y), attack("GRA", target, targeted=True)
found = 40 - correct(net, points, y), correct(net, aimed, target)
text = f"GRA, linf, eps 0.2: {found[0]} of 40 broken; targeted: {found[1]} at the target, its probability"
see(f"{text} {sure(aimed, target):.3f}", found[0] > 30 and found[1] == 0 and sure(aimed, target) < 0.01)


class Turning(torch.nn.Module):
    """Four gradients one way, then weak ones the other way."""

    passes = 0

    def forward(self, points):
        self.passes += 1
        total = points.flatten(1).sum(1) * (1 if self.passes < 5 else -0.01)
        return torch.stack([torch.zeros_like(total), total], 1)


grey, zeros = torch.full_like(x, 0.5), torch.zeros_like(y)
for decay in (0.0, 1.0):
    options = {"victim": None, "decay": decay, "steps": 5, "alpha": 0.02, "eps": 0.1}
    ways = []
    for name in ("MIFGSM", "NIFGSM"):
        options["victim"] = Turning()
        ways.append(float((attack(name, zeros, start=grey, **options) - grey).mean()))
    text = f"four strong gradients up, one weak down, steps of 0.02, decay {decay:.0f}: MIFGSM at {ways[0]:.2f}"
    see(f"{text}, NIFGSM at {ways[1]:.2f}", abs(ways[1] - 0.06) < 1e-3 and abs(ways[0] - 0.06 - 0.04 * decay) < 1e-3)
kept = torchattack.create_attack("MIFGSM", net, device=torch.device("cpu"), eps=0.05, steps=10)
for eps in (0.05, 0.2):
    kept.eps = eps
    points, fresh = kept(x, y).detach(), attack("MIFGSM", y, eps=eps)
    moved, left, other = float(distance(points, x, float("inf")).max()), correct(net, points, y), correct(net, fresh, y)
    text = f"MIFGSM, attack.eps = {eps}: changes up to {moved:.2f}, {left} of 40 right"
    see(f"{text}; a new one: {other} right", moved < 0.051 and (eps < 0.1 or other < left - 20))
PY
