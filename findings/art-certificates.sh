#!/bin/sh
# adversarial-robustness-toolbox 1.20.1: certificates for another network, and in another unit. PytorchDeepZ and
# PyTorchIBPClassifier say that they convert the network into an equivalent one. They look at its direct submodules
# alone: what forward does between them, functional.relu, a normalization, a residual sum, is left out without a word.
# With functional.relu what is certified is the network without its activations, which may well predict the same. A
# convolution without bias gets a random one in PyTorchIBPClassifier, a new one at each conversion. And the bound (the
# perturbation range) and its limits count after the preprocessing: with (0.5, 0.25) what is certified up to 0.1 holds
# up to 0.025, while all attacks of the toolbox measure their eps before it.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: a module: 40 of 40 right, 0 certified up to 0.06, 0 of these broken there
#   seen: functional.relu: 40 of 40 right, 27 certified up to 0.06, 17 of these broken there
#   seen: convolutions without bias: logits differ from the network's, and from those of a second conversion
#   seen: preprocessing none: PGD breaks 27 of 40 with eps 0.1, 0 are certified up to 0.1, 0 both
#   seen: preprocessing (0.5, 0.25): PGD breaks 27 of 40 with eps 0.1, 25 are certified up to 0.1, 12 both

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no toolbox
# It imports packaging, which it doesn't ask for.
venv torch==2.13.0 numpy==2.4.6 packaging==25.0 adversarial-robustness-toolbox==1.20.1
python - <<'PY'
import contextlib
import io

import numpy as np
import torch
from _toy import images, network, see
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.certification.deep_z import PytorchDeepZ
from art.estimators.certification.interval import PyTorchIBPClassifier
from art.estimators.classification import PyTorchClassifier
from torch.nn import functional

x, y = images()
labels, flat = y.numpy(), x.flatten(1).numpy()


class Hidden(torch.nn.Module):
    """64 random ReLU features, and the linear layer that fits the labels best."""

    def __init__(self, module):
        super().__init__()
        self.first, self.relu, self.last = torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
        self.requires_grad_(False).activation = self.relu if module else functional.relu
        seen, target = (some.flatten(1) if some.ndim > 1 else functional.one_hot(some, 10) for some in images(400))
        self.first.weight.copy_(torch.randn(64, 64, generator=torch.Generator().manual_seed(2)))
        self.first.bias.copy_(-(seen @ self.first.weight.T).mean(0))
        features = torch.cat([self.first(seen).relu(), torch.ones(400, 1)], 1).double()
        inverse = torch.linalg.inv(features.T @ features + 10 * torch.eye(65))
        best = 20 * (inverse @ features.T @ target.double()).float()
        self.last.weight.copy_(best[:-1].T)
        self.last.bias.copy_(best[-1])

    def forward(self, x):
        return self.last(self.activation(self.first(x)))


def convert(kind, net, shape=(64,), **options):
    options |= {"input_shape": shape, "nb_classes": 10, "device_type": "cpu"}
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = kind(net, torch.nn.CrossEntropyLoss(), **options)
    if hasattr(theirs.model, "set_forward_mode"):
        theirs.model.set_forward_mode("concrete")
    return theirs


def predicted(theirs, points):
    return theirs.predict(points).argmax(1)


def certified(theirs, bound):
    """Say for each image whether it is certified up to ``bound``."""
    theirs.model.set_forward_mode("abstract")
    if isinstance(theirs, PyTorchIBPClassifier):
        return theirs.certify(theirs.predict_intervals(flat, bounds=bound), labels)
    ball = bound * np.eye(64)
    return np.array([theirs.certify(some[None], ball, label) for some, label in zip(flat, y.tolist())])


def broken(net, eps, **options):
    """Say for each image whether PGD with ``eps`` breaks it."""
    theirs = convert(PyTorchClassifier, net, **options)
    attack = ProjectedGradientDescent(theirs, eps=eps, eps_step=eps / 5, max_iter=20, verbose=False)
    points = attack.generate(flat, labels)
    return predicted(theirs, points) != labels


for module in (True, False):
    net = Hidden(module)
    theirs = convert(PytorchDeepZ, net)
    right, sure, lost = (predicted(theirs, flat) == labels).sum(), certified(theirs, 0.06), broken(net, 0.06)
    text = f"{'a module' if module else 'functional.relu'}: {right} of 40 right, {sure.sum()} certified up to 0.06"
    both = int((sure & lost).sum())
    see(f"{text}, {both} of these broken there", right == 40 and both == 0 if module else right == 40 and both > 10)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(4, 10, 6, bias=False))
once, again = (convert(PyTorchIBPClassifier, net, (1, 8, 8)).predict(x.numpy()) for _ in range(2))
own = net(x).detach().numpy()
text = "convolutions without bias: logits differ from the network's, and from those of a second conversion"
see(text, np.abs(once - own).max() > 0.1 and np.abs(once - again).max() > 0.1)
net, wide = (torch.nn.Sequential(network(4)[1]) for _ in range(2))
wide[0].bias += 0.5 * wide[0].weight.sum(1)  # the same network for images that are brought to [-2, 2]
wide[0].weight *= 0.25
for other, name, options in ((net, "none", {}), (wide, "(0.5, 0.25)", {"preprocessing": (0.5, 0.25)})):
    sure, lost = certified(convert(PyTorchIBPClassifier, other, **options), 0.1), broken(other, 0.1, **options)
    both = int((sure & lost).sum())
    text = f"preprocessing {name}: PGD breaks {lost.sum()} of 40 with eps 0.1, {sure.sum()} are certified up to 0.1"
    see(f"{text}, {both} both", both > 5 if options else both == 0)
PY
