#!/bin/sh
# torch 2.13.0: float32 cross-entropy of an image that is classified right with room to spare. From a gap of 17 between
# the logits on, the loss is exactly 0.0 and so is the true logit's gradient, while the gradient of the *other* logits
# lives on to a gap of 103. In between, the gradient with respect to the image has not vanished but points elsewhere: up
# its slope the other classes rise, and the true one is forgotten. The logits themselves depend on the batch: alone and
# among 256, an image's differ by 1e-7, for nearly every image, though no layer looks at the batch.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: gap 16: loss 1.2e-07, gradient of the true logit -1.2e-07, of the other 1.1e-07
#   seen: gap 17: loss 0.0e+00, gradient of the true logit 0.0e+00, of the other 4.1e-08
#   seen: gap 103: loss 0.0e+00, gradient of the true logit 0.0e+00, of the other 1.4e-45
#   seen: gap 105: loss 0.0e+00, gradient of the true logit 0.0e+00, of the other 0.0e+00
#   seen: cosine of the float32 and the float64 gradient 1.000, with logits times four 0.266
#   seen: alone and in a batch: 256 of 256 differ, by up to 1e-07

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0
python - <<'PY'
import torch
from _toy import images, network, see
from torch.nn import functional as F


def slope(gap):
    logits = torch.tensor([[gap, 0.0]], requires_grad=True)
    loss = F.cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    return float(loss), *logits.grad[0].tolist()


for gap, dead, alive in ((16.0, False, True), (17.0, True, True), (103.0, True, True), (105.0, True, False)):
    loss, true, other = slope(gap)
    text = f"gap {gap:.0f}: loss {loss:.1e}, gradient of the true logit {true:.1e}, of the other {other:.1e}"
    see(text, (loss == 0) == dead == (true == 0) and (other != 0) == alive)
x, y = images()
cosine = []
for scale in (4, 16):
    gradients = []
    for kind in (torch.float32, torch.float64):
        point = x.to(kind).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(scale).to(kind)(point), y, reduction="sum"), point)
        gradients.append(gradient.double().flatten(1) * 1e100)  # cosine_similarity takes lengths below 1e-8 for 1e-8
    cosine.append(float(F.cosine_similarity(*gradients).median()))
text = f"cosine of the float32 and the float64 gradient {cosine[0]:.3f}, with logits times four {cosine[1]:.3f}"
see(text, cosine[0] > 0.999 and cosine[1] < 0.9)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).requires_grad_(False)
batch = torch.rand(256, 64)
apart = (net(batch) - torch.cat([net(one) for one in batch.split(1)])).abs().amax(1)
text = f"alone and in a batch: {int((apart > 0).sum())} of 256 differ, by up to {float(apart.max()):.0e}"
see(text, 0 < apart.max() < 1e-5)
PY
