"""The whole of an explain run on a small network: what it records, and that the report can show it."""

import io
import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.numpy import load_file
from safetensors.torch import save
from torch import nn

from isce import data, models
from isce.explain import explain
from isce.losses import build
from isce.parameters.analysis import ExplainParameters
from isce.report.explain import Explained
from isce.report.gallery import gallery
from isce.runs.records import EXPLAIN, Record, provenance
from isce.strict import ConfigError, validate

PARAMETERS = ExplainParameters(checkpoint="c", eps=0.1, images=40, steps=4, gallery="basic", gallery_images=4)


def made(name):
    test = data.load("digits").test.subset(40)
    torch.manual_seed(0)
    objective = build(name)
    backbone = models.build("small-cnn", input_shape=(1, 8, 8), mean=(0.3,), std=(0.4,))
    classifier = models.Classifier(backbone, objective.score_map(backbone.embedding_dim, 10)).eval()
    x, y = test.unit(), test.labels
    # Labels that an untrained network gets right, so that there is something to break.
    y = torch.where(torch.arange(40) % 4 == 0, y, classifier(x).argmax(1))
    y[:3] = torch.arange(3)
    return explain(classifier, objective, x, y, PARAMETERS, index=test.index), classifier


@pytest.fixture(scope="module")
def found():
    return {name: made(name)[0] for name in ("sce", "isce-released")}


def test_figures_are_finite_json_and_agree_with_each_other(found):
    for explanation in found.values():
        results = explanation.results(0.1)
        assert json.loads(json.dumps(results, allow_nan=False)) == json.loads(json.dumps(results))
        standing = {name: cell["correct"] for name, cell in results["standing"].items()}
        for name in ("training", "matched"):
            assert standing[f"plain-{name}"] == round(40 * float(explanation.ascents[name].standing(explanation.y)[-1]))
        assert all(count <= standing["clean"] for count in standing.values())
        assert results["features"]["separation"] > 0


def test_only_a_clip_has_a_kink(found):
    assert found["sce"].results(0.1)["sphere"] is None
    sphere = found["isce-released"].results(0.1)["sphere"]
    assert sphere["kink"] == pytest.approx(0.9)
    assert sphere["right"] == found["isce-released"].results(0.1)["standing"]["clean"]["correct"]


def test_the_same_run_gives_the_same_bytes(found):
    again, classifier = made("isce-released")
    assert save(again.arrays()) == save(found["isce-released"].arrays())
    assert again.results(0.1) == found["isce-released"].results(0.1)
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in classifier.parameters())


def test_gallery_shows_each_class_once_under_every_attack(found):
    shown = found["sce"].gallery
    assert found["sce"].y[shown.index].unique().numel() == 4
    assert [name for name, _ in shown.rows] == [row.label for row in PARAMETERS.gallery.rows]
    change = (shown.adversarial.int() - shown.clean.int()).abs().amax()
    assert 0 < change <= round(0.1 * 255) + 1


def test_a_network_that_depends_on_the_batch_is_refused():
    class Batch(nn.Module):
        batch_dependent = True

    x, y = torch.rand(10, 1, 8, 8), torch.arange(10) % 5
    with pytest.raises(ValueError, match="depends on the batch"):
        explain(Batch(), build("sce"), x, y, PARAMETERS, index=torch.arange(10))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"eps": 1.5}, "eps: .*less than or equal to 1, got 1.5"),
        ({"gallery": "nonesuch"}, "unknown suite 'nonesuch'; known: "),
        ({"gallery": "every-attack"}, "a row of gallery 'every-attack' has a source"),
        ({"images": 3}, "images: .*greater than or equal to 10, got 3"),
    ],
)
def test_bad_parameters(changed, words):
    with pytest.raises(ConfigError, match=words):
        validate(ExplainParameters, {"checkpoint": "c", "eps": 0.1, "gallery": "basic"} | changed, "here")


def as_records(found, folder):
    """Explanations as records with their side files, read back."""
    listed = []
    for label, explanation in found.items():
        name = f"e/explain/{label}-s0/record.json"
        (folder / name).parent.mkdir(parents=True)
        ((folder / name).parent / EXPLAIN).write_bytes(save(explanation.arrays()))
        record = Record(
            kind="explain",
            experiment="e",
            run=f"{label}-s0",
            key="k",
            parameters=PARAMETERS.model_dump(mode="json"),
            results=explanation.results(0.1),
            data_sha256="d",
            provenance=provenance("cpu", 1.0),
        )
        listed.append((name, label, record))
    return Explained(listed, lambda name, file: load_file((folder / name).parent / file))


@pytest.fixture(scope="module")
def explained(found, tmp_path_factory):
    return as_records(found, tmp_path_factory.mktemp("records"))


