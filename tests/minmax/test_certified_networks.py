"""Which networks a certificate is about: those that compute what is bounded, in the precision that it is stated for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isce import losses
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.losses.gaussian import GaussianScores, SimplexScores
from isce.minmax import certified, upper_bounds
from isce.minmax.chain import widened
from isce.models import Backbone, Classifier, build
from isce.parameters.attack import AttackParameters, Suite

METHODS = pytest.mark.parametrize("method", ["interval", "linear", "lipschitz"])


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    backbone = build("interval-cnn", input_shape=(1, 8, 8), mean=[0.3], std=[0.25], embedding_dim=8)
    return Classifier(backbone, nn.Linear(8, 4)).eval()


def _hooked(classifier):
    classifier.score_map.register_forward_hook(lambda module, given, out: out.roll(1, 1))


def _rerouted(classifier):
    classifier.forward = lambda x, **named: x.flatten(1)[:, :10]


def _unfinished(classifier):
    classifier.score_map.weight.data[0, 0] = math.nan


def _sharpened(name):
    """Puts a method on the classifier or the backbone that first raises the contrast."""

    def change(classifier):
        part = classifier.backbone if hasattr(Backbone, name) else classifier
        before = getattr(part, name)
        setattr(part, name, lambda x, *more: before(20 * (x - 0.5) + 0.5, *more))

    return change


def _replaced(part, name):
    """Makes the classifier or its backbone one of a subclass with such a method."""

    def change(classifier):
        owner = classifier.backbone if part == "backbone" else classifier
        base = type(owner)
        method = {name: lambda self, x, *more, **named: getattr(base, name)(self, 20 * (x - 0.5) + 0.5, *more, **named)}
        owner.__class__ = type("Sharpened", (base,), method)

    return change


def _mixed(classifier):
    """The method comes from a class beside the backbone."""
    mixin = type("Mixin", (), {"normalise": lambda self, x: 20 * (x - 0.5) + 0.5})
    classifier.backbone.__class__ = type("Sharpened", (mixin, type(classifier.backbone)), {})


def _foreign(classifier):
    classifier.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)).eval()


def _scores(base):
    def change(classifier):
        kind = type("Sharpened", (base,), {"forward": lambda self, h: base.forward(self, 50 * h)})
        classifier.score_map = kind(8, 4).eval()

    return change


WRONG = {
    "hook": (_hooked, ValueError, "score_map' has a forward hook"),
    "forward": (_rerouted, ValueError, "Classifier has a forward of its own"),
    "own normalise": (_sharpened("normalise"), ValueError, "IntervalCNN 'backbone' has a normalise of its own"),
    "own prepared": (_sharpened("prepared"), ValueError, "IntervalCNN 'backbone' has a prepared of its own"),
    "own features": (_sharpened("features"), ValueError, "IntervalCNN 'backbone' has a features of its own"),
    "own outputs": (_sharpened("outputs"), ValueError, "Classifier has a outputs of its own"),
    "prepared": (_replaced("backbone", "prepared"), ValueError, "no bounds for Sharpened: it has its own prepared"),
    "normalise": (_replaced("backbone", "normalise"), ValueError, "no bounds for Sharpened: it has its own normalise"),
    "embedding": (_replaced("backbone", "forward"), ValueError, "no bounds for Sharpened: it has its own forward"),
    "call": (_replaced("backbone", "__call__"), ValueError, "no bounds for Sharpened: it has its own __call__"),
    "outputs": (_replaced("classifier", "outputs"), ValueError, "no bounds for Sharpened: it has its own outputs"),
    "logits": (_replaced("classifier", "forward"), ValueError, "no bounds for Sharpened: it has its own forward"),
    "mixin": (_mixed, ValueError, "no bounds for Sharpened: it has its own normalise"),
    "foreign": (_foreign, ValueError, r"no bounds for Sequential: it is no isce\.models\.Backbone"),
    "centres": (_scores(SimplexScores), ValueError, "no bounds for the score map Sharpened"),
    "means": (_scores(GaussianScores), ValueError, "no bounds for the score map Sharpened"),
    "half": (lambda classifier: classifier.half(), TypeError, "float32 or float64, got torch.float16"),
    "nan": (_unfinished, ValueError, "weights must be finite, got infinity or NaN in score_map.weight"),
}


@METHODS
@pytest.mark.parametrize("name", list(WRONG))
def test_a_classifier_that_computes_something_else_than_its_layers_is_refused(classifier, name, method):
    change, error, text = WRONG[name]
    change(classifier)
    with pytest.raises(error, match=text):
        certified(classifier, torch.rand(4, 1, 8, 8), torch.arange(4), Threat("linf", 0.01), method)


def cancelling(offset):
    """Two pixels, and two logits in which an offset of both hidden values cancels."""
    backbone = Backbone((1, 2, 2), [0.0], [1.0])
    backbone._set_layers([nn.Flatten(), nn.Linear(4, 2)], 2, None)
    classifier = Classifier(backbone, nn.Linear(2, 2)).eval()
    with torch.no_grad():
        backbone.layers[1].weight.copy_(torch.eye(4)[:2])
        backbone.layers[1].bias.fill_(offset)
        classifier.score_map.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        classifier.score_map.bias.copy_(torch.tensor([0.01, 0.0]))
    return classifier


@METHODS
def test_rounding_inside_the_network_that_no_slack_covers_is_refused(method):
    x, threat = torch.rand(200, 1, 2, 2), Threat("linf", 0.03)
    x[0] = 0.0  # at this image itself nothing is rounded
    for offset in (3e6, 3e3):
        classifier = cancelling(offset)
        y = classifier(x).argmax(1)
        for some in (x, x[:1]):
            with pytest.raises(ValueError, match=r"by [\d.e-]+ from that in float64, where [\d.e-]+ is allowed"):
                certified(classifier, some, y[: len(some)], threat, method)
    # The same logits in float64, and without the offset in float32.
    plain = cancelling(0.0)
    expected = certified(plain, x, plain(x).argmax(1), threat, method)
    assert 0 < expected.sum() < 200
    wide = cancelling(3e6).double()
    assert torch.equal(certified(wide, x.double(), wide(x.double()).argmax(1), threat, method), expected)


@METHODS
def test_an_image_whose_rounding_is_near_its_slack_has_no_bounds_and_the_others_keep_theirs(method):
    """Its differences of logits are small, and so is its slack."""
    classifier, threat = cancelling(30.0), Threat("linf", 1e-3)
    x = torch.tensor([[0.5, 0.48], [0.9, 0.0]]).repeat(1, 2).view(2, 1, 2, 2)
    y = classifier(x).argmax(1)
    bounds = upper_bounds(classifier, x, y, threat, method)
    assert bounds[0, 1 - y[0]] == math.inf
    assert bounds[1, 1 - y[1]] < 0
    assert certified(classifier, x, y, threat, method).tolist() == [False, True]
    assert certified(cancelling(0.0), x, y, threat, method).all()


@METHODS
@pytest.mark.parametrize("scores", [lambda: nn.Linear(8, 4), lambda: SimplexScores(8, 4), lambda: GaussianScores(8, 4)])
def test_autocast_is_refused(classifier, scores, method):
    """Also where the score map gives float32 back."""
    classifier.score_map = scores().eval()
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"inside torch\.autocast"):
        certified(classifier, x, y, Threat("linf", 1e-4), method)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        certified(classifier, x, y, Threat("linf", 1e-4), method)


@METHODS
def test_logits_of_another_precision_than_the_network_are_refused(classifier, method):
    classifier.score_map = SimplexScores(8, 4).double().eval()  # its centres are no parameters
    with pytest.raises(TypeError, match=r"about a network in torch\.float32, got logits in torch\.float64"):
        certified(classifier, torch.rand(4, 1, 8, 8), torch.arange(4), Threat("linf", 0.01), method)


def test_a_copy_in_float64_has_the_weights_that_are_used_and_leaves_the_network_alone():
    backbone = build("lipschitz-cnn", input_shape=(1, 8, 8), mean=[0.3], std=[0.25], embedding_dim=8)
    classifier = Classifier(backbone, backbone.scores(nn.Linear(8, 4))).eval()
    x, before = torch.rand(4, 1, 8, 8), {name: value.clone() for name, value in classifier.state_dict().items()}
    with torch.no_grad():
        logits, copy = classifier(x), widened(classifier)
        torch.testing.assert_close(copy(x.double()).float(), logits, rtol=1e-5, atol=1e-6)
        assert torch.equal(copy.score_map.weight, classifier.score_map.weight.double())
        assert torch.equal(classifier(x), logits)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_an_evaluation_with_proofs_ends_where_rounding_decides():
    suite = Suite(name="s", rows=[AttackSpec(attack="matched", objective="margin", steps=2)])
    parameters = AttackParameters(checkpoint="none", suite=suite, eps=[0.03], certify="interval")
    classifier, x = cancelling(3e6), torch.rand(20, 1, 2, 2)
    y = classifier(x).argmax(1)
    with pytest.raises(ValueError, match="is allowed"):
        evaluate(classifier, losses.build("sce"), x, y, parameters, progress=False)
    plain = cancelling(0.0)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"inside torch\.autocast"):
        evaluate(plain, losses.build("sce"), x, plain(x).argmax(1), parameters, progress=False)
    found = evaluate(plain, losses.build("sce"), x, plain(x).argmax(1), parameters, progress=False)
    assert found.proved["linf@0.03"].any()
