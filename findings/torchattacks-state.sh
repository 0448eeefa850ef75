#!/bin/sh
# torchattacks 3.5.1: what an attack leaves behind, and what is saved. Afterwards a network that was in training is put
# there again, all layers, and nothing else is put back. So an eval network stays in training mode after an attack in
# training mode (after the second one its dropout is on, and its batch norm learns from the images that it classifies);
# a batch norm frozen by eval() inside a training network is training again; dropout kept on in an eval network is off,
# during the attack too. APGD, APGDT, FAB and Square seed torch's global generator: what is drawn after each attack is
# the same. save(save_type="int") cuts down to the next level instead of rounding: images get darker, and lie outside
# the ball where rounding keeps them inside; the L2 that it reports is NaN where nothing broke. And AutoAttack runs
# APGD, APGDT and FAB with 10 steps, and has no option for more: pyautoattack, which is made of the same attacks, takes
# 100.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: eval network, attacked in training mode, in training afterwards: True, batch norm False, dropout False
#   seen: attacked again: True, True, True; two calls differ: True, the batch norm's mean moves: True
#   seen: frozen batch norm in a training network: in training after an attack: True
#   seen: dropout kept on in an eval network: during an attack False, afterwards False
#   seen: drawn after PGD and after it again: [108, 829, 419], [869, 511, 530]
#   seen: drawn after APGD and after it again: [757, 94, 590], [757, 94, 590]
#   seen: drawn after APGDT and after it again: [130, 788, 313], [130, 788, 313]
#   seen: drawn after FAB and after it again: [44, 37, 675], [44, 37, 675]
#   seen: drawn after Square and after it again: [395, 276, 265], [395, 276, 265]
#   seen: save as int, eps 5.1 of 255 levels: up to 6.00 away, rounded 5.00, 0.51 darker
#   seen: save as int, eps 8 of 255 levels: up to 9.00 away, 4 of 40 images more than 8
#   seen: 0 of 40 broken: the L2 reported is nan, the mean distance 0.25
#   seen: steps of AutoAttack: {'APGD': 10, 'APGDT': 10, 'FAB': 10}
#   seen: steps of pyautoattack: {'APGD': 100, 'APGDT': 100, 'FAB': 100}
#   seen: gradients for images that nothing breaks: AutoAttack 200, pyautoattack 1910

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no torchattacks
venv torch==2.13.0 numpy==2.4.6 scipy==1.17.1 tqdm==4.70.1 pyautoattack==0.2.0
# Without what it asks for: a version of requests from 2020, only for downloads.
pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
python - <<'PY'
import contextlib
import io
import math

import pyautoattack
import torch
import torchattacks
from _toy import distance, images, network, see, versions
from torch.utils.data import DataLoader, TensorDataset

versions(["torchattacks==3.5.1"])
x, y = images()
net = network(4)


def layers():
    """Make the network with a batch norm before it and dropout behind it, not training."""
    return torch.nn.Sequential(torch.nn.BatchNorm2d(1), net, torch.nn.Dropout(0.5)).eval()


model = layers()
attack = torchattacks.PGD(model, steps=1)
attack.set_model_training_mode(True)
attack(x, y)
once = [model.training, model[0].training, model[2].training]
text = f"eval network, attacked in training mode, in training afterwards: {once[0]}, batch norm {once[1]}"
see(f"{text}, dropout {once[2]}", once == [True, False, False])
attack(x, y)
twice = [model.training, model[0].training, model[2].training]
before = model[0].running_mean.clone()
different = not torch.equal(model(x), model(x))
moved = not torch.equal(model[0].running_mean, before)
text = f"attacked again: {twice[0]}, {twice[1]}, {twice[2]}; two calls differ: {different}"
see(f"{text}, the batch norm's mean moves: {moved}", twice == [True] * 3 and different and moved)
model = layers().train()
model[0].eval()
torchattacks.PGD(model, steps=1)(x, y)
see(f"frozen batch norm in a training network: in training after an attack: {model[0].training}", model[0].training)
model = layers()
model[2].train()
during = []
model[2].register_forward_hook(lambda layer, *_: during.append(layer.training))
torchattacks.PGD(model, steps=1)(x, y)
text = f"dropout kept on in an eval network: during an attack {during[0]}, afterwards {model[2].training}"
see(text, not any(during) and not model[2].training)

