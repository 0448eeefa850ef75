"""Bad parameters are refused before any work, with the value and what is allowed."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from papermill.iorw import NoDatesSafeLoader
from papermill.translators import PythonTranslator

from isce import attacks, data, losses, models
from isce.attacks.spec import AttackSpec
from isce.files import ROOT
from isce.parameters.attack import AttackParameters, Suite, load_suite
from isce.parameters.training import ObjectiveSpec, TrainParameters
from isce.runs.experiment import Experiment, load_experiment
from isce.strict import ConfigError, from_notebook, read_exponents, read_yaml, validate

SUITE = {"name": "s", "rows": [{"attack": "fgsm"}]}
FREE = {"kind": "free", "eps": 0.1, "steps": 2, "step_size": 0.1}
ATTACK = {"checkpoint": "c", "suite": SUITE, "eps": [0.1]}


def refused(model, values):
    with pytest.raises(ConfigError) as error:
        validate(model, values, "here")
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "values", "known"),
    [
        (TrainParameters, {"dataset": "nonesuch"}, data.names()),
        (TrainParameters, {"model": "nonesuch"}, models.names()),
        (TrainParameters, {"objective": {"name": "nonesuch"}}, losses.names()),
        (AttackSpec, {"attack": "nonesuch"}, attacks.names()),
    ],
)
def test_unknown_names_list_what_exists(model, values, known):
    message = refused(model, values)
    assert "'nonesuch'" in message
    assert all(name in message for name in known)


@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        (TrainParameters, {"epochs": 0}, ["epochs", "greater than or equal to 1", "got 0"]),
        (TrainParameters, {"epochs": 2.5}, ["epochs", "integer", "2.5"]),
        (TrainParameters, {"epochs": "2"}, ["epochs", "integer", "'2'"]),
        (TrainParameters, {"seed": -1}, ["seed", "got -1"]),
        (TrainParameters, {"epoch": 3}, ["unknown parameter 'epoch'", "known:", "epochs"]),
        (TrainParameters, {"optimizer": {"lr": float("nan")}}, ["optimizer.lr", "finite"]),
        (TrainParameters, {"optimizer": {"lr": 0.0}}, ["optimizer.lr", "greater than 0"]),
        (TrainParameters, {"optimizer": {"nesterov": True, "momentum": 0.0}}, ["nesterov needs"]),
        (TrainParameters, {"schedule": {"name": "step"}}, ["milestones"]),
        (TrainParameters, {"schedule": {"name": "step", "milestones": [0.5, 0.2]}}, ["[0.5, 0.2]"]),
        (TrainParameters, {"precision": "float16"}, ["precision", "'float32', 'bfloat16' or 'auto'", "float16"]),
        (TrainParameters, {"objective": {"name": "isce", "params": {"margin": 1}}}, ["margin", "inference"]),
        (TrainParameters, {"adversarial": FREE | {"eps": 1.5}}, ["adversarial.eps", "less than or equal to 1", "1.5"]),
        (TrainParameters, {"adversarial": FREE | {"steps": 0}}, ["adversarial.steps", "got 0"]),
        (TrainParameters, {"adversarial": FREE | {"kind": "trades"}}, ["adversarial.kind", "'pgd' or 'free'"]),
        (TrainParameters, {"optimizer": {"name": "adam", "momentum": 0.5}}, ["momentum is for sgd", "got 0.5"]),
        (TrainParameters, {"schedule": {"name": "cosine", "gamma": 0.5}}, ["gamma belongs to the schedule 'step'"]),
        (TrainParameters, {"normalisation": "none"}, ["normalisation", "'channel' or 'released'", "none"]),
        (TrainParameters, {"batch_statistics": True}, ["batch normalisation (preact-resnet-110", "'small-cnn'"]),
        (AttackParameters, ATTACK | {"eps": [0.0]}, ["(0, 1]", "got 0.0"]),
        (AttackParameters, ATTACK | {"eps": [1.5]}, ["(0, 1]", "got 1.5"]),
        (AttackParameters, ATTACK | {"norm": "l2", "eps": [-1.0]}, ["above 0", "got -1.0"]),
        (AttackParameters, ATTACK | {"norm": "l2", "eps": [float("nan")]}, ["eps.0", "finite"]),
        (AttackParameters, ATTACK | {"eps": [0.2, 0.1]}, ["rise", "[0.2, 0.1]"]),
        (AttackParameters, ATTACK | {"eps": []}, ["eps", "at least 1"]),
        (AttackParameters, ATTACK | {"suite": "nonesuch"}, ["unknown suite 'nonesuch'", "basic"]),
        (AttackSpec, {"attack": "pgd", "steps": -1}, ["steps", "got -1"]),
        (AttackSpec, {"attack": "fgsm", "steps": 5}, ["fgsm takes no number of steps"]),
        (Suite, {"name": "s", "rows": [{"attack": "fgsm"}, {"attack": "fgsm"}]}, ["twice", "fgsm-training"]),
    ],
)
def test_value_is_named_with_what_is_allowed(model, values, words):
    message = refused(model, values)
    assert message.startswith("here: ")
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("changes", [{"norm": "l2", "eps": [2.0]}, {"eps": [1]}])
def test_eps_above_one_in_l2_and_a_whole_number_are_accepted(changes):
    assert validate(AttackParameters, ATTACK | changes, "here").eps == changes["eps"]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_eps_of_linf_is_accepted_exactly_within_its_range(eps):
    if 0 < eps <= 1:
        assert validate(AttackParameters, ATTACK | {"eps": [eps]}, "here").eps == [eps]
    else:
        refused(AttackParameters, ATTACK | {"eps": [eps]})


def test_parameters_survive_json():
    parameters = TrainParameters(objective=ObjectiveSpec(name="isce", params={"inference": 2.0}))
    assert TrainParameters(**parameters.model_dump(mode="json")) == parameters


@pytest.mark.parametrize(
    ("name", "params", "label"),
    [
        ("sce", {}, "sce"),
        ("isce", {"inference": 2.0}, "isce-m2"),
        ("isce", {"inference": -0.5}, "isce-m-0.5"),
        ("isce-released", {"clip": False, "inference": 0.1}, "isce-released-clipoff-m0.1"),
    ],
)
def test_label_of_an_objective(name, params, label):
    assert ObjectiveSpec(name=name, params=params).label == label


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_file_is_valid_and_its_runs_have_names_of_their_own(path):
    experiment = load_experiment(path.stem)
    names = [name for name, _ in experiment.runs()]
    assert len(set(names)) == len(names) == len(experiment.objectives) * len(experiment.seeds)
    assert all(re.fullmatch(r"[a-z0-9_.+-]+-s\d+", name) for name in names)
    for plan in experiment.plans:
        load_suite(plan.suite)


def experiment(**changes):
    values = {"name": "e", "title": "E", "objectives": [{"name": "sce"}, {"name": "mmc"}], "seeds": [0, 1]}
    values |= {"training": {"epochs": 5, "optimizer": {"lr": 0.1, "momentum": 0.5}}}
    return values | {"attack": {"suite": "basic", "eps": [0.1], "main_eps": 0.1}} | changes


def test_overrides_replace_values_of_one_objective_as_a_whole():
    overrides = {"mmc": {"embedding_dim": 256, "optimizer": {"lr": 0.01}}}
    runs = dict(validate(Experiment, experiment(overrides=overrides), "here").runs())
    for seed in (0, 1):
        sce, mmc = runs[f"sce-s{seed}"], runs[f"mmc-s{seed}"]
        assert (sce.embedding_dim, sce.optimizer.lr, sce.optimizer.momentum) == (None, 0.1, 0.5)
        assert (mmc.embedding_dim, mmc.optimizer.lr, mmc.optimizer.momentum) == (256, 0.01, 0.9)
        assert (sce.epochs, mmc.epochs, mmc.seed) == (5, 5, seed)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"mcc": {"epochs": 3}}, ["unknown objectives ['mcc']", "known: sce, mmc"]),
        ({"mmc": {"epoch": 3}}, ["run mmc-s0: unknown parameter 'epoch'", "known: dataset", "epochs"]),
        ({"mmc": {"epochs": 0}}, ["run mmc-s0: epochs", "got 0"]),
        ({"mmc": {"seed": 3}}, ["'seed' belongs beside 'training', not inside 'mmc'"]),
        ({"mmc": {"defence": {"name": "mixup"}}}, ["'defence' belongs beside 'training', not inside 'mmc'"]),
        ({"mmc": {"dataset": "mnist"}}, ["'dataset' belongs inside 'training'", "not inside 'mmc'"]),
        ({"mmc": {"model": "lenet"}}, ["'model' belongs inside 'training'"]),
        ({"mmc": {"adversarial": FREE}}, ["'adversarial' belongs inside 'training'"]),
    ],
)
def test_overrides_that_cannot_be(overrides, words):
    message = refused(Experiment, experiment(overrides=overrides))
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_defence_that_no_label_would_name_is_refused():
    """Runs called sce, trained with mixup, would be judged as softmax cross-entropy alone."""
    message = refused(Experiment, experiment(training={"defence": {"name": "mixup"}}))
    assert "'defence' belongs beside 'training', not inside 'training'" in message


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\xff", "name: odd\nname: odd\n", "a: {b: 1, b: 1}"])
def test_file_that_is_no_mapping_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "odd.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"odd\.yaml"):
        load_experiment("odd", tmp_path)


def test_a_mapping_that_is_merged_may_be_overridden(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 1}, "c": {"x": 2, "y": 3}}


def test_notebook_variables_become_parameters_and_unknown_ones_are_refused():
    import math

    namespace = {"epochs": 3, "_private": 1, "math": math, "In": [], "train": len, "seed": 4}
    parameters = from_notebook(TrainParameters, namespace)
    assert (parameters.epochs, parameters.seed) == (3, 4)
    with pytest.raises(ConfigError, match="unknown parameter 'epoch'"):
        from_notebook(TrainParameters, namespace | {"epoch": 3})


# --- numbers in exponent notation, which YAML 1.1 takes for text


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["e", "E"]))
def test_a_number_in_exponent_notation_is_that_number_in_a_file_and_as_papermill_hands_it_on(tmp_path_factory, x, e):
    text = f"{x:.16e}".replace("e", e).replace("+", "")
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    path.write_text(f"a: {text}\nb: [{text}]\nc: '{text}'\n")
    assert read_yaml(path) == {"a": x, "b": [x], "c": text}
    assert read_exponents({"a": text, "b": [text, 1, "b"], "c": None}) == {"a": x, "b": [x, 1, "b"], "c": None}


@pytest.mark.parametrize("text", ["1e-3", "1E3", "+1e3", "-1e3", ".5e2", "1.e3", "1.5e3"])
def test_every_spelling_of_exponent_notation_is_read(tmp_path, text):
    (tmp_path / "file.yaml").write_text(f"x: {text}")
    assert read_yaml(tmp_path / "file.yaml") == {"x": float(text)}
    assert read_exponents(text) == float(text)


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "0x1e3", "1e3.5", "abc", "nan", "true", "0.001", "1e3\n", "."])
def test_other_text_stays_text(text):
    assert read_exponents(text) == text


@pytest.mark.parametrize(
    ("model", "values", "read"),
    [
        (TrainParameters, {"optimizer": {"lr": "1e-3"}}, lambda found: found.optimizer.lr == 1e-3),
        (TrainParameters, {"adversarial": FREE | {"eps": "1e-1"}}, lambda found: found.adversarial.eps == 0.1),
        (
            TrainParameters,
            {"schedule": {"name": "step", "milestones": ["5e-1", 0.7]}},
            lambda found: found.schedule.milestones == [0.5, 0.7],
        ),
        (
            TrainParameters,
            {"objective": {"name": "isce", "params": {"inference": "1e1"}}},
            lambda found: found.objective.label == "isce-m10",
        ),
        (AttackParameters, ATTACK | {"eps": ["1e-1", "2e-1"]}, lambda found: found.eps == [0.1, 0.2]),
        (AttackSpec, {"attack": "pgd", "step_size": "1e-1"}, lambda found: found.step_size == 0.1),
        (AttackSpec, {"attack": "cw", "params": {"confidence": "1e1"}}, lambda found: found.params["confidence"] == 10),
    ],
)
def test_a_number_is_read_wherever_one_is_expected(model, values, read):
    assert read(validate(model, values, "here"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": {"lr": "abc"}}, ["optimizer.lr", "valid number", "'abc'"]),
        ({"optimizer": {"lr": "true"}}, ["optimizer.lr", "valid number", "'true'"]),
        ({"optimizer": {"lr": "nan"}}, ["optimizer.lr", "valid number", "'nan'"]),
        ({"optimizer": {"lr": "1e999"}}, ["optimizer.lr", "finite"]),
        ({"epochs": "1e1"}, ["epochs", "integer", "'1e1'"]),
        ({"dataset": "1e1"}, ["unknown data set '1e1'"]),
        ({"objective": {"name": "isce", "params": {"inference": "1e999"}}}, ["inference must be finite"]),
    ],
)
def test_other_text_is_refused_where_a_number_is_expected(values, words):
    message = refused(TrainParameters, values)
    assert all(word in message for word in words), message


def test_the_readme_s_papermill_command_is_understood():
    (values,) = re.findall(r'papermill notebooks/train.ipynb out.ipynb -y "(.*)"', (ROOT / "README.md").read_text())
    found = from_notebook(TrainParameters, yaml.load(values, Loader=NoDatesSafeLoader))
    assert found.optimizer.lr == 1e-2
    assert found.objective.label == "isce-m2"


def test_a_tuple_which_papermill_hands_on_as_text_is_refused():
    injected: dict[str, object] = {}
    exec(PythonTranslator.codify({"eps": (0.1, 0.2)}), injected)
    assert isinstance(injected["eps"], str)
    with pytest.raises(ConfigError, match=r"eps: Input should be a valid list, got '\(0\.1, 0\.2\)'"):
        from_notebook(AttackParameters, ATTACK | {"eps": injected["eps"]})
