#!/bin/sh
# cleverhans 4.0.0 and adversarial-robustness-toolbox 1.20.1: Carlini and Wagner's l_2 attack, where the search for the
# constant does not search. It should close in on the smallest constant that breaks the image, with a bound from each
# side. But the bounds share the constant's memory, a slice of the same tensor or the same array, and move along with
# it: soon the next value is the mean of two equal numbers. The first constant that works after one that failed stays to
# the end, too large by up to ten times (cleverhans) or twice (the toolbox). After one that failed behind one that
# worked, cleverhans tries no other and the toolbox one more. The toolbox then repeats itself to the last bit, however
# many steps are asked for, and its changes are longer than those of the same attack with one step at a time and a
# bisection around it. And cleverhans multiplies a column of constants by a row of losses: all images of a batch are
# attacked with the mean of their constants.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: image 0 takes a constant of 0.033
#   seen: cleverhans from 0.01: 0.01, 0.1, 0.1, 0.1, 0.1, 0.1
#   seen: cleverhans from 0.8: 0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.025, 0.025, 0.025
#   seen: toolbox from 0.04: 0.04, 0.02, 0.03 to the end
#   seen: toolbox, image 0: 0.01, 0.02, 0.04 to the end, 5 steps and 10 give the same point
#   seen: its distance is 1.054 times the smallest, with a bisection around it 1.000 times
#   seen: toolbox, image 2: 0.01, 0.02, 0.04 to the end, 5 steps and 10 give the same point
#   seen: its distance is 1.105 times the smallest, with a bisection around it 1.000 times
#   seen: cleverhans, image 1 alone: 0.03, 0.015; beside image 4: 0.03, 0.16, image 4 0.03, 0.16

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no toolbox and no cleverhans
# The toolbox imports packaging, which it doesn't ask for.
venv torch==2.13.0 numpy==2.4.6 packaging==25.0 adversarial-robustness-toolbox==1.20.1
# Without what it asks for: TensorFlow's packages and tools for tests.
pip install --quiet --disable-pip-version-check --no-deps cleverhans==4.0.0
python - <<'PY'
import torch
from _toy import distance, images, network, see, versions
from art.attacks.evasion import CarliniL2Method
from art.estimators.classification import PyTorchClassifier
from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

versions(["cleverhans==4.0.0"])
x = 0.25 + images(5)[0] / 2  # so grey that no pixel gets as far as black or white
net = network(4)
y = net(x).argmax(1)
# For a linear network the distance to each other class is the gap of logits over the length of the weights' difference,
# and the constant that it takes to get there is twice the distance over that length.
weight, logits = net[1].weight, net(x)
length = (weight[y][:, None] - weight).norm(dim=2)
exact, nearest = ((logits.gather(1, y[:, None]) - logits) / length).nan_to_num(float("inf")).min(1)
needed = 2 * exact / length.gather(1, nearest[:, None])[:, 0]
theirs = PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")


def listed(constants):
    return ", ".join(f"{float(constant):.2g}" for constant in constants)


def cleverhans(rows, start, steps, iterations=60):
    """Attack some images; list each one's constants: the largest gradient of its loss by a logit in each step."""
    found = []

    def watched(points):
        logits = net(points)
        logits.register_hook(lambda gradient: found.append(gradient.abs().amax(1) / len(rows)))
        return logits

    options = {"lr": 0.01, "initial_const": start, "binary_search_steps": steps, "max_iterations": iterations}
    carlini_wagner_l2(watched, x[rows], 10, y=y[rows], **options)
    return torch.stack(found).view(steps, iterations, -1).amax(1).T


class Toolbox(CarliniL2Method):
    """Keep the constants of an attack on one image: a new one wherever it changes."""

    def __init__(self, start, steps):
        super().__init__(theirs, initial_const=start, binary_search_steps=steps, verbose=False)
        self.constants = [start]

    def _loss(self, x, x_adv, target, c_weight):
        if len(c_weight) and self.constants[-1] != c_weight[0]:
            self.constants.append(float(c_weight[0]))
        return super()._loss(x, x_adv, target, c_weight)

    def perturb(self, i):
        """Attack image ``i``: the point, and its distance in smallest changes, infinite where it is not broken."""
        point = torch.from_numpy(self.generate(x[i : i + 1].numpy(), y[i : i + 1].numpy()))
        broken = bool(net(point).argmax(1) != y[i])
        return point, float(distance(point, x[i : i + 1]) / exact[i]) if broken else float("inf")


def bisection(i):
    """Run the toolbox's attack ten times, one step each, with a bisection around it."""
    low, high, constant, best = 0.0, float("inf"), 0.01, float("inf")
    for _ in range(10):
        ratio = Toolbox(constant, 1).perturb(i)[1]
        low, high = (low, constant) if ratio < float("inf") else (constant, high)
        best, constant = min(best, ratio), min(2 * constant, (low + high) / 2)
    return best


see(f"image 0 takes a constant of {float(needed[0]):.3f}", 0.03 < needed[0] < 0.035)
up, down = cleverhans([0], 0.01, 6)[0], cleverhans([0], 0.8, 9)[0]
see(f"cleverhans from 0.01: {listed(up)}", up[1] > 2 * needed[0] and torch.equal(up[2:], up[1:-1]))
see(f"cleverhans from 0.8: {listed(down)}", down[-1] < needed[0] and torch.equal(down[-3:-1], down[-2:]))
attack = Toolbox(0.04, 10)
attack.perturb(0)
text = f"toolbox from 0.04: {listed(attack.constants)} to the end"
see(text, len(attack.constants) == 3 and attack.constants[-1] < needed[0])
for i in (0, 2):
    attack = Toolbox(0.01, 10)
    (short, _), (long, ratio), best = Toolbox(0.01, 5).perturb(i), attack.perturb(i), bisection(i)
    text = f"toolbox, image {i}: {listed(attack.constants)} to the end, 5 steps and 10 give the same point"
    see(text, torch.equal(short, long) and len(attack.constants) == 3)
    text = f"its distance is {ratio:.3f} times the smallest, with a bisection around it {best:.3f} times"
    see(text, best < 1.01 and ratio > 1.03)
alone, both = cleverhans([1], 0.03, 2)[0], cleverhans([1, 4], 0.03, 2)
text = f"cleverhans, image 1 alone: {listed(alone)}; beside image 4: {listed(both[0])}, image 4 {listed(both[1])}"
see(text, torch.allclose(both[0], both[1]) and both[0, 1] > 5 * alone[1])
PY
