"""Tiny runs of every part of the package whose results records hold, each reduced to a few numbers.

Every function gives columns of numbers by name. They are compared within a tolerance that another processor's rounding
passes: logits, losses, margins and shares; never bits, step counts or predictions at a tie.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from trained import trained

from isce import attacks, data, defences, losses, models
from isce.attacks import Threat
from isce.attacks.base import Problem, margin
from isce.attacks.expectation import expectation, standing
from isce.attacks.keys import keyed_draws
from isce.attacks.spec import AttackSpec
from isce.evaluation import curve_flags, curves, evaluate, examples, red_flags
from isce.evaluation.intervals import wilson_and_draws
from isce.explain import explain
from isce.losses import CertifiedInferenceSoftmaxCrossEntropy, Objective
from isce.minmax import Analysis, analyse, upper_bounds
from isce.minmax.certificates import NORMS, Method
from isce.models import Classifier, assemble
from isce.models.randomised import ResizePadClassifier, at
from isce.parameters.analysis import ExplainParameters, MinmaxParameters
from isce.parameters.attack import AttackParameters, CurvePlan, Suite
from isce.parameters.training import TrainParameters
from isce.runs import session
from isce.runs.records import Record, read
from isce.training.loop import train

Columns = dict[str, np.ndarray[Any, Any]]


@functools.cache
def digits() -> data.Data:
    """Digits, cut down to what runs in a blink: 60 training, 20 validation and 24 test images."""
    whole = data.load("digits")
    parts = {"train": whole.train.subset(60), "validation": whole.validation.subset(20), "test": whole.test.subset(24)}
    return replace(whole, **parts)


def wave(*shape: int, scale: float = 1.0) -> Tensor:
    """Numbers in [-scale, scale] that no generator draws: the same everywhere."""
    return scale * torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float64).mul(2.7).sin().float().view(shape)


def column(values: Any) -> np.ndarray[Any, Any]:
    """Numbers of any shape as one column of float64."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64).reshape(-1)


