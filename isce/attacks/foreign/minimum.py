"""Attacks that look for the smallest change that misclassifies, whatever eps is: C&W, L-BFGS, FAB and DeepFool.

They are run once; whether a point counts is decided afterwards, by its distance. None of them proves that there is no
smaller change, and none projects into a ball: a failure at eps says less than one of a projected attack.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from isce import compat
from isce.attacks.base import Found, Problem
from isce.attacks.spec import AttackSpec


def cw(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Carlini and Wagner (2017), l_2: Adam on distance plus c times the margin, c by binary search (advertorch)."""
    attack = compat.import_advertorch().attacks.CarliniWagnerL2Attack(
        problem.classifier,
        num_classes=problem.logits.shape[1],
        confidence=spec.params["confidence"],
        targeted=problem.target is not None,
        learning_rate=spec.params["lr"],
        binary_search_steps=int(spec.params["search_steps"]),
        max_iterations=spec.steps,
        abort_early=False,  # it would stop a batch as a whole
        initial_const=spec.params["initial_const"],
    )
    with compat.quiet():
        return Found.only(attack.perturb(problem.x, problem.label))


def lbfgs(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """L-BFGS on distance plus c times the cross-entropy of a target (Szegedy et al. 2014; advertorch).

    Image by image: advertorch hands SciPy a batch as one problem, whose line search would couple the images. Its
    untargeted form, the default there, returns its input unchanged.
    """
    attacks = compat.import_advertorch().attacks

    def one(part: Problem) -> Tensor:
        attack = attacks.LBFGSAttack(
            part.classifier,
            num_classes=part.logits.shape[1],
            batch_size=1,
            binary_search_steps=int(spec.params["search_steps"]),
            max_iterations=spec.steps,
            initial_const=spec.params["initial_const"],
            targeted=True,
        )
        return attack.perturb(part.x, part.target)

    with compat.quiet():
        return Found.only(problem.one_by_one(one))


def fab(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Fast adaptive boundary attack (Croce and Hein 2020), one run from the image itself (advertorch)."""
    norm = {"linf": "Linf", "l2": "L2"}[problem.threat.norm]
    attack = compat.import_advertorch().attacks.FABAttack(problem.classifier, norm=norm, n_iter=spec.steps)
    with compat.quiet():
        return Found.only(attack.perturb(problem.x, problem.y))


def deepfool(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """DeepFool (Moosavi-Dezfooli et al. 2016): steps to the nearest of the linearised class boundaries (foolbox)."""
    foolbox: Any = compat.import_foolbox()
    kind = foolbox.attacks.LinfDeepFoolAttack if problem.threat.norm == "linf" else foolbox.attacks.L2DeepFoolAttack
    candidates = min(int(spec.params["candidates"]), problem.logits.shape[1])
    attack = kind(steps=spec.steps, candidates=candidates, overshoot=spec.params["overshoot"])
    model = foolbox.PyTorchModel(problem.classifier, bounds=(0, 1), device=problem.x.device)
    with compat.quiet():
        raw, _, _ = attack(model, problem.x, foolbox.criteria.Misclassification(problem.y), epsilons=None)
    return Found.only(raw)
