#!/bin/sh
# advertorch 0.2.3: CarliniWagnerL2Attack and pixels of exactly 0 or 1. It moves the inverse tanh of each pixel, which is
# about 7 there, by learning_rate a step (Adam, whatever the size of the gradient). At the default rate of 0.01 a hundred
# steps are lost before a black pixel has moved at all, and with so few steps black and white images look robust, to the
# last one. Grey images fall at once. The default number of steps, 10,000, hides this; the numbers of steps that a
# comparison can afford do not. Most pixels of MNIST are black.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: grey images, rate 0.01, 100 steps: 0 of 40 right
#   seen: black and white images, rate 0.01, 100 steps: 40 of 40 right, no pixel has moved by 0.001
#   seen: black and white images, rate 0.01, 300 steps: 0 of 40 right
#   seen: black and white images, rate 0.05, 100 steps: 0 of 40 right

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
from _toy import advertorch, correct, images, network, see

attacks = advertorch().attacks
net = network(4)
grey, labels = images()
binary = (grey > 0.5).float()


def cw(x, y, rate, steps):
    """Count the images that are right afterwards, and measure the largest change of a pixel."""
    options = {"binary_search_steps": 6, "initial_const": 1.0, "abort_early": False}
    attack = attacks.CarliniWagnerL2Attack(net, 10, learning_rate=rate, max_iterations=steps, **options)
    points = attack.perturb(x, y)
    return correct(net, points, y), float((points - x).abs().max())


left, _ = cw(grey, labels, 0.01, 100)
see(f"grey images, rate 0.01, 100 steps: {left} of 40 right", left == 0)
labels = net(binary).argmax(1)
left, moved = cw(binary, labels, 0.01, 100)
text = f"black and white images, rate 0.01, 100 steps: {left} of 40 right"
see(f"{text}, no pixel has moved by 0.001", left == 40 and moved < 1e-3)
for rate, steps in ((0.01, 300), (0.05, 100)):
    left, _ = cw(binary, labels, rate, steps)
    see(f"black and white images, rate {rate}, {steps} steps: {left} of 40 right", left == 0)
PY