def flat(values: Any, prefix: str = "") -> Iterable[tuple[str, float]]:
    """Every number of nested JSON values with its path; None counts as -1, a text as a number below 1,000."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple):
        for place, value in enumerate(values):
            yield from flat(value, f"{prefix}.{place}")
    else:
        text = isinstance(values, str)
        yield prefix, -1.0 if values is None else float(crc32(values.encode()) % 1000 if text else values)


def columns(values: Any) -> Columns:
    """Nested JSON values, one number a column."""
    return {name: column([value]) for name, value in flat(values)}


def objective(name: str) -> Columns:
    """Loss, gradients and matched function of an objective, its score map on an embedding; plain and with options."""
    found: Columns = {}
    target = torch.tensor([0, 3, 1, 9, 3, 0])
    for options in ({}, {"ignore_index": 9, "reduction": "none"}):
        torch.manual_seed(0)
        made = losses.build(name, **options)
        score_map = made.score_map(12, 10)
        embedding = wave(6, 12, scale=2.0).requires_grad_()
        logits = score_map(embedding)
        loss = made(logits, target, embedding)
        (slope,) = torch.autograd.grad(loss.sum(), embedding)
        label = "-".join(map(str, options.values())) or "plain"
        again = made(logits, target, embedding)  # an objective may have moved a state of its own
        for what, value in {"loss": loss, "slope": slope, "again": again}.items():
            found[f"{label}.{what}"] = column(value)
        found[f"{label}.matched"] = column(made.matched(logits, target, embedding))
        found[f"{label}.logits"] = column(logits[:2])
        if isinstance(made, CertifiedInferenceSoftmaxCrossEntropy):
            radius, share = made.schedule(0.3)
            upper = logits - logits.gather(1, target.unsqueeze(1)) + 1
            found[f"{label}.certified"] = column(made.certified(logits, target, upper, share))
            found[f"{label}.schedule"] = column([radius, share])
    return found


def certified_objective() -> Columns:
    """As every objective, and training on bounds."""
    return objective("isce-certified") | training("certified")


def bounds(method: Method) -> Columns:
    """Upper bounds of the committed network, or of a network whose slope is bounded, in every norm of the method."""
    classifier, _, x, y, _ = target()
    found: Columns = {}
    for norm in NORMS[method]:
        found[norm] = column(upper_bounds(classifier, x[:IMAGES], y[:IMAGES], Threat(norm, 0.02), method))
    torch.manual_seed(0)
    odd = models.build("lipschitz-cnn", input_shape=(1, 8, 8), mean=(0.4,), std=(0.3,), embedding_dim=8)
    sorting = Classifier(odd, odd.scores(nn.Linear(8, 10))).eval()
    found["sorting"] = column(upper_bounds(sorting, x[:IMAGES], y[:IMAGES], Threat(NORMS[method][-1], 0.1), method))
    return found


def network(name: str) -> Columns:
    """Logits and embedding of a network of fixed weights, in evaluation, in training, and prepared as released."""
    shape = {"small-cnn": (1, 8, 8), "elu-cnn": (1, 8, 8), "lenet": (1, 28, 28), "resnet-18": (3, 16, 16)}.get(
        name, (3, 8, 8)
    )
    found: Columns = {}
    x = (wave(4, *shape) + 1) / 2
    for released in (False, True):
        torch.manual_seed(0)
        made = models.build(name, input_shape=shape, mean=(0.4,) * shape[0], std=(0.3,) * shape[0], embedding_dim=8)
        if released:
            made.normalise_as_released()
        classifier = Classifier(made, made.scores(nn.Linear(8, 10)))
        for mode in ("train", "eval"):
            with torch.no_grad():
                logits, embedding = getattr(classifier, mode)()(x, return_embedding=True)
            found[f"{mode}{'-released' * released}"] = column(torch.cat([logits, embedding], 1))
    return found


#: A fresh network's predictions hardly change: what these defences do would be lost in the tolerance at their defaults.
STRONG: dict[str, dict[str, Any]] = {"augmix": {"lam": 3000.0}, "input-gradient": {"lam": 100.0}, "vat": {"eps": 40.0}}

TRAININGS: dict[str, dict[str, Any]] = {
    "train": {},
    "adam": {"optimizer": {"name": "adam", "lr": 0.01, "weight_decay": 0.01}, "schedule": {"name": "constant"}},
    "steps": {
        "optimizer": {"nesterov": True, "weight_decay": 0.01},
        "schedule": {"name": "step", "milestones": [0.5]},
        "train_images": 40,
    },
    "moved": {"augment": "shift-flip", "normalisation": "released", "objective": {"name": "center"}},
    "bfloat16": {"precision": "bfloat16"},
    "pgd": {"adversarial": {"kind": "pgd", "eps": 0.1, "steps": 2, "step_size": 0.05}},
    "certified": {
        "model": "interval-cnn",
        "objective": {"name": "isce-certified", "params": {"wait": 0.3, "ramp": 0.5}},
    },
    "free": {"adversarial": {"kind": "free", "eps": 0.1, "steps": 2, "step_size": 0.1}},
    **{f"defence.{name}": {"defence": {"name": name, "params": STRONG.get(name, {})}} for name in defences.names()},
}


def training(*names: str) -> Columns:
    """History and last weights of runs of two epochs of two steps."""
    found: Columns = {}
    for name in names:
        given = {"epochs": 2, "batch_size": 32, "seed": 3} | TRAININGS[name]
        parameters = TrainParameters.model_validate(given)
        with tempfile.TemporaryDirectory() as folder:
            done = train(parameters, Path(folder), data=digits(), progress=False)
            record = read(session.write_train_record(parameters, session.Context(folder=folder), done, digits()))
            found[f"{name}.weights"] = column(column_of(Path(folder) / "last.safetensors"))
        found |= recorded(record, name)
    return found


def recorded(record: Record, name: str) -> Columns:
    """Figures of a record, and the names of its flags."""
    found = {f"{name}.{key}": value for key, value in columns(record.results).items()}
    return found | {f"{name}.flag.{flag}": column([1]) for flag in record.flags}


def column_of(path: Path) -> Tensor:
    """Mean and size of every tensor of a checkpoint."""
    from safetensors.torch import load_file

    tensors = [tensor.double() for _, tensor in sorted(load_file(path).items())]
    return torch.stack([value for tensor in tensors for value in (tensor.mean(), tensor.norm())])


@functools.cache
def target(name: str = "sce") -> tuple[Classifier, Objective, Tensor, Tensor, Tensor]:
    """A committed network with its objective, and images, labels and places.

    The images are those on which the gradient of the loss is no matter of rounding: right, and not too confident.
    """
    classifier, own = trained(name)
    test = data.load("digits").test
    with torch.no_grad():
        margins = margin(classifier(test.unit()), test.labels)
    chosen = test.select(((margins > 0.5) & (margins < 5)).nonzero()[:24, 0])
    return classifier, own, chosen.unit(), chosen.labels, chosen.index


#: A budget for each attack that is run differently from one step.
BUDGETS: dict[str, list[dict[str, Any]]] = {
    "autoattack": [{}],
    "bim": [{"steps": 3}],
    "cw": [{"steps": 10, "params": {"search_steps": 2.0, "lr": 0.1}}],
    "deepfool": [{"steps": 5}],
    "fab": [{"steps": 3}],
    "fgsm": [{}, {"targeted": True}, {"objective": "matched"}],
    "fmn": [{"steps": 12}],
    "jsma": [{"targeted": True, "norm": "l0", "eps": 6}],
    "lbfgs": [{"steps": 5, "targeted": True, "params": {"search_steps": 2.0}}],
    "local-search": [{"steps": 3, "norm": "l0", "eps": 6}],
    "matched": [{"objective": name, "steps": 4, "restarts": 3} for name in attacks.about("matched").objectives],
    "mim": [{"steps": 3}],
    "nearest": [{"steps": 12}],
    "pgd": [{"steps": 3, "restarts": 2}, {"steps": 3, "targeted": True}],
    "released": [{"steps": 3, "step_size": 0.02}],
    "search": [{"steps": 10, "restarts": 2}],
    "simba": [{"steps": 10, "restarts": 2}],
    "single-pixel": [{"steps": 5, "norm": "l0", "eps": 1}],
    "spatial": [{"steps": 3}],
    "spsa": [{"steps": 2, "params": {"samples": 8.0}}],
    "staged": [{"steps": 10, "restarts": 2}],
    "transfer": [{"steps": 3, "source": "other/last.safetensors"}],
}
EPS = {"linf": 0.08, "l2": 0.6}
IMAGES = 6


def attack(name: str) -> Columns:
    """Margin at each point that an attack returns, how far it is, and whether it was rejected; in every norm."""
    found: Columns = {}
    for budget in BUDGETS[name]:
        for norm in attacks.about(name).norms:
            if "norm" in budget and norm != budget["norm"]:
                continue
            spec = AttackSpec.model_validate({"attack": name} | budget)
            threat = spec.threat or Threat(norm, EPS[norm] * (9 if name == "autoattack" else 1))
            for network_name in ("sce", "isce-released") if name in ("matched", "staged") else ("sce",):
                label = f"{spec.label}.{threat.label}.{network_name}"
                found |= {f"{label}.{what}": value for what, value in _attacked(spec, threat, network_name).items()}
    return found


def _attacked(spec: AttackSpec, threat: Threat, network_name: str) -> Columns:
    classifier, own, *images = target(network_name)
    x, y, index = (part[: 2 if spec.attack == "autoattack" else IMAGES] for part in images)
    source = target("isce-released")[:2] if spec.source else None
    result = attacks.run(spec, classifier, own, x, y, threat, seed=5, index=index, source=source)
    with torch.no_grad():
        logits = classifier(result.adversarial)
    return {
        "margin": column(margin(logits, y)),
        "mean": column(result.adversarial.flatten(1).mean(1)),
        "rejected": column([result.rejected.sum()]),
    }


class Saturated(nn.Module):
    """A network whose softmax is 0 or 1 in float32, so that a loss on it has no gradient: red flags are raised."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return 100 * self.network(x)


