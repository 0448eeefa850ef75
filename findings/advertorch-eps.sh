#!/bin/sh
# advertorch 0.2.3: what `eps` is. PGD's points lie beyond a strict <= eps, by float rounding (x + delta - x). An eps
# for each image is taken in the shape (N,), though images are (N, C, H, W). (N, 1, 1, 1), which broadcasts, is refused,
# but taken where N happens to be the images' width; eps then holds for each column of pixels, not for each image.
# FABAttack's eps is the size of its restarts and bounds nothing: points at 1 and at 0.001 are the same. LinfSPSAAttack
# makes one step of 0.01 unless told otherwise, whatever eps is.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: PGD: 34 of 40 points beyond eps, by up to 3e-08
#   seen: eps of shape (40,) works, of shape (40, 1, 1, 1): RuntimeError: The size of tensor a (8) must match th...
#   seen: eps 0.01 to 0.08 of shape (8, 1, 1, 1): images move by 0.08 to 0.08, columns by 0.01 to 0.08
#   seen: FAB at eps 0.001 is FAB at eps 1: median distance 0.090
#   seen: SPSA at eps 0.3 moves no pixel by more than 0.010

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3
python - <<'PY'
import torch
from _toy import advertorch, distance, images, network, see

attacks = advertorch().attacks
x, y = images()
net = network(4)
inf = float("inf")


def pgd(eps, n=40):
    return attacks.LinfPGDAttack(net, eps=eps, nb_iter=10, eps_iter=0.02, rand_init=False).perturb(x[:n], y[:n])


beyond = distance(pgd(0.125).double(), x.double(), inf) - 0.125
count = int((beyond > 0).sum())
see(f"PGD: {count} of 40 points beyond eps, by up to {float(beyond.max()):.0e}", 0 < beyond.max() < 1e-7)
pgd(torch.full((40,), 0.1))
try:
    pgd(torch.full((40, 1, 1, 1), 0.1))
    refused = ""
except RuntimeError as error:
    refused = f"{type(error).__name__}: {error}"
see(f"eps of shape (40,) works, of shape (40, 1, 1, 1): {refused[:52]}...", "must match the size" in refused)
each = torch.linspace(0.01, 0.08, 8)
change = (pgd(each.view(8, 1, 1, 1), 8) - x[:8]).abs()
whole, columns = (change.amax(dim) for dim in ((1, 2, 3), (0, 1, 2)))
text = f"eps 0.01 to 0.08 of shape (8, 1, 1, 1): images move by {float(whole.min()):.2f} to {float(whole.max()):.2f}"
columns_follow = torch.allclose(columns, each) and whole.min() > 0.079
see(f"{text}, columns by {float(columns.min()):.2f} to {float(columns.max()):.2f}", columns_follow)
wide, narrow = (attacks.FABAttack(net, norm="Linf", eps=eps, n_iter=10).perturb(x, y) for eps in (1.0, 0.001))
median = float(distance(narrow, x, inf).median())
see(f"FAB at eps 0.001 is FAB at eps 1: median distance {median:.3f}", torch.equal(wide, narrow) and median > 0.01)
moved = float(distance(attacks.LinfSPSAAttack(net, eps=0.3).perturb(x, y), x, inf).max())
see(f"SPSA at eps 0.3 moves no pixel by more than {moved:.3f}", moved < 0.011)
PY
