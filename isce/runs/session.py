"""What the notebooks need besides the rooms they show: their parameters, checked, and the record they write last."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from pydantic import Field, PrivateAttr, field_validator
from safetensors.torch import save

from isce.attacks.spec import AttackSpec
from isce.data.sets import Data
from isce.evaluation import Evaluation, Examples
from isce.evaluation.intervals import in_percent
from isce.evaluation.saved import save_points
from isce.evaluation.state import spent_before
from isce.explain import Explanation
from isce.files import ROOT, sha256, write_atomic
from isce.minmax import Analysis
from isce.parameters.analysis import ExplainParameters, MinmaxParameters
from isce.parameters.attack import AttackParameters, Suite
from isce.parameters.base import check_device
from isce.parameters.training import TrainParameters
from isce.runs.devices import find_device
from isce.runs.key import Kind
from isce.runs.records import DISTANCES, EXAMPLES, EXPLAIN, MASKS, POINTS, Cost, Record, provenance
from isce.runs.whole import CHECKPOINT
from isce.strict import Strict, from_notebook, validate
from isce.training.loop import TrainResult, train

Parameters = TypeVar("Parameters", TrainParameters, AttackParameters, MinmaxParameters, ExplainParameters)


class Context(Strict):
    """Where a notebook runs and where its files go; decides no figure."""

    folder: str = Field(min_length=1, description="for the run's files; relative to the project's folder")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    experiment: str = "adhoc"
    run: str = "adhoc"
    key: str = "adhoc"
    _started: float = PrivateAttr(default_factory=time.monotonic)
    _began: float = PrivateAttr(default_factory=time.time)

    @property
    def seconds(self) -> float:
        """What the run took: since the notebook began, and in the rows that an interrupted start had finished."""
        return time.monotonic() - self._started + spent_before(self.path, self._began)

    @property
    def path(self) -> Path:
        """The run's folder, made if missing."""
        path = ROOT / self.folder
        path.mkdir(parents=True, exist_ok=True)
        return path

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        return check_device(value)

    @property
    def torch_device(self) -> torch.device:
        """The device to use; ``auto`` takes a GPU where there is one.

        Raises:
            ConfigError: a GPU was asked for that torch does not see.
        """
        return find_device(self.device)


def begin(
    model: type[Parameters], namespace: Mapping[str, Any], default: TrainParameters | None = None
) -> tuple[Parameters, Context]:
    """Check the parameters of a notebook, and set the threads of torch to theirs.

    An empty ``checkpoint`` stands for a default model, which is trained first (seconds) into the run's folder, so that
    each notebook runs on its own.

    Args:
        model: class of the parameters.
        namespace: ``globals()`` of the notebook, right after its first cell.
        default: of the default model; None: those of :class:`TrainParameters`.

    Raises:
        ConfigError: unknown name, wrong type or value out of range.
    """
    own = {name: value for name, value in namespace.items() if name not in Context.model_fields}
    where = {name: namespace[name] for name in Context.model_fields if name in namespace}
    context = validate(Context, where, "notebook parameters")
    needs_model = own.get("checkpoint") == ""
    if needs_model:
        own["checkpoint"] = f"{context.folder}/model/{CHECKPOINT}"
    parameters = from_notebook(model, own)
    if needs_model:
        train(default or TrainParameters(), context.path / "model", device=str(context.torch_device))
    torch.set_num_threads(parameters.threads)
    return parameters, context


def resolve(path: str) -> Path:
    """A path of a parameter, relative to the project's folder wherever the notebook runs."""
    return ROOT / path


def accuracy_table(outcome: Evaluation) -> pd.DataFrame:
    """Accuracies of an evaluation in per cent with their Wilson 95% intervals, or why there is none: a row for each
    attack, a column for each threat. Of a network that may reject also which clean images it rejects, of one that draws
    at random means over fresh draws.
    """  # noqa: D205
    results = outcome.results()
    rejection = {name.replace("_", " "): share for name, share in results.get("rejection", {}).items()}
    columns: dict[str, dict[str, str]] = {}
    for threat, found in results["threats"].items():
        rows = {"clean": results["clean"], **rejection, **found["attacks"], "worst case": found["worst"]}
        drawn = results.get("randomised", {"threats": {}})
        if threat in drawn["threats"]:
            cells = {"clean": drawn["clean"], **drawn["threats"][threat]}
            rows |= {f"{name}, over draws": cell for name, cell in cells.items()}
        columns[threat] = {name: in_percent(cell, interval=True) for name, cell in rows.items()}
    return pd.DataFrame(columns)


