#!/bin/sh
# secml-torch 1.5: its own PGD (the native backend), and what it makes of several attacks. The random start is drawn
# around the image instead of around 0: the image itself, cut down to the ball, is the first change, so nearly all
# pixels begin at +eps and all starts are nearly one. In l_1 a step changes the single largest entry of the gradient of
# the whole batch: all other images stand still. The point after the last step is not looked at: one step returns the
# images as they were. MinDistanceEnsemble starts from the clean images at distance 0, which nothing is nearer than: it
# returns the clean images whatever the attacks found. FixedEpsilonEnsemble with a loss that is a mean, torch's default,
# chooses for the whole batch. An Accuracy that is called a second time gives the mean of both calls.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: random starts: 96% of the pixels at +eps, two draws have a mean cosine of 0.99
#   seen: l_1 PGD, 50 steps, batches of 1: 40 of 40 images moved
#   seen: l_1 PGD, 50 steps, batches of 10: 4 of 40 images moved
#   seen: l_1 PGD, 50 steps, batches of 40: 1 of 40 images moved
#   seen: PGD of one step moves 0 of 40 images, of two steps 40
#   seen: FMN leaves 0 of 40 right, MinDistanceEnsemble of it 40, all at distance 0
#   seen: two attacks that break one half each: FixedEpsilonEnsemble leaves 20 of 40 right, 0 with reduction="none"
#   seen: Accuracy on clean images 1.0, the same object on broken ones 0.5

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no secml-torch
venv torch==2.13.0 numpy==2.4.6 secml-torch==1.5
python - <<'PY'
import torch
from _toy import correct, distance, images, network, see
from secmlt.adv.backends import Backends
from secmlt.adv.evasion.aggregators.ensemble import FixedEpsilonEnsemble, MinDistanceEnsemble
from secmlt.adv.evasion.fmn import FMN
from secmlt.adv.evasion.perturbation_models import LpPerturbationModels as Norms
from secmlt.adv.evasion.pgd import PGD
from secmlt.metrics.classification import Accuracy
from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
from secmlt.optimization.initializer import RandomLpInitializer
from torch.utils.data import DataLoader, TensorDataset

x, y = images()
net = network(4)
model = BasePyTorchClassifier(net)


def loader(points, size=40):
    return DataLoader(TensorDataset(points, y), batch_size=size)


def points(batches):
    return torch.cat([batch for batch, _ in batches])


def moved(size=40, **options):
    attack = PGD(random_start=False, y_target=None, backend=Backends.NATIVE, **options)
    return int((distance(points(attack(model, loader(x, size))), x) > 0).sum())


torch.manual_seed(0)
start = RandomLpInitializer(radius=0.1, perturbation_model=Norms.LINF)
one, other = start(x), start(x)
share = float((one > 0.0999).float().mean())
cosine = float(torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)).mean())
text = f"random starts: {share:.0%} of the pixels at +eps, two draws have a mean cosine of {cosine:.2f}"
see(text, share > 0.8 and cosine > 0.9)
for size, most in ((1, 40), (10, 10), (40, 2)):
    count = moved(size, perturbation_model=Norms.L1, epsilon=4.0, num_steps=50, step_size=0.3)
    text = f"l_1 PGD, 50 steps, batches of {size}: {count} of 40 images moved"
    see(text, count == 40 if size == 1 else 0 < count <= most)
counts = [moved(perturbation_model=Norms.LINF, epsilon=0.1, num_steps=steps, step_size=0.1) for steps in (1, 2)]
see(f"PGD of one step moves {counts[0]} of 40 images, of two steps {counts[1]}", counts == [0, 40])
attack = FMN(perturbation_model=Norms.L2, num_steps=100, step_size=0.5, backend=Backends.NATIVE)
broken = points(attack(model, loader(x)))
best = points(MinDistanceEnsemble(Norms.L2)(model, loader(x), [loader(broken)]))
left, after = correct(net, broken, y), correct(net, best, y)
text = f"FMN leaves {left} of 40 right, MinDistanceEnsemble of it {after}, all at distance 0"
see(text, left == 0 and after == 40 and torch.equal(best, x))
halves = [loader(torch.cat([broken[:20], x[20:]])), loader(torch.cat([x[:20], broken[20:]]))]
left = []
for reduction in ("mean", "none"):
    ensemble = FixedEpsilonEnsemble(torch.nn.CrossEntropyLoss(reduction=reduction))
    left.append(correct(net, points(ensemble(model, loader(x), halves)), y))
text = f"two attacks that break one half each: FixedEpsilonEnsemble leaves {left[0]} of 40 right"
see(f'{text}, {left[1]} with reduction="none"', left == [20, 0])
accuracy = Accuracy()
values = [round(float(accuracy(model, loader(batch))), 3) for batch in (x, broken)]
see(f"Accuracy on clean images {values[0]}, the same object on broken ones {values[1]}", values == [1.0, 0.5])
PY
