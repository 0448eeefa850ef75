#!/bin/sh
# deel-torchlip 1.0.5: networks whose Lipschitz constant is not the one that was asked for. Sequential(k_coef_lip=k) is
# said to ensure k for the whole model. It writes the k-th part into each layer, but linear layers and convolutions have
# put their own constant into the weights when they were made, and do not look again: only activations and pools follow.
# A certificate that divides by k promises too much where k is below 1, or where the layers' own constants are larger.
# In evaluation a spectral layer takes the weight of its last pass in training mode. So what has changed since then has
# no effect: the last step of the optimizer, weights set by hand, or their average (torch's AveragedModel, whose buffers
# are the last network's). And in evaluation mode no gradient reaches the weight. SpectralConv2d offers padding_mode
# "reflect", divides by a bound that holds for zeros, and is not 1-Lipschitz then.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: Sequential of two linear layers, k_coef_lip=10: constant 1.000
#   seen: Sequential of two linear layers, k_coef_lip=0.1: constant 1.000
#   seen: Sequential of two linear layers, k_coef_lip=1, theirs is 5 each: constant 25.000
#   seen: k_coef_lip=0.1: certified radius 10.0 times the distance to the boundary; 40 of 40 images break inside it
#   seen: evaluation right after a step: the weight of before it; after one more pass in training mode it moves
#   seen: average of 20 steps: evaluated like the last network, until it makes a pass in training mode
#   seen: evaluation mode: of a bias and two weights a gradient reaches 0.bias
#   seen: SpectralConv2d, 3x3, stride 2, weight at its corners: zeros 0.88, replicate 0.90, reflect 1.33

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no deel-torchlip
venv torch==2.13.0 numpy==2.4.6 deel-torchlip==1.0.5
python - <<'PY'
import copy

import torch
from _toy import images, see
from deel import torchlip
from torch.optim.swa_utils import AveragedModel

torch.manual_seed(0)
x, y = images()
x = x.flatten(1)


def constant(net, *shape):
    """The largest singular value of a network that is linear."""
    net = copy.deepcopy(net).eval()
    jacobian = torch.autograd.functional.jacobian(lambda z: net(z).flatten(), torch.zeros(1, *shape))
    return float(torch.linalg.matrix_norm(jacobian.flatten(1).double(), 2))


def pair(own=1.0):
    return torchlip.SpectralLinear(64, 64, k_coef_lip=own), torchlip.SpectralLinear(64, 10, k_coef_lip=own)


for asked, own, found in ((10, 1, 1), (0.1, 1, 1), (1, 5, 25)):
    value = constant(torchlip.Sequential(*pair(own), k_coef_lip=asked), 64)
    text = f"Sequential of two linear layers, k_coef_lip={asked}{', theirs is 5 each' if own > 1 else ''}"
    see(f"{text}: constant {value:.3f}", abs(value - found) < 0.001 * found)

net = torchlip.Sequential(*pair(), k_coef_lip=0.1).eval()
logits, matrix = net(x), net[1].weight @ net[0].weight
(first, second), order = logits.topk(2).values.unbind(1), logits.topk(2).indices
radius = (first - second) / (2**0.5 * 0.1)
normal = matrix[order[:, 1]] - matrix[order[:, 0]]
distance = (first - second) / normal.norm(dim=1)
broken = net(x + 1.001 * distance[:, None] * normal / normal.norm(dim=1, keepdim=True)).argmax(1) != order[:, 0]
ratio, count = float((radius / distance).median()), int((broken & (1.001 * distance < radius)).sum())
text = f"k_coef_lip=0.1: certified radius {ratio:.1f} times the distance to the boundary"
see(f"{text}; {count} of 40 images break inside it", 9.9 < ratio < 10.1 and count == 40)

hidden = torchlip.SpectralLinear(64, 32)
net = torch.nn.Sequential(hidden, torchlip.GroupSort2(), torchlip.SpectralLinear(32, 10, bias=False))
hidden.bias.requires_grad_(False)
average, optimizer = AveragedModel(net), torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(20):
    net.train()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    before = net.eval()[0].weight.clone()
    optimizer.step()
    average.update_parameters(net)
after = net.eval()[0].weight.clone()
evaluated = average.eval()(x)
same = torch.equal(evaluated, net(x))
net.train()(x)
moved = float((net.eval()[0].weight - after).abs().max())
text = "evaluation right after a step: the weight of before it"
see(f"{text}; after one more pass in training mode it moves", torch.equal(before, after) and moved > 1e-4)
average.train()(x)
other = float((average.eval()(x) - evaluated).abs().max())
text = "average of 20 steps: evaluated like the last network"
see(f"{text}, until it makes a pass in training mode", same and other > 1e-3)
net.zero_grad(set_to_none=True)
hidden.bias.requires_grad_(True)
net(x).square().sum().backward()
reached = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
see(f"evaluation mode: of a bias and two weights a gradient reaches {', '.join(reached)}", reached == ["0.bias"])

values = []
for mode in ("zeros", "replicate", "reflect"):
    layer = torchlip.SpectralConv2d(1, 1, 3, stride=2, padding=1, padding_mode=mode, bias=False)
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(0)[:, :, ::2, ::2] = 1
    for _ in range(20):
        layer.train()(torch.zeros(1, 1, 8, 8))
    values.append(constant(layer, 1, 8, 8))
text = "SpectralConv2d, 3x3, stride 2, weight at its corners: zeros {:.2f}, replicate {:.2f}, reflect {:.2f}"
see(text.format(*values), max(values[:2]) < 1.01 and values[2] > 1.3)
PY
