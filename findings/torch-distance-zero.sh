#!/bin/sh
# torch 2.13.0: the gradient of a length or distance where that is 0 has five answers. vector_norm and cdist: 0. The
# root of a sum of squares: NaN. pairwise_distance: a unit vector, as it adds 1e-6 to each difference first, so that a
# point is 1.4e-6 from itself (in the plane). cosine_similarity: 7e7. normalize: 1e12. One embedding that is all zeros
# (a dead layer, padding) ends a training or leaves it alone, depending on which of these the loss is written with.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: vector_norm(z) = 0.0e+00, gradient 0.0e+00
#   seen: cdist(z, 0) = 0.0e+00, gradient 0.0e+00
#   seen: z.square().sum().sqrt() = 0.0e+00, gradient nan
#   seen: pairwise_distance(z, 0) = 1.4e-06, gradient 7.1e-01
#   seen: cosine_similarity(z, 1) = 0.0e+00, gradient 7.1e+07
#   seen: normalize(z) = 0.0e+00, gradient 1.0e+12

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0
python - <<'PY'
import math

import torch
from _toy import see
from torch.nn import functional as F

zero, one = torch.zeros(1, 2), torch.ones(1, 2)
for name, function, expected in (
    ("vector_norm(z)", lambda z: torch.linalg.vector_norm(z, dim=1), 0),
    ("cdist(z, 0)", lambda z: torch.cdist(z, zero), 0),
    ("z.square().sum().sqrt()", lambda z: z.square().sum().sqrt(), math.nan),
    ("pairwise_distance(z, 0)", lambda z: F.pairwise_distance(z, zero), 0.5**0.5),
    ("cosine_similarity(z, 1)", lambda z: F.cosine_similarity(z, one), 0.5**0.5 * 1e8),
    ("normalize(z)", lambda z: F.normalize(z), 1e12),
):
    z = torch.zeros(1, 2, requires_grad=True)
    value = function(z).sum()
    value.backward()
    slope = float(z.grad[0, 0])
    holds = math.isnan(slope) if math.isnan(expected) else math.isclose(slope, expected, rel_tol=1e-4)
    see(f"{name} = {float(value):.1e}, gradient {slope:.1e}", holds)
PY