def test_every_table_has_a_row_for_each_objective_and_as_many_cells_as_columns(explained):
    tables = dict(explained.tables())
    assert set(tables) == {"explain-standing", "explain-gradients", "explain-features", "explain-sphere"}
    for name, table in tables.items():
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert "40 test images, training seed 0; linf, eps 0.1" in table.caption
        assert [row[0] for row in table.rows] == (
            ["isce-released"] * 2 if name.endswith("sphere") else ["sce", "isce-released"]
        )


def test_every_figure_is_drawn_with_caption_text_and_its_records(explained):
    from isce.report.plots.runs import as_bytes

    names = set()
    for name, draw in explained.plots():
        plot = draw()
        assert as_bytes(plot.figure, "png").startswith(b"\x89PNG")
        assert plot.caption.endswith(".")
        assert plot.alt.endswith(".")
        assert len(plot.sources) == 2
        names.add(name)
    assert names == {f"explain-{what}" for what in ("paths", "gradients", "promise", "margins", "features", "sphere")}


def test_the_gallery_says_and_shows_what_the_records_hold(found, tmp_path):
    several = as_records(dict.fromkeys(("sce", "isce-m2", "isce-released"), found["sce"]), tmp_path)
    several.first["isce-released"].results["gallery"]["labels"][0] = 9  # another image: this loss is left out
    shown, sources, picture = gallery(several)
    held = found["sce"].gallery
    labels = [int(label) for label in found["sce"].y[held.index]]
    assert sources == [f"e/explain/{name}-s0/record.json" for name in ("sce", "isce-m2")]
    assert shown["classes"] == [str(label) for label in labels]
    assert len(shown["losses"]) == len(shown["found"]) == len(shown["factors"]) == 2
    assert shown["attacks"][0] == ["FGSM on the training loss", "linf, eps 0.1"]
    assert shown["found"][0] == shown["found"][1]
    for row, points in zip(shown["found"][0], held.predictions.tolist(), strict=True):
        for (taken, share, right), (predicted, confidence), label in zip(row, points, labels, strict=True):
            assert (int(taken), right) == (predicted, predicted == label)
            assert share == pytest.approx(100 * confidence, abs=0.5001)
    sheet = (imread(io.BytesIO(picture)) * 255).round()
    count, attacks, side = len(labels), len(held.rows), 8

    def tile(row, column):
        return sheet[side * row : side * (row + 1), side * column : side * (column + 1), :3]

    assert sheet.shape[:2] == (side * (1 + 2 * attacks), side * 2 * count)
    for k in range(count):
        assert (tile(0, k) == held.clean[k, 0].numpy()[..., None]).all()
        for attack, images in enumerate(held.adversarial.numpy()):
            row, change = 1 + attacks + attack, images[k, 0].astype(int) - held.clean[k, 0].numpy()
            assert (tile(row, k) == images[k, 0][..., None]).all()
            red_over_blue = tile(row, count + k)[..., 0] - tile(row, count + k)[..., 2]
            assert (np.sign(red_over_blue) == np.sign(change)).all(), "orange is lighter, blue darker, black the same"
            largest = np.abs(held.adversarial[attack].numpy().astype(int) - held.clean.numpy()).max()
            assert float(shown["factors"][1][attack] or 0) == pytest.approx(255 / largest if largest else 0, rel=0.05)


def test_the_walk_shows_cross_entropy_beside_the_text_version_alone(found, tmp_path):
    both = as_records(dict.fromkeys(("sce", "isce-released", "isce-m2"), found["sce"]), tmp_path)
    plot = dict(both.plots())["explain-walk"]()
    lines = {line.get_label(): line for line in plot.figure.axes[-1].lines if str(line.get_label())[0] != "_"}
    assert list(lines) == ["SCE", "I-SCE (text, m = 2)"]
    margins = found["sce"].ascents["training"].margins(found["sce"].y)
    assert np.asarray(lines["SCE"].get_ydata()).tolist() == pytest.approx(margins.quantile(0.5, 1).tolist(), abs=1e-5)
    assert "4 plain steps" in plot.caption
    assert plot.sources == [f"e/explain/{name}-s0/record.json" for name in ("isce-m2", "sce")]


def test_numbers_say_what_the_record_says(explained, found):
    numbers = explained.numbers(lambda value, text, names: {"value": value, "text": text, "source": names})
    results = found["sce"].results(0.1)
    one = numbers["sce.explain:plain-training"]
    assert one["value"] == pytest.approx(100 * results["standing"]["plain-training"]["accuracy"])
    assert one["text"] == f"{one['value']:.1f}%"
    assert one["source"] == ["e/explain/sce-s0/record.json"]
    margin, slope, distance = (results["gradients"][name][2] for name in ("margin", "slope", "distance"))
    assert numbers["sce.explain:distance"]["value"] == distance
    assert numbers["sce.explain:ratio"]["value"] == margin / slope
    assert numbers["sce.explain:stretch"]["value"] == pytest.approx(distance * slope / margin)
    assert numbers["explain_n"]["text"] == "40"
    assert "isce-released.explain:training-rises" in numbers or not results["sphere"]
