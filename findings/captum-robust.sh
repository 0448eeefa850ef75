#!/bin/sh
# captum 0.9.0: FGSM and PGD without a loss_func, and their zero_thresh. The default loss, "negative log", is minus the
# logarithm of what the network puts out for the label: it asks for probabilities, and nothing checks. With log_softmax
# at the end, or with logits below 0, the loss is NaN, but its gradient is a number, with the wrong sign: the attack
# mends images, and a targeted one runs from its target. With logits above 0 it lowers the label's, whatever the others
# do. And a part of the gradient of at most 1e-6 counts as 0, even where all of them are that small: with larger logits,
# or with images of 0 to 255, where the gradient is 255 times smaller, many images never move and look robust.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: hard images: 26 of 40 right
#   seen: probabilities: FGSM leaves 4 right, PGD 4, 40 of 40 targets reached
#   seen: log_softmax, NLLLoss: FGSM leaves 4 right, PGD 4, 40 of 40 targets reached
#   seen: log_softmax: FGSM leaves 39 right, PGD 39, 0 of 40 targets reached
#   seen: logits: FGSM leaves 26 right, PGD 26, 0 of 40 targets reached
#   seen: logits, CrossEntropyLoss: FGSM leaves 4 right, PGD 4, 40 of 40 targets reached
#   seen: all logits lower by 100: the loss of 40 of 40 is NaN, and FGSM raises the true logit of 40; without, of 0
#   seen: logits times 1, images of 0 to 1: 2 of 40 right, 0 unmoved; zero_thresh 0: 2 and 0
#   seen: logits times 10, images of 0 to 1: 23 of 40 right, 23 unmoved; zero_thresh 0: 0 and 0
#   seen: logits times 6, images of 0 to 1: 1 of 40 right, 1 unmoved; zero_thresh 0: 0 and 0
#   seen: logits times 6, images of 0 to 255: 20 of 40 right, 20 unmoved; zero_thresh 0: 0 and 0

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no captum
venv torch==2.13.0 numpy==2.4.6 captum==0.9.0
python - <<'PY'
import torch
from _toy import correct, distance, images, network, see
from captum.robust import FGSM, PGD

x, y = images()
target = (y + 1) % 10
net = network(4)
hard = (x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
right = correct(net, hard, y)
see(f"hard images: {right} of 40 right", 20 < right < 32)
entropy = torch.nn.CrossEntropyLoss(reduction="none")
likelihood = torch.nn.NLLLoss(reduction="none")


def probabilities(x):
    return net(x).softmax(1)


def logs(x):
    return net(x).log_softmax(1)


def low(x):
    return net(x) - 100


def attacks(forward, loss):
    """Count what FGSM and PGD leave right, and the targets that PGD reaches."""
    options = {"loss_func": loss, "lower_bound": 0, "upper_bound": 1}
    one = FGSM(forward, **options).perturb(hard, 0.1, y)
    many = PGD(forward, **options).perturb(hard, 0.1, 0.02, 20, y)
    drawn = PGD(forward, **options).perturb(x, 0.3, 0.03, 20, target, targeted=True)
    return correct(net, one, y), correct(net, many, y), correct(net, drawn, target)


def raised(forward):
    """Count the images whose true logit is higher after FGSM."""
    points = FGSM(forward, lower_bound=0, upper_bound=1).perturb(hard, 0.1, y)
    return int(((net(points) - net(hard)).gather(1, y[:, None]) > 0).sum())


def kept(scale, width, threshold):
    """Count the images of 0 to ``width`` that PGD leaves right, and those that it never moves."""
    clean = width * x.double()  # so that float32's own rounding of the softmax plays no part
    wide = network(scale / width).double()
    wide[1].bias *= width
    attack = PGD(wide, entropy, lower_bound=0, upper_bound=width)
    attack.fgsm.zero_thresh = threshold
    points = attack.perturb(clean, 0.15 * width, 0.02 * width, 20, y)
    return correct(wide, points, y), int((distance(points, clean) == 0).sum())


for name, forward, loss, works in (
    ("probabilities", probabilities, None, True),
    ("log_softmax, NLLLoss", logs, likelihood, True),
    ("log_softmax", logs, None, False),
    ("logits", net, None, False),
    ("logits, CrossEntropyLoss", net, entropy, True),
):
    one, many, hits = attacks(forward, loss)
    text = f"{name}: FGSM leaves {one} right, PGD {many}, {hits} of 40 targets reached"
    see(text, max(one, many) < right - 10 and hits > 30 if works else min(one, many) > right - 3 and hits < 5)
lost = int((-torch.log(low(hard))).gather(1, y[:, None]).isnan().sum())
up, down = raised(low), raised(net)
text = f"all logits lower by 100: the loss of {lost} of 40 is NaN, and FGSM raises the true logit of {up}"
see(f"{text}; without, of {down}", lost == 40 and up > 35 and down < 5)
default = FGSM(net).zero_thresh
for scale, width, stuck in ((1, 1, False), (10, 1, True), (6, 1, False), (6, 255, True)):
    (left, same), (free, none) = kept(scale, width, default), kept(scale, width, 0)
    text = f"logits times {scale}, images of 0 to {width}: {left} of 40 right, {same} unmoved"
    see(f"{text}; zero_thresh 0: {free} and {none}", (same > 10) == (left > 10) == stuck and free < 5 and none == 0)
PY
