#!/bin/sh
# torchattack 1.7.2 (not torchattacks): attacks that change the network for good. SGM, meant to make points that carry
# over to other networks, puts hooks on the network that it is made for and never takes them off. From then on every
# gradient through it is another one, of another size: that of the next attack, which is then no white-box attack any
# more, and that of training. A second SGM adds its hooks to the first one's. BPA puts its own layers in place of the
# activations and of maxpool: where a ResNet for small images has an identity there, its outputs change too. Nothing
# needs to be attacked for it, and nothing says so. See torchattack/sgm.py, bpa.py.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: a small ResNet sees 10 classes in 40 images
#   seen: PGD, eps 0.002, on it: 25 of 40 left
#   seen: SGM: 0 of 40 classified otherwise; gradients: cosine 0.59, the weights' 2825 times as long; PGD leaves 28
#   seen: SGM again: 0 of 40 classified otherwise; gradients: cosine 0.42, the weights' 547 times as long; PGD leaves 30
#   seen: BPA: 37 of 40 classified otherwise; gradients: cosine 0.02, the weights' 7 times as long; PGD leaves 40

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torchattack
venv torch==2.13.0 numpy==2.4.6
# Without what it asks for: torchvision, for pretrained networks.
pip install --quiet --disable-pip-version-check --no-deps torchattack==1.7.2
python - <<'PY'
import sys
from copy import deepcopy
from unittest.mock import MagicMock

import torch
from _toy import correct, see, versions
from torch import nn

parts = ("", ".models", ".models.feature_extraction", ".transforms", ".transforms.functional")
for name in ("PIL", *(f"torchvision{part}" for part in parts)):
    sys.modules[name] = MagicMock()
import torchattack

versions(["torchattack==1.7.2"])


class Block(nn.Module):
    """A residual block, its parts named as in torchvision's ResNet-18."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.relu = nn.ReLU()

    def forward(self, z):
        return self.relu(z + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(z))))))


torch.manual_seed(0)
x = torch.rand(40, 3, 16, 16)
net = nn.Sequential()
net.conv1, net.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
net.relu, net.maxpool = nn.ReLU(), nn.Identity()
for i in (1, 2, 3, 4):
    net.add_module(f"layer{i}", nn.Sequential(Block(), Block()))
net.avgpool, net.flatten, net.fc = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)
with torch.no_grad():
    for _ in range(30):
        net.train()(torch.rand(32, 3, 16, 16))
    net.eval()
    net.fc.bias -= net(x).mean(0)  # so that not all images fall into one class
    logits = net(x)
y = logits.argmax(1)
see(f"a small ResNet sees {len(y.unique())} classes in 40 images", len(y.unique()) > 5)


def gradients(victim):
    """Differentiate the loss by the images, one row each, and by the first layer's weights."""
    points = x.clone().requires_grad_()
    nn.functional.cross_entropy(victim(points), y).backward()
    return points.grad.flatten(1), victim.conv1.weight.grad


def pgd(victim):
    torch.manual_seed(0)
    attack = torchattack.PGD(victim, device=torch.device("cpu"), eps=0.002, steps=10)
    return correct(net, attack(x, y).detach(), y)


fresh = pgd(deepcopy(net))
see(f"PGD, eps 0.002, on it: {fresh} of 40 left", fresh < 32)
own, weights = gradients(deepcopy(net))
for names in (["SGM"], ["SGM", "SGM"], ["BPA"]):
    victim = deepcopy(net)
    for name in names:
        torchattack.create_attack(name, victim, device=torch.device("cpu"), hook_cfg="resnet18")
    left = pgd(victim)
    other = int((victim(x).argmax(1) != y).sum())
    inner, outer = gradients(deepcopy(victim))
    alike = float(torch.cosine_similarity(inner, own).median())
    longer = float(outer.norm() / weights.norm())
    text = f"{names[0]}{' again' * (len(names) - 1)}: {other} of 40 classified otherwise; gradients: cosine {alike:.2f}"
    holds = alike < 0.8 and left > fresh and (other > 20 if names == ["BPA"] else other == 0 and longer > 20)
    see(f"{text}, the weights' {longer:.0f} times as long; PGD leaves {left}", holds)
PY
