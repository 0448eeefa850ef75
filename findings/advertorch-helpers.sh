#!/bin/sh
# advertorch 0.2.3: three helpers that do other than they say. The L_inf distance of multiple_mini_batch_attack has a
# sign: the largest *decrease* of a pixel, so an attack that brightens by 0.25 reports -0.25. ZeroOneLoss is a margin,
# not 0 or 1. Attacks leave their gradients in the network's parameters: a training step that follows adds to them,
# unless it clears them first.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: largest change of a pixel 0.25, reported -0.25
#   seen: ZeroOneLoss of a right and a wrong prediction: [-2.0, 2.5]
#   seen: gradient left in the weights: length 97.3

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
import torch
from _toy import advertorch, network, see

package = advertorch()
net = network(classes=2)
net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 64))  # brighter is class 1
net[1].bias.copy_(torch.tensor([64.0, 0.0]))
x, y = torch.full((4, 1, 8, 8), 0.4), torch.zeros(4, dtype=torch.long)
attack = package.attacks.LinfPGDAttack(net, eps=0.25, nb_iter=5, eps_iter=0.1, rand_init=False)
reported = package.attacks.utils.multiple_mini_batch_attack(attack, [(x, y)], device="cpu", norm="Linf")[3]
true = float((attack.perturb(x, y) - x).abs().max())
text = f"largest change of a pixel {true:.2f}, reported {float(reported[0]):.2f}"
see(text, abs(reported[0] + true) < 1e-6 and true > 0.2)
loss = package.loss.ZeroOneLoss(reduction="none")(torch.tensor([[3.0, 1.0], [1.0, 3.5]]), torch.tensor([0, 0]))
see(f"ZeroOneLoss of a right and a wrong prediction: {loss.tolist()}", loss.tolist() == [-2.0, 2.5])
net.requires_grad_(True)
attack.perturb(x, y)
left = float(net[1].weight.grad.norm())
see(f"gradient left in the weights: length {left:.1f}", left > 0)
PY
