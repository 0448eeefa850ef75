#!/bin/sh
# torch 2.13.0 on a CPU: a convolution in float64 takes many times as long as in float32, where a matrix product takes
# about twice as long. oneDNN, which computes float32 convolutions, has no float64 ones, and torch's own go through the
# batch image by image. So moving a network to float64, as for a proof whose rounding must not matter, costs an order of
# magnitude, not a factor of two.
#
# Seen in November 2026, Python 3.11, x86-64 Linux, one thread (batch 500, 64 to 32 channels, 3x3, on 8x8 images: float32
# 6 to 7 ms, float64 70 ms transposed and 157 ms plain):
#   seen: a plain convolution in float64 takes more than 5 times as long as in float32
#   seen: a transposed one too
#   seen: a matrix product of the same size takes less than 4 times as long

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0
python - <<'PY'
import time

import torch
import torch.nn.functional as F
from _toy import see

torch.set_num_threads(1)


def seconds(work):
    work()
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


taken = {}
for dtype in (torch.float32, torch.float64):
    torch.manual_seed(0)
    x, weight = torch.randn(500, 64, 8, 8, dtype=dtype), torch.randn(64, 32, 3, 3, dtype=dtype)
    flat, square = x.permute(0, 2, 3, 1).flatten(0, 2).contiguous(), weight.flatten(1)
    plain = weight.transpose(0, 1).flip(2, 3).contiguous()
    taken[dtype] = {
        "plain": seconds(lambda: F.conv2d(x, plain, padding=2)),
        "transposed": seconds(lambda: F.conv_transpose2d(x, weight)),
        "product": seconds(lambda: flat @ square),
    }
ratio = {name: taken[torch.float64][name] / taken[torch.float32][name] for name in taken[torch.float64]}
print({name: round(value, 1) for name, value in ratio.items()})
see("a plain convolution in float64 takes more than 5 times as long as in float32", ratio["plain"] > 5)
see("a transposed one too", ratio["transposed"] > 5)
see("a matrix product of the same size takes less than 4 times as long", ratio["product"] < 4)
PY
