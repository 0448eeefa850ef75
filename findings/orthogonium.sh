#!/bin/sh
# orthogonium 0.0.4: orthogonal convolutions that are not, for two of the padding modes that they take. It says that
# AdaptiveOrthoConv2d is meant for all features of a Conv2d, flexible padding among them, and that with zeros its
# Lipschitz constant stays tight. With "reflect" and "replicate" a pixel at the border counts several times, and the
# constant of a fresh layer is 1.3 to 1.9 instead of 1: a radius that is certified with 1 is too long, more so with each
# layer. "circular", the default, is right where the output is no larger than the input; with more padding a pixel
# counts twice there too. No warning is given. And the statistics of BatchCentering2D change their shape in the first
# pass, so that a new network refuses the state of a trained one.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: circular: 3x3 1.00, 5x5 1.00, 4x4 with stride 2 1.00; four layers of 3x3 1.00
#   seen: zeros: 3x3 1.00, 5x5 1.00, 4x4 with stride 2 1.00; four layers of 3x3 1.00
#   seen: reflect: 3x3 1.58, 5x5 1.74, 4x4 with stride 2 1.29; four layers of 3x3 2.07
#   seen: replicate: 3x3 1.84, 5x5 1.65, 4x4 with stride 2 1.35; four layers of 3x3 2.48
#   seen: circular, 3x3, padding 2 in place of 1: 2.00; warnings: 0
#   seen: BatchCentering2D: a trained layer's state does not fit a new one, size mismatch

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no orthogonium
venv torch==2.13.0 numpy==2.4.6 orthogonium==0.0.4
python - <<'PY'
import warnings

import torch
from _toy import see
from orthogonium.layers import BatchCentering2D
from orthogonium.layers.conv.AOC import AdaptiveOrthoConv2d

torch.manual_seed(0)


def constant(net, size=8):
    """The largest singular value of a network that is linear, on images of 4 channels."""
    image = torch.zeros(1, 4, size, size)
    jacobian = torch.autograd.functional.jacobian(lambda z: net(z).flatten(), image)
    return float(torch.linalg.matrix_norm(jacobian.flatten(1).double(), 2))


def layer(mode, kernel=3, stride=1, padding=1):
    return AdaptiveOrthoConv2d(4, 4, kernel, stride, padding, padding_mode=mode, bias=False).eval()


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for mode in ("circular", "zeros", "reflect", "replicate"):
        values = [constant(layer(mode, *shape)) for shape in ((3, 1, 1), (5, 1, 2), (4, 2, 1))]
        deep = constant(torch.nn.Sequential(*(layer(mode) for _ in range(4))))
        text = f"{mode}: 3x3 {values[0]:.2f}, 5x5 {values[1]:.2f}, 4x4 with stride 2 {values[2]:.2f}"
        right = mode in ("circular", "zeros")
        holds = max([*values, deep]) < 1.001 if right else min(values) > 1.1 and deep > 1.3
        see(f"{text}; four layers of 3x3 {deep:.2f}", holds)
    value = constant(layer("circular", padding=2))
    see(f"circular, 3x3, padding 2 in place of 1: {value:.2f}; warnings: {len(said)}", value > 1.9 and not said)
trained = BatchCentering2D(4)
trained(torch.zeros(2, 4, 8, 8))
try:
    BatchCentering2D(4).load_state_dict(trained.state_dict())
    refused = ""
except RuntimeError as error:
    refused = str(error)
see("BatchCentering2D: a trained layer's state does not fit a new one, size mismatch", "size mismatch" in refused)
PY
