#!/bin/sh
# advertorch 0.2.3: the random start of L2PGDAttack is a random image pulled back to the ball. In 64 dimensions that is
# never inside the ball but on its rim, and always nearly in the same direction, towards mid-grey: two starts for a dark
# image have a cosine of about 0.7. Restarts from there try little that is new. Draws that are uniform in the ball, as
# foolbox 3.3.4 makes them, have a mean cosine of 0.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: starts are 0.2000 to 0.2000 long at eps 0.2
#   seen: mean cosine of two starts 0.71, of uniform ones 0.00

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pillow==13.0.0 advertorch==0.2.3 foolbox==3.3.4
python - <<'PY'
import eagerpy
import foolbox
import torch
from _toy import advertorch, see

torch.manual_seed(0)
dark = torch.full((300, 1, 8, 8), 0.05)
start = advertorch().attacks.utils.rand_init_delta(torch.nn.Parameter(torch.zeros_like(dark)), dark, 2, 0.2, 0.0, 1.0)
uniform = foolbox.attacks.L2PGD().get_random_start(eagerpy.astensor(dark), 0.2).raw - dark
cosines = []
for delta in (start.data, uniform):
    unit = torch.nn.functional.normalize(delta.flatten(1))
    cosines.append(float(((unit @ unit.T).sum() - 300) / (300 * 299)))
length = start.data.flatten(1).norm(dim=1)
see(f"starts are {float(length.min()):.4f} to {float(length.max()):.4f} long at eps 0.2", length.min() > 0.1999)
text = f"mean cosine of two starts {cosines[0]:.2f}, of uniform ones {cosines[1]:.2f}"
see(text, cosines[0] > 0.6 and abs(cosines[1]) < 0.05)
PY