torch.manual_seed(1)
safe = network()
safe[1].bias[0] += 30  # class 0 for every image, with or without a small change
zeros = torch.zeros_like(y)
for name in ("PGD", "APGD", "APGDT", "FAB", "Square"):
    attack = getattr(torchattacks, name)(safe, eps=0.01)
    attack.n_queries = 5  # for Square, to save time
    draws = []
    for _ in range(2):
        attack(x[:4], zeros[:4])
        draws.append(torch.randperm(1000)[:3].tolist())
    see(f"drawn after {name} and after it again: {draws[0]}, {draws[1]}", (draws[0] == draws[1]) == (name != "PGD"))


def saved(eps):
    """Attack images of whole levels: the points, the same saved as whole numbers and loaded, and the L2 reported."""
    attack = torchattacks.PGD(net, eps=eps, alpha=eps / 4, steps=10, random_start=False)
    loader = DataLoader(TensorDataset(levels, y), batch_size=len(y))
    with contextlib.redirect_stdout(io.StringIO()):
        _, reported, _ = attack.save(loader, "points", return_verbose=True, save_type="int")
        kept = next(iter(attack.load("points")))[0]
    return attack(levels, y), kept, reported


def farthest(points):
    return 255 * float(distance(points, levels, float("inf")).max())


levels = (255 * x).round() / 255
points, kept, _ = saved(0.02)
rounded = (255 * points).round() / 255
text = f"save as int, eps 5.1 of 255 levels: up to {farthest(kept):.2f} away, rounded {farthest(rounded):.2f}"
darker = 255 * float((points - kept).mean())
see(f"{text}, {darker:.2f} darker", farthest(kept) > 5.9 and farthest(rounded) < 5.1 and 0.3 < darker < 0.7)
points, kept, reported = saved(8 / 255)
far = int((distance(kept, levels, float("inf")) > 8.5 / 255).sum())
text = f"save as int, eps 8 of 255 levels: up to {farthest(kept):.2f} away, {far} of 40 images more than 8"
see(text, farthest(kept) > 8.9 and farthest(points) < 8.01)
broken = int((net(points).argmax(1) != y).sum())
mean = float(distance(points, levels).mean())
text = f"{broken} of 40 broken: the L2 reported is {reported}, the mean distance {mean:.2f}"
see(text, broken == 0 and math.isnan(reported))


class Counted(torch.nn.Module):
    """Count the gradients that are taken."""

    def __init__(self):
        super().__init__()
        self.net, self.count = safe, 0

    def forward(self, x):
        logits = self.net(x)
        if logits.requires_grad:
            logits.register_hook(self.add)
        return logits

    def add(self, _gradient):
        self.count += 1


short, long = Counted(), Counted()
ours = torchattacks.AutoAttack(short, eps=0.01, seed=0)
theirs = pyautoattack.AutoAttack(long, eps=0.01, seed=0)
steps = {attack.attack: attack.steps for attack in ours._autoattack.attacks[:3]}
see(f"steps of AutoAttack: {steps}", set(steps.values()) == {10})
steps = {"APGD": theirs.apgd.n_iter, "APGDT": theirs.apgd_targeted.n_iter, "FAB": theirs.fab.n_iter}
see(f"steps of pyautoattack: {steps}", set(steps.values()) == {100})
ours._autoattack.attacks[3].n_queries = theirs.square.n_queries = 2  # takes no gradients
ours(x[:4], zeros[:4])
theirs.run_standard_evaluation(x[:4], zeros[:4])
text = f"gradients for images that nothing breaks: AutoAttack {short.count}, pyautoattack {long.count}"
see(text, 0 < 5 * short.count < long.count)
PY
