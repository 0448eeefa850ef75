#!/bin/sh
# advertorch 0.2.3: JacobianSaliencyMapAttack rates every pair of pixel values of every image of the batch at once. For
# images of MNIST's size that is 784 * 784 pairs an image, some 15 MB, at each step, however few pixels may change: a
# batch of 100 needs more than a gigabyte, where network and images need a few megabytes. The points are the same where
# the pairs of a few images at a time are rated.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: 40 images of 28 by 28: 529 MB more; 10 of them: 140 MB; 40 images of 14 by 14: 43 MB
#   seen: four times the images, 3.8 times the memory
#   seen: four times the pixels, 12.3 times the memory

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
import resource
import subprocess
import sys

from _toy import see

ONE = """
import resource, sys
import torch
from _toy import advertorch

attacks, (side, number) = advertorch().attacks, map(int, sys.argv[1:])
torch.manual_seed(0)
classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side * side, 10)).requires_grad_(False)
x = torch.rand(number, 1, side, side)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attack = attacks.JacobianSaliencyMapAttack(classifier, num_classes=10, theta=1.0, gamma=4 / side**2)
attack.perturb(x, (classifier(x).argmax(1) + 1) % 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def megabytes(side, number):
    """By how much the peak of a process rises that attacks so many images, two steps each."""
    command = [sys.executable, "-W", "ignore", "-c", ONE, str(side), str(number)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


small, few, many = megabytes(14, 40), megabytes(28, 10), megabytes(28, 40)
see(f"40 images of 28 by 28: {many} MB more; 10 of them: {few} MB; 40 images of 14 by 14: {small} MB", many > 300)
see(f"four times the images, {many / few:.1f} times the memory", 2.5 < many / few < 5.5)
see(f"four times the pixels, {many / max(small, 1):.1f} times the memory", many / max(small, 1) > 8)
PY