def curve_table(found: Mapping[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """Both curves of an attack run in per cent: the quantity that changes, accuracy and Wilson 95% interval."""
    rows = [
        {"curve": name, "at": row.get("eps", row.get("steps")), "images": row["n"]}
        | {column: _percent(row[column]) for column in ("accuracy", "low", "high")}
        | ({"why": in_percent(row)} if row["accuracy"] is None else {})
        for name, curve in found.items()
        for row in curve
    ]
    return pd.DataFrame(rows)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def write_train_record(parameters: TrainParameters, context: Context, result: TrainResult, data: Data) -> Path:
    """Write the record of a training run, last and atomically; returns its path."""
    last = result.history[-1] if result.history else {}
    results: dict[str, Any] = {
        "history": result.history,
        "best_epoch": result.best_epoch,
        "validation_accuracy": last.get("validation_accuracy"),
        "train_images": parameters.train_images or len(data.train),
        "validation_images": len(data.validation),
        "passes": parameters.passes,
    }
    if parameters.precision == "auto":
        results["precision"] = result.precision
    found = {"diverged": result.diverged, "collapsed": result.collapsed}
    flags = {name: reason for name, reason in found.items() if reason}
    files = tuple(sorted(path.name for path in context.path.glob("*.safetensors") if not path.name.startswith(".")))
    return _write("train", parameters, context, results, data, flags, files)


def example_row(suite: Suite) -> AttackSpec:
    """The suite's last white-box attack, to show examples of; its last row where it has none."""
    return next((row for row in reversed(suite.rows) if row.white_box), suite.rows[-1])


def write_attack_record(
    parameters: AttackParameters,
    context: Context,
    outcome: Evaluation,
    data: Data,
    examples: Examples,
    flags: dict[str, str],
    curves: dict[str, list[dict[str, Any]]],
    corruptions: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write the record of an attack run and its side files, the record last; returns its path.

    Side files: a few examples; which images are robust, for each threat in which all have an outcome; how far each is
    from its nearest adversarial point (float32; infinite where none is known), for each norm in which all have an
    outcome; all adversarial points, if they were kept.
    """
    arrays = {name: getattr(examples, name).contiguous() for name in ("clean", "adversarial", "labels", "predictions")}
    write_atomic(context.path / EXAMPLES, save(arrays))
    whole = [t for t in outcome.outcomes if outcome.asked(t).all() and not outcome.unknown(t).any()]
    masks = {"clean": outcome.clean} | {threat: outcome.robust(threat) for threat in whole}
    write_atomic(context.path / MASKS, save({name: torch.from_numpy(mask) for name, mask in masks.items()}))
    norms = {norm: [t for t in outcome.outcomes if t.partition("@")[0] == norm] for norm in ("linf", "l2")}
    known = [norm for norm, threats in norms.items() if threats and set(threats) <= set(whole)]
    distances = {norm: torch.from_numpy(outcome.distance(norm)).float() for norm in known}
    write_atomic(context.path / DISTANCES, save(distances))
    files = [EXAMPLES, MASKS, DISTANCES]
    if parameters.keep_points:
        points = {threat: outcome.worst_points(threat) for threat in outcome.outcomes}
        save_points(
            context.path / POINTS, {t: (torch.from_numpy(i), torch.from_numpy(p)) for t, (i, p) in points.items()}
        )
        files.append(POINTS)
    results = outcome.results() | {"batch_size": outcome.batch_size, "examples": example_row(parameters.suite).label}
    if curves:
        results["curves"] = curves
    if corruptions:
        results["corruptions"] = list(corruptions)
    costs = {
        threat: {
            row: Cost(seconds=round(seconds, 3), gradients=found[row].gradients, forwards=found[row].forwards)
            for row, seconds in outcome.seconds.get(threat, {}).items()
        }
        for threat, found in outcome.outcomes.items()
    }
    return _write("attack", parameters, context, results, data, flags, tuple(files), costs)


def write_minmax_record(parameters: MinmaxParameters, context: Context, analysis: Analysis, data: Data) -> Path:
    """Write the record of a min-max run, last and atomically; returns its path."""
    flags = {"no bound": analysis.without} if analysis.without else {}
    violations = sum(ball.summary["violations"] for ball in analysis.balls)
    if violations:
        flags["bound violated"] = f"{violations} measured maxima above their proved bound: the bound is wrong"
    return _write("minmax", parameters, context, analysis.results(), data, flags, ())


def write_explain_record(parameters: ExplainParameters, context: Context, explanation: Explanation, data: Data) -> Path:
    """Write the record of an explain run and its side file, the record last; returns its path."""
    write_atomic(context.path / EXPLAIN, save(explanation.arrays()))
    return _write("explain", parameters, context, explanation.results(parameters.eps), data, {}, (EXPLAIN,))


def _write(
    kind: Kind,
    parameters: TrainParameters | AttackParameters | MinmaxParameters | ExplainParameters,
    context: Context,
    results: dict[str, Any],
    data: Data,
    flags: dict[str, str],
    files: tuple[str, ...],
    costs: dict[str, dict[str, Cost]] | None = None,
) -> Path:
    device = context.torch_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    record = Record(
        kind=kind,
        experiment=context.experiment,
        run=context.run,
        key=context.key,
        parameters=parameters.model_dump(mode="json"),
        results=results,
        flags=flags,
        files={file: sha256(context.path / file) for file in files},
        data_sha256=data.sha256,
        provenance=provenance(name, context.seconds, ROOT, costs),
    )
    path = context.path / "record.json"
    record.save(path)
    return path
