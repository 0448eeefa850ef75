#!/bin/sh
# adversarial-robustness-toolbox 1.20.1: the certified accuracy against patches of a convolutional network.
# PyTorchDeRandomizedSmoothing with algorithm="salman2021" supports vision transformers and CNNs, as it says. Its
# eval_and_certify shows a CNN a window of each image at every position, and blackens the rest in place: each window is
# cut from what the last one left over. After a few positions all images are black, and the vote and the certificate are
# those of a black image: the images of that class are all right and certified, all others wrong, whatever the network
# can do. predict, which copies the images first, knows nothing of it.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: 24x24 images, 4 of each class; a black image is of class 3
#   seen: windows of 6 columns, class 3: 4 of 4 right, 4 certified; counted by hand 3 and 0
#   seen: windows of 6 columns, all others: 0 of 36 right, 0 certified; counted by hand 11 and 0
#   seen: windows of 18 columns, all: 10 of 40 right, 0 certified; counted by hand 39 and 0

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no toolbox
# It imports packaging, which it doesn't ask for. A CNN is accepted only where timm is installed.
venv torch==2.13.0 torchvision==0.28.0 numpy==2.4.6 packaging==25.0 timm==1.0.9 adversarial-robustness-toolbox==1.20.1
python - <<'PY'
import numpy as np
import torch
from _toy import images, network, see

# A build of torchvision for CUDA beside a torch for the CPU wants these two declared.
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from art.estimators.certification.derandomized_smoothing import PyTorchDeRandomizedSmoothing

x, y = images()
x = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
net = torch.nn.Sequential(torch.nn.AvgPool2d(3), network(4))
black = int(net(torch.zeros(1, 1, 24, 24)).argmax())
see(f"24x24 images, 4 of each class; a black image is of class {black}", black == 3)


def smoothed(window):
    options = {"ablation_type": "column", "algorithm": "salman2021", "device_type": "cpu", "verbose": False}
    return PyTorchDeRandomizedSmoothing(net, torch.nn.CrossEntropyLoss(), (1, 24, 24), 10, window, **options)


def said(window, chosen):
    """Count the images that are right, and those that are certified, by the toolbox's own count."""
    options = {"size_to_certify": 1, "verbose": False}
    shares = smoothed(window).eval_and_certify(x[chosen].numpy(), y[chosen].numpy(), **options)
    return [round(float(share) * int(chosen.sum())) for share in shares]


def counted(window, chosen):
    """Count the same, each window cut from the whole image."""
    theirs, votes = smoothed(window), np.zeros((int(chosen.sum()), 10))
    for position in range(24):
        part = theirs.ablator.forward(x[chosen].numpy().copy(), column_pos=position)
        votes[np.arange(len(votes)), net(part).argmax(1).numpy()] += 1
    _, certain, top = theirs.ablator.certify(votes, 1, y[chosen].numpy())
    return [int((top == y[chosen]).sum()), int(certain.sum())]


everything = torch.ones(40, dtype=torch.bool)
cases = ((6, f"class {black}", y == black), (6, "all others", y != black), (18, "all", everything))
for window, name, chosen in cases:
    theirs, own = said(window, chosen), counted(window, chosen)
    text = f"windows of {window} columns, {name}: {theirs[0]} of {int(chosen.sum())} right, {theirs[1]} certified"
    if name == "all":
        holds = theirs[0] < own[0] - 10
    elif name == "all others":
        holds = theirs == [0, 0] and own[0] > 5
    else:
        holds = theirs == [4, 4] and own[1] == 0
    see(f"{text}; counted by hand {own[0]} and {own[1]}", holds)
PY
