#!/bin/sh
# adversarial-robustness-toolbox 1.20.1: the smallest change that it finds. DeepFool multiplies each step by the width
# of clip_values, although the gradient belongs to the same units already: right for images in [0, 1], twice too long
# in [-1, 1], and for images of 0 to 255 nearly every pixel ends black or white. FastGradientMethod(minimal=True) adds
# up eps_step while the sum is at most eps: with the defaults, 0.1 three times, the sum is a rounding above 0.3, and the
# largest change ever tried is 0.2. empirical_robustness is a mean over the images that broke, in lengths of the image:
# it rises with eps, and for a network that nothing breaks it is 0, which reads as no robustness at all.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: DeepFool, images in 0 to 1: 1.00 times the smallest change in the median, 0% of the pixels black or white
#   seen: DeepFool, images in -1 to 1: 2.00 times the smallest change in the median, 0% of the pixels black or white
#   seen: DeepFool, images in 0 to 255: 8.52 times the smallest change in the median, 98% of the pixels black or white
#   seen: FastGradientMethod(minimal=True), eps 0.3 in steps of 0.1: changes pixels by 0.2 at most
#   seen: FastGradientMethod(minimal=True), eps 0.3 in steps of 0.0999: changes pixels by 0.2997 at most
#   seen: empirical_robustness up to eps 0.05: 0.046, 39 of 40 are unbroken
#   seen: empirical_robustness up to eps 0.1: 0.087, 20 of 40 are unbroken
#   seen: empirical_robustness up to eps 0.3: 0.109, 0 of 40 are unbroken
#   seen: empirical_robustness of a network that nothing breaks: 0.0

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no toolbox
# It imports packaging, which it doesn't ask for.
venv torch==2.13.0 numpy==2.4.6 packaging==25.0 adversarial-robustness-toolbox==1.20.1
python - <<'PY'
import numpy as np
import torch
from _toy import distance, images, network, see
from art.attacks.evasion import DeepFool, FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from art.metrics import adversarial_accuracy, empirical_robustness

x, y = images()
net = network(4)
safe = network()
safe[1].bias[0] += 30  # class 0 for every image, with or without a change of 0.3


def classifier(net, low=0.0, high=1.0):
    """The network for images between low and high: it sees them brought to [0, 1]."""
    bounds = {"clip_values": (low, high), "preprocessing": (low, high - low)}
    return PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, device_type="cpu", **bounds)


# For a linear network the distance to each other class is the gap of logits over the length of the weights' difference.
weight, logits = net[1].weight, net(x)
gap = logits.gather(1, y[:, None]) - logits
exact = (gap / (weight[y][:, None] - weight).norm(dim=2)).nan_to_num(float("inf")).amin(1)
for low, high, least, most in ((0, 1, 0.99, 1.01), (-1, 1, 1.9, 2.1), (0, 255, 5, 99)):
    theirs = classifier(net, float(low), float(high))
    points = DeepFool(theirs, batch_size=40, verbose=False).generate((x * (high - low) + low).numpy())
    points = (torch.from_numpy(points) - low) / (high - low)
    ratio = float((distance(points, x) / exact).median())
    ends = float(((points < 1e-6) | (points > 1 - 1e-6)).float().mean())
    text = f"DeepFool, images in {low} to {high}: {ratio:.2f} times the smallest change in the median"
    see(f"{text}, {ends:.0%} of the pixels black or white", least < ratio < most and (ends > 0.9) == (high == 255))
for step, reached in ((0.1, 0.2), (0.0999, 0.2997)):
    attack = FastGradientMethod(classifier(safe), eps=0.3, eps_step=step, minimal=True)
    change = float(np.abs(attack.generate(x.numpy(), np.zeros(40, dtype=int)) - x.numpy()).max())
    text = f"FastGradientMethod(minimal=True), eps 0.3 in steps of {step}"
    see(f"{text}: changes pixels by {change:.4g} at most", abs(change - reached) < 1e-6)
before = 0.0
for eps in (0.05, 0.1, 0.3):
    options = {"eps": eps, "eps_step": 0.005}
    value = float(empirical_robustness(classifier(net), x.numpy(), "fgsm", options))
    left = round(40 * adversarial_accuracy(classifier(net), x.numpy(), y.numpy(), "fgsm", options))
    see(f"empirical_robustness up to eps {eps}: {value:.3f}, {left} of 40 are unbroken", value > before)
    before = value
value = float(empirical_robustness(classifier(safe), x.numpy(), "fgsm", {"eps": 0.3, "eps_step": 0.005}))
see(f"empirical_robustness of a network that nothing breaks: {value}", value == 0)
PY
