#!/bin/sh
# torchattacks 3.5.1: two ways for a network to look robust to CW. It works on the inverse tanh of each pixel, which is
# infinite for a pixel of exactly 0 or 1, and the gradient there is 0. So a black or white pixel never changes, whatever
# c, the steps and the learning rate: an image of such pixels alone comes back as it was, and most of MNIST's are black.
# And the logits of the true class and of the others are picked by a product with a mask of zeros and a maximum: where
# all logits are negative, both are 0, and so is the gradient. A network that ends with log_softmax, or whose logits
# lie lower by a constant, makes the same decisions and is never broken. UPGD with loss="margin" does the same.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: grey images: CW leaves 0 of 40 right
#   seen: more contrast, 43% of pixels are 0 or 1: none of these moves, 96% of the others do
#   seen: black and white images: CW returns 40 of 40 as they were, PGDL2 leaves 2 right
#   seen: log_softmax at the end: CW leaves 40 of 40 right and unmoved, PGDL2 leaves 0
#   seen: all logits lower by 100: CW leaves 40 of 40 right and unmoved; higher by 100: 0
#   seen: UPGD, loss="margin": 0 of 40 right with logits, 40 with log_softmax

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torchattacks
venv torch==2.13.0 numpy==2.4.6 scipy==1.17.1 tqdm==4.70.1
# Without what it asks for: a version of requests from 2020, only for downloads.
pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
python - <<'PY'
import torch
import torchattacks
from _toy import correct, distance, images, network, see, versions

versions(["torchattacks==3.5.1"])
x, y = images()
net = network(4)


class Shifted(torch.nn.Module):
    """The same decisions: a constant is added to every logit."""

    def __init__(self, constant):
        super().__init__()
        self.net, self.constant = net, constant

    def forward(self, x):
        return self.net(x) + self.constant


def cw(model, x, y):
    return torchattacks.CW(model, c=10, steps=200, lr=0.05)(x, y)


def pgd(model, x, y):
    torch.manual_seed(0)
    return torchattacks.PGDL2(model, eps=2.0, steps=20)(x, y)


def upgd(model):
    torch.manual_seed(0)
    return correct(net, torchattacks.UPGD(model, eps=0.15, alpha=0.02, steps=20, loss="margin")(x, y), y)


def kept(model):
    """Count the images that are right and just where they were."""
    points = cw(model, x, y)
    return int(((net(points).argmax(1) == y) & (distance(points, x) == 0)).sum())


left = correct(net, cw(net, x, y), y)
see(f"grey images: CW leaves {left} of 40 right", left == 0)
contrast = (3 * (x - 0.5) + 0.5).clamp(0, 1)
extreme = (contrast == 0) | (contrast == 1)
moved = cw(net, contrast, net(contrast).argmax(1)) != contrast
text = f"more contrast, {float(extreme.float().mean()):.0%} of pixels are 0 or 1: none of these moves"
share = float(moved[~extreme].float().mean())
see(f"{text}, {share:.0%} of the others do", not moved[extreme].any() and share > 0.5)
binary = (x > 0.5).float()
labels = net(binary).argmax(1)
same = int((cw(net, binary, labels) == binary).flatten(1).all(1).sum())
left = correct(net, pgd(net, binary, labels), labels)
text = f"black and white images: CW returns {same} of 40 as they were, PGDL2 leaves {left} right"
see(text, same == 40 and left < 10)
logs = torch.nn.Sequential(net, torch.nn.LogSoftmax(1))
same, left = kept(logs), correct(net, pgd(logs, x, y), y)
text = f"log_softmax at the end: CW leaves {same} of 40 right and unmoved, PGDL2 leaves {left}"
see(text, same == 40 and left < 10)
low, high = kept(Shifted(-100)), kept(Shifted(100))
see(f"all logits lower by 100: CW leaves {low} of 40 right and unmoved; higher by 100: {high}", low == 40 and high == 0)
plain, logged = upgd(net), upgd(logs)
text = f'UPGD, loss="margin": {plain} of 40 right with logits, {logged} with log_softmax'
see(text, plain < 10 and logged == 40)
PY
