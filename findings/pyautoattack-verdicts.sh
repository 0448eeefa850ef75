#!/bin/sh
# pyautoattack 0.2.0: which images count as robust. A network whose logits are all NaN predicts class 0, so every image
# of class 0 is "robust", without a warning. With 2 to 9 classes the standard version asks for nine wrong classes and
# ends in an IndexError, but only if an image survives its first attack; if all are broken by then, it ends well. An
# image that nothing breaks comes back unchanged: a mean of the distances mixes in zeros. Which adversarial point an
# image gets depends on the batch size, whatever the seed.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: NaN logits: 4 of 40 images robust, 4 are of class 0, warnings: 0
#   seen: 2 classes, some images left: IndexError; none left: fine
#   seen: 3 classes, some images left: IndexError; none left: fine
#   seen: 4 classes, some images left: IndexError; none left: fine
#   seen: 9 classes, some images left: IndexError; none left: fine
#   seen: 27 of 40 images unbroken at eps 0.09, all at distance 0
#   seen: batches of 7 instead of 40, same seed: 3 of 40 points differ

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pyautoattack==0.2.0
python - <<'PY'
import logging

import torch
from _toy import distance, images, network, see
from pyautoattack import AutoAttack

said = []
logging.getLogger("auto-attack").addFilter(lambda record: said.append(record.getMessage()))
quick = {"version": "custom", "attacks": ["apgd-ce"]}


def attack(net, x, y, eps=0.1, batch_size=40, **options):
    return AutoAttack(net, eps=eps, seed=0, **options).run_standard_evaluation(x, y, batch_size=batch_size)


class Overflowed(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10] * float("nan")


x, y = images()
_, predicted = attack(Overflowed(), x, y, **quick)
kept = predicted == y
text = f"NaN logits: {int(kept.sum())} of 40 images robust, {int((y == 0).sum())} are of class 0"
see(f"{text}, warnings: {len(said)}", bool((kept == (y == 0)).all()) and not said)
for classes in (2, 3, 4, 9):
    few, labels = images(classes=classes)
    ends = []
    for eps in (0.01, 0.5):
        try:
            attack(network(classes=classes), few, labels, eps)
            ends.append("fine")
        except (IndexError, RuntimeError) as error:
            ends.append(type(error).__name__)
    text = f"{classes} classes, some images left: {ends[0]}; none left: {ends[1]}"
    see(text, ends[0] != "fine" and ends[1] == "fine")
net = network()
points, _ = attack(net, x, y, 0.09, **quick)
unbroken = net(points).argmax(1) == y
text = f"{int(unbroken.sum())} of 40 images unbroken at eps 0.09, all at distance 0"
see(text, 0 < unbroken.sum() < 40 and not distance(points, x)[unbroken].any())
one, other = (attack(net, x, y, batch_size=size, **quick)[0] for size in (40, 7))
changed = int((one != other).flatten(1).any(1).sum())
see(f"batches of 7 instead of 40, same seed: {changed} of 40 points differ", changed > 0)
PY
