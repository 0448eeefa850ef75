"""Write tests/digits.safetensors: `python tests/make_checkpoint.py`. Another processor gives other weights.

Tests that the new weights fail depended on the old ones: mend those tests.
"""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from trained import CHECKPOINT, NAMES, untrained

from isce import data


def main() -> None:
    digits = data.load("digits")
    x, y = digits.train.unit(), digits.train.labels
    weights = {}
    for name in NAMES:
        torch.manual_seed(0)
        classifier, objective = untrained(name)
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-2)
        for _ in range(60):
            rows = torch.randint(len(x), (128,))
            optimizer.zero_grad()
            objective(classifier(x[rows]), y[rows]).backward()
            optimizer.step()
        weights |= {f"{name}.{key}": weight.half() for key, weight in classifier.named_parameters()}
    save_file(weights, CHECKPOINT)


if __name__ == "__main__":
    main()