ROWS = [
    {"attack": "fgsm"},
    {"attack": "pgd", "steps": 5, "restarts": 2},
    {"attack": "deepfool", "steps": 10, "survivors": True},
    {"attack": "search", "steps": 20},
    {"attack": "matched", "objective": "targeted", "steps": 5, "restarts": 2, "survivors": True},
    {"attack": "staged", "steps": 10, "survivors": True, "main_only": True},
    {"attack": "fgsm", "norm": "l2", "eps": 0.2, "images": 10},
]


def evaluation(*, saturated: bool) -> Columns:
    """Accuracies, red flags, curves and examples of one evaluation, through the record that the notebook writes."""
    classifier, own, x, y, index = target()
    plan = CurvePlan(images=10, convergence_eps=0.03, convergence_steps=[1, 20])
    suite = Suite.model_validate({"name": "golden", "rows": ROWS})
    parameters = AttackParameters(checkpoint="none", suite=suite, eps=[0.02, 0.05], batch_size=7, curves=plan)
    given = (Saturated(classifier) if saturated else classifier, own, x, y, parameters)
    outcome = evaluate(*given, index=index, progress=False)
    flags = red_flags(outcome, *given, index=index)
    row = session.example_row(suite)
    shown = examples(*given[:4], row, Threat("linf", 0.05), seed=0, index=index)
    with tempfile.TemporaryDirectory() as folder:
        both = curves(*given, outcome, index=index, folder=Path(folder))
        context, flags = session.Context(folder=folder), flags | curve_flags(both)
        path = session.write_attack_record(parameters, context, outcome, digits(), shown, flags, both)
        found = recorded(read(path), "saturated" if saturated else "plain")
    return found | {"shown": column(shown.index), "predictions": column(shown.predictions)}


