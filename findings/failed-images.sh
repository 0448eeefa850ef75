#!/bin/sh
# advertorch 0.2.3 and foolbox 3.3.4: what an attack that looks for a small change hands back for an image that it could
# not break (here a network with constant logits, which nothing breaks) is never said and never the same: the clean
# image (a distance of 0, as if no change were needed), or an all-black image. Judge a black image by its class, and
# attacks "succeed" that found nothing; average the distances, and failures pull the mean down.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: advertorch CarliniWagnerL2Attack: the clean image
#   seen: advertorch DDNL2Attack: the clean image
#   seen: advertorch SpatialTransformAttack: black
#   seen: advertorch ChooseBestAttack of PGD: black
#   seen: foolbox L2CarliniWagnerAttack: black
#   seen: foolbox EADAttack: black
#   seen: foolbox DDNAttack: the clean image
#   seen: foolbox L2FMNAttack: the clean image
#   seen: an image that is wrong from the start: C&W moves it by 2e-06, not by 0

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 'scipy==1.17.1' advertorch==0.2.3 foolbox==3.3.4
python - <<'PY'
import foolbox
import torch
from _toy import advertorch, distance, images, network, see

x, _ = images(4)
net = network()
net[1].weight.zero_()
net[1].bias.copy_(torch.arange(10.0).flip(0))  # class 0 for every image
y = torch.zeros(4, dtype=torch.long)
theirs, ours = advertorch().attacks, foolbox.attacks
loss = torch.nn.CrossEntropyLoss(reduction="none")
pgd = theirs.LinfPGDAttack(net, eps=0.1, rand_init=False)
found = {
    "advertorch CarliniWagnerL2Attack": theirs.CarliniWagnerL2Attack(net, 10, max_iterations=5, binary_search_steps=1),
    "advertorch DDNL2Attack": theirs.DDNL2Attack(net, nb_iter=5),
    "advertorch SpatialTransformAttack": theirs.SpatialTransformAttack(net, 10, max_iterations=5),
    "advertorch ChooseBestAttack of PGD": theirs.ChooseBestAttack(net, [pgd], loss_fn=loss),
}
found = {name: attack.perturb(x, y) for name, attack in found.items()}
model = foolbox.PyTorchModel(net, bounds=(0, 1))
for attack in (
    ours.L2CarliniWagnerAttack(steps=5, binary_search_steps=1),
    ours.EADAttack(steps=5, binary_search_steps=1),
    ours.DDNAttack(steps=5),
    ours.L2FMNAttack(steps=5),
):
    found[f"foolbox {type(attack).__name__}"] = attack(model, x, y, epsilons=None)[0]
black = {
    "advertorch SpatialTransformAttack",
    "advertorch ChooseBestAttack of PGD",
    "foolbox L2CarliniWagnerAttack",
    "foolbox EADAttack",
}
for name, points in found.items():
    if name in black:
        see(f"{name}: black", not points.any())
    else:
        see(f"{name}: the clean image", torch.equal(points, x))
moved = float(distance(theirs.CarliniWagnerL2Attack(net, 10, max_iterations=5).perturb(x, y + 1), x).max())
see(f"an image that is wrong from the start: C&W moves it by {moved:.0e}, not by 0", 0 < moved < 1e-4)
PY
