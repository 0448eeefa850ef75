#!/bin/sh
# cleverhans 4.0.0, PyTorch: SPSA, and the random start of the sparse l_1 descent. spsa is said to estimate a gradient
# at each step, for networks whose own is of no use. It asks for the loss at image plus perturbation, and then hands the
# image over as the perturbation: all its estimates are those at twice the image, whatever the perturbation is by then,
# and outside of clip_min and clip_max. A network that first clips its images to their range is flat there and is never
# broken; others are attacked with another image's gradient. sparse_l1_descent draws a random start as it is asked to,
# but with clip_min or clip_max it then goes on from the image itself.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: 5 steps, 5 gradients: the network is asked around twice the image, up to 1.92 where clip_max is 1
#   seen: network as it is, eps 0.1, 20 steps: SPSA leaves 31 of 40 right, PGD 16
#   seen: network clipped first, eps 0.1, 20 steps: SPSA leaves 40 of 40 right, PGD 16
#   seen: sparse_l1_descent, no clip: starts at an l_1 distance of 4.93
#   seen: sparse_l1_descent, clip_min=0, clip_max=1: starts at an l_1 distance of 0.00

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no cleverhans
venv torch==2.13.0 numpy==2.4.6
# Without what it asks for: TensorFlow's packages and tools for tests.
pip install --quiet --disable-pip-version-check --no-deps cleverhans==4.0.0
python - <<'PY'
import numpy as np
import torch
from _toy import correct, distance, images, network, see, versions
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.torch.attacks.sparse_l1_descent import sparse_l1_descent
from cleverhans.torch.attacks.spsa import spsa

versions(["cleverhans==4.0.0"])
x, y = images()
net = network(4)
box = {"clip_min": 0.0, "clip_max": 1.0}
asked = []


def recorded(points):
    asked.append(points.detach().clone())
    return net(points)


def clipped(points):
    """The same network, for points that are brought to [0, 1] first."""
    return net(points.clamp(0, 1))


torch.manual_seed(0)
spsa(recorded, x[:1], eps=0.1, nb_iter=5, y=y[:1], **box)
estimates = [points for points in asked if len(points) > 1]
twice = max(float((points.mean(0) - 2 * x[0]).abs().max()) for points in estimates)
above = max(float(points.max()) for points in estimates)
text = f"5 steps, {len(estimates)} gradients: the network is asked around twice the image"
see(f"{text}, up to {above:.2f} where clip_max is 1", twice < 1e-4 and len(estimates) == 5 and above > 1.5)
for name, model in (("as it is", net), ("clipped first", clipped)):
    torch.manual_seed(0)
    one = correct(model, spsa(model, x, 0.1, 20, y=y, **box), y)
    other = correct(model, projected_gradient_descent(model, x, 0.1, 0.01, 20, np.inf, y=y, **box), y)
    text = f"network {name}, eps 0.1, 20 steps: SPSA leaves {one} of 40 right, PGD {other}"
    see(text, other < 25 and (one == 40 if model is clipped else one < 40))
for name, options in (("no clip", {}), ("clip_min=0, clip_max=1", box)):
    asked.clear()
    torch.manual_seed(0)
    sparse_l1_descent(recorded, x, eps=5.0, eps_iter=0.5, nb_iter=1, y=y, rand_init=True, **options)
    away = float(distance(asked[0], x, 1).mean())
    see(f"sparse_l1_descent, {name}: starts at an l_1 distance of {away:.2f}", (away == 0) == bool(options))
PY