def drawing() -> Columns:
    """What draws make of images, and points of the adversary who averages over them; an interval over draws."""
    given = TrainParameters.model_validate({"defence": {"name": "resize-pad"}})
    shape = {"input_shape": (1, 8, 8), "mean": (0.4,), "std": (0.3,), "num_classes": 10}
    classifier, own = assemble(given, shape)
    classifier.eval().requires_grad_(False)
    assert isinstance(classifier, ResizePadClassifier)
    x, draws = (wave(6, 1, 8, 8) + 1) / 2, keyed_draws(5, "attack", 4)
    found: Columns = {"places": column([classifier.sides.place(draw) for draw in draws])}
    with at(classifier, draws):
        logits, embedding = classifier(x, return_embedding=True)
    found |= {"logits": column(logits), "embedding": column(embedding)}
    for norm, eps in EPS.items():
        threat = Threat("l2" if norm == "l2" else "linf", eps)
        problem = Problem(classifier, own, x, logits.argmax(1), torch.arange(6), threat, 5, logits, best=x)
        points = expectation(problem, draws, 4, problem.random_start(1))
        found[f"{norm}.margin"] = column(standing(problem, points, draws).margin)
    found["interval"] = column(wilson_and_draws((wave(20, 8) > -0.5).numpy()))
    return found


def minmax() -> Columns:
    """The min-max analysis, in both norms and with both readings."""
    found: Columns = {}
    for norm, eps in (("linf", [0.002, 0.1]), ("l2", [0.5])):
        for name in ("sce", "isce-released"):
            classifier, _, x, y, _ = target(name)
            given = {"checkpoint": "none", "norm": norm, "eps": eps, "inference": [0.0, 2.0], "steps": 3, "restarts": 2}
            parameters = MinmaxParameters.model_validate(given)
            done = analyse(classifier, x, y, parameters, progress=False)
            found |= written(parameters, done, f"{norm}.{name}")
    balls = [replace(ball, summary=ball.summary | {"violations": 1}) for ball in done.balls]
    return found | written(parameters, replace(done, balls=balls), "violated")


def written(parameters: MinmaxParameters, analysis: Analysis, name: str) -> Columns:
    """What the record of a min-max analysis says."""
    with tempfile.TemporaryDirectory() as folder:
        path = session.write_minmax_record(parameters, session.Context(folder=folder), analysis, digits())
        return recorded(read(path), name)


def explanation() -> Columns:
    """What an explain run measures on both committed networks."""
    found: Columns = {}
    gallery = Suite.model_validate({"name": "g", "rows": [{"attack": "fgsm"}, {"attack": "cw", "steps": 5}][:1]})
    for name in ("sce", "isce-released"):
        classifier, own, x, y, index = target(name)
        given = {"checkpoint": "none", "eps": 0.1, "images": 24, "steps": 3, "gallery_images": 2}
        parameters = ExplainParameters.model_validate(given | {"gallery": gallery})
        done = explain(classifier, own, x, y, parameters, index=index)
        with tempfile.TemporaryDirectory() as folder:
            context = session.Context(folder=folder)
            found |= recorded(read(session.write_explain_record(parameters, context, done, digits())), name)
        found |= {f"{name}.array.{key}": column(value.double().mean().view(1)) for key, value in done.arrays().items()}
    return found


def parts() -> dict[str, Callable[[], Columns]]:
    """What makes the numbers of each part, by the name that its semantics number has."""
    found: dict[str, Callable[[], Columns]] = {
        "train": lambda: training("train", "adam", "steps", "moved", "bfloat16"),
        "attack": lambda: evaluation(saturated=False) | evaluation(saturated=True),
        "draws": drawing,
        "minmax": minmax,
        "explain": explanation,
        "adversarial.pgd": lambda: training("pgd"),
        "adversarial.free": lambda: training("free"),
    }
    found |= {f"defence.{name}": functools.partial(training, f"defence.{name}") for name in defences.names()}
    found |= {f"objective.{name}": functools.partial(objective, name) for name in losses.names()}
    found["objective.isce-certified"] = certified_objective
    found |= {f"bounds.{name}": functools.partial(bounds, name) for name in NORMS}
    found |= {f"network.{name}": functools.partial(network, name) for name in models.names()}
    return found | {f"attack.{name}": functools.partial(attack, name) for name in attacks.names()}
