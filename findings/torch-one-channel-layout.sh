#!/bin/sh
# torch 2.13.0 on a CPU: a batch with one channel counts as "channels last" and as contiguous at the same time, so
# contiguous(memory_format=torch.channels_last) returns it as it is, and every layer then works in the slow layout; to()
# and clone() with the same argument return other strides, of the same bytes, and the layers follow those: other
# rounding, and max pooling in a quarter of the time. Weights that went through to() have the same effect, whatever the
# images are. Under torch.vmap neither to() nor clone() is allowed: there the strides take permute and clone.
#
# Seen in November 2026, Python 3.11, x86-64 Linux (pooling on one core: 10.7 against 2.2 ms):
#   seen: images say that they are contiguous, channels first True, channels last True
#   seen: contiguous: strides (784, 784, 28, 1), the convolution answers channels last: False
#   seen: to: strides (784, 1, 28, 1), the convolution answers channels last: True
#   seen: clone: strides (784, 1, 28, 1), the convolution answers channels last: True
#   seen: weights after to(), images as they are: the convolution answers channels last: True
#   seen: the same bytes in both layouts: True
#   seen: max pooling: the same values in both layouts: True
#   seen: max pooling takes at least 1.5 times as long with channels first
#   seen: vmap refuses to: True
#   seen: vmap refuses clone: True
#   seen: vmap takes permute and clone: True

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6
python - <<'PY'
import statistics
import time

import torch
from _toy import see
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
last = torch.channels_last
x = torch.rand(128, 1, 28, 28)
convolution = nn.Conv2d(1, 16, 3, padding=1).requires_grad_(False)
both = x.is_contiguous(), x.is_contiguous(memory_format=last)
see(f"images say that they are contiguous, channels first {both[0]}, channels last {both[1]}", both == (True, True))
for name, expected in (("contiguous", False), ("to", True), ("clone", True)):
    given = getattr(x, name)(memory_format=last)
    answer = convolution(given).is_contiguous(memory_format=last)
    see(f"{name}: strides {given.stride()}, the convolution answers channels last: {answer}", answer == expected)
weights = nn.Conv2d(1, 16, 3, padding=1).requires_grad_(False).to(memory_format=last)
answer = weights(x).is_contiguous(memory_format=last)
see(f"weights after to(), images as they are: the convolution answers channels last: {answer}", answer)
moved = x.to(memory_format=last)
same = torch.equal(moved.as_strided((x.numel(),), (1,)), x.as_strided((x.numel(),), (1,)))
see(f"the same bytes in both layouts: {same}", same)
first = convolution(x)
other = first.contiguous(memory_format=last)
same = torch.equal(nn.functional.max_pool2d(first, 2), nn.functional.max_pool2d(other, 2))
see(f"max pooling: the same values in both layouts: {same}", same)


def milliseconds(images):
    times = []
    for _ in range(21):
        started = time.perf_counter()
        nn.functional.max_pool2d(images, 2)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


faster = milliseconds(first) / milliseconds(other)
see("max pooling takes at least 1.5 times as long with channels first", faster > 1.5)


def refused(function):
    try:
        torch.vmap(lambda image: function(image[None]))(x)
    except RuntimeError:
        return True
    return False


for name in ("to", "clone"):
    no = refused(lambda batch, name=name: getattr(batch, name)(memory_format=last))
    see(f"vmap refuses {name}: {no}", no)
taken = not refused(lambda batch: batch.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format))
see(f"vmap takes permute and clone: {taken}", taken)
PY
