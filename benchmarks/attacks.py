"""Time of a step of the matched attack against a bare step, and of whole attacks against other packages.

Step: nothing falls at a tiny eps, so all images take every step; bare is forward, gradient of the margin with respect
to the input, and nothing else. Whole attacks: the same steps from the same start (the image itself) against MNIST's
small CNN, trained as usual and adversarially (benchmarks/targets.py), on test images that it gets right; robust
accuracy stands beside each time, and every contestant judges its own outcome. The packages are called as their
documentation shows, with a model in evaluation mode, and once more with frozen weights: that
saves the gradients of the weights (the matched attack freezes them itself). Packages that aren't
installed are left out and named (torchattacks is no requirement: ``pip install --no-deps torchattacks==3.5.1``). Times
as in benchmarks/losses.py.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from losses import Contestant, keep_memory, measure, ratios
from shown import save
from targets import ADVERSARIAL, images, target
from torch import Tensor, nn

from isce import models
from isce.attacks import Threat, run
from isce.attacks.base import margin
from isce.attacks.spec import AttackSpec
from isce.compat import import_advertorch
from isce.losses import build
from isce.training.checkpoint import placed

STEP_SIZE = 2.5  # of the peers, times eps / steps
GOAL = 1.05
TARGETS = [("sce", 0.1), ("sce", 0.3), (ADVERSARIAL, 0.3)]
PEERS = ("advertorch", "foolbox", "torchattacks", "adversarial-robustness-toolbox")


def step_contestants(batch: int, steps: int, device: str) -> dict[str, Contestant]:
    """``steps`` bare steps of the small CNN on MNIST-sized random images, and as many of the matched attack."""
    torch.manual_seed(0)
    backbone = models.build("small-cnn", input_shape=(1, 28, 28), mean=[0.13], std=[0.31])
    classifier = placed(models.Classifier(backbone, nn.Linear(backbone.embedding_dim, 10)), device).eval()
    classifier.requires_grad_(False)
    x = torch.rand(batch, 1, 28, 28, device=device)
    with torch.no_grad():
        y = classifier(x).argmax(1)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(2):  # every attack is also judged: clean logits, verification
                classifier(x)
        for _ in range(steps):
            point = x.clone().requires_grad_()
            torch.autograd.grad(-margin(classifier(point), y).sum(), point)

    spec = AttackSpec(attack="matched", objective="margin", steps=steps)
    threat, objective = Threat("linf", 1e-6), build("sce")

    def ours() -> None:
        run(spec, classifier, objective, x, y, threat, seed=0)

    return {"bare steps": bare, "baseline again": bare, "matched": ours}


def attack_contestants(
    classifier: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int
) -> dict[str, Callable[[], Tensor]]:
    """Attacks that return their adversarial images, or which images fell if they judge that themselves."""
    size = STEP_SIZE * eps / steps
    with torch.no_grad():
        logits = classifier(x)  # known: the images were chosen by them, as an evaluation does
    objective, threat = build("sce"), Threat("linf", eps)

    def ours(name: str) -> Tensor:
        spec = AttackSpec(attack="matched", objective=name, steps=steps)
        return run(spec, classifier, objective, x, y, threat, seed=0, logits=logits).success

    advertorch = import_advertorch().attacks.LinfPGDAttack(
        classifier, nn.CrossEntropyLoss(reduction="sum"), eps=eps, nb_iter=steps, eps_iter=size, rand_init=False
    )
    found: dict[str, Callable[[], Tensor]] = {"advertorch": lambda: advertorch.perturb(x, y)}
    if (package := _optional("torchattacks")) is not None:
        other = package.PGD(classifier, eps=eps, alpha=size, steps=steps, random_start=False)
        found["torchattacks"] = lambda: other(x, y)
    if (package := _optional("foolbox")) is not None:
        wrapped = package.PyTorchModel(classifier, bounds=(0, 1), device=x.device)
        pgd = package.attacks.LinfPGD(abs_stepsize=size, steps=steps, random_start=False)
        found["foolbox"] = lambda: pgd(wrapped, x, y, epsilons=eps)[2]
    if (package := _optional("art")) is not None:
        found["adversarial-robustness-toolbox"] = _toolbox(classifier, x, y, eps, steps)
    frozen = {f"{name}, frozen": _frozen(classifier, attack, True) for name, attack in found.items()}
    ready = {name: _frozen(classifier, attack, False) for name, attack in found.items()}
    baseline = {"advertorch, frozen": frozen["advertorch, frozen"], "the same again": frozen["advertorch, frozen"]}
    own = {f"matched {name}": _frozen(classifier, partial(ours, name), False) for name in ("ce", "margin")}
    return baseline | own | frozen | ready


def _frozen(classifier: nn.Module, attack: Callable[[], Tensor], frozen: bool) -> Callable[[], Tensor]:
    def attacked() -> Tensor:
        classifier.requires_grad_(not frozen)
        return attack()

    return attacked


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


def _judged(classifier: nn.Module, attack: Callable[[], Tensor], y: Tensor) -> Callable[[], Tensor]:
    """Every contestant says which images fell: those that only return images are given the forward pass it takes."""

    def judged() -> Tensor:
        result = attack()
        if result.dtype == torch.bool:
            return result
        with torch.no_grad():
            return classifier(result).argmax(1) != y

    return judged


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _toolbox(classifier: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch  # pyright: ignore[reportMissingImports]
    from art.estimators.classification import PyTorchClassifier  # pyright: ignore[reportMissingImports]

    estimator = PyTorchClassifier(
        classifier,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type=x.device.type,
    )
    attack = ProjectedGradientDescentPyTorch(
        estimator, eps=eps, eps_step=STEP_SIZE * eps / steps, max_iter=steps, batch_size=len(x), verbose=False
    )
    images, labels = x.cpu().numpy(), y.cpu().numpy()
    return lambda: torch.from_numpy(attack.generate(images, labels)).to(x.device)


def compare_steps(options: argparse.Namespace) -> dict[str, Any]:
    """Prints and returns the cost of a step against the bare one."""
    times = measure(step_contestants(options.batch, options.steps, options.device), options.device, options.seconds)
    median = float(times["bare steps"].quantile(0.5)) / options.steps * 1e3
    print(f"\nstep, batch {options.batch}: bare {median:.2f} ms, {len(times['bare steps'])} rounds; goal {GOAL}")
    rows = ratios(times)
    for row in rows:
        print(f"  {row['loss']:<18} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    return {"batch": options.batch, "bare_ms": median, "rows": rows}


def compare_attacks(name: str, eps: float, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prints and returns time and outcome of each package's attack on one trained network."""
    classifier, _ = target(name)
    x, y = (part.to(options.device) for part in images(classifier, options.batch))
    classifier = classifier.to(options.device)
    contestants = {
        entrant: _judged(classifier, attack, y)
        for entrant, attack in attack_contestants(classifier, x, y, eps, steps).items()
    }
    robust = {entrant: 1 - float(attack().float().mean()) for entrant, attack in contestants.items()}
    times = measure(contestants, options.device, options.seconds, least=options.rounds)
    median = float(times["advertorch, frozen"].quantile(0.5))
    print(f"\n{steps} steps, {name}, {len(x)} images, eps {eps}: advertorch, frozen, {median:.2f} s, ", end="")
    print(f"leaves {robust['advertorch']:.1%}; {len(times['advertorch'])} rounds")
    rows = ratios(times)
    for row in rows:
        row["robust"] = robust[row["loss"]]
        print(f"  {row['loss']:<30} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]  {row['robust']:.1%}")
    where = {"network": name, "eps": eps, "steps": steps, "n": len(x)}
    return {**where, "advertorch_s": median, "robust": robust, "rows": rows}


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="device of torch (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    parser.add_argument("--seconds", type=float, default=20.0, help="least time for each table (default: 20)")
    parser.add_argument("--batch", type=int, default=128, help="batch of the step table (default: 128)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the step table (default: 10)")
    parser.add_argument("--rounds", type=int, default=20, help="least rounds of each attack table (default: 20)")
    parser.add_argument("--out", type=Path, help="also write the tables to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    where = {
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine(),
        "threads": options.threads,
        "freed memory": "kept" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "as the system likes",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peers": {name: _version(name) for name in PEERS},
    }
    print("ratio of medians with 95% bootstrap interval;", json.dumps(where))
    tables: list[dict[str, Any]] = [compare_steps(options)]
    tables += [compare_attacks(name, eps, steps, options) for name, eps in TARGETS for steps in (10, 50)]
    if options.out:
        save(options.out, {"where": where, "goal": GOAL, "tables": tables}, "steps", "attacks")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
