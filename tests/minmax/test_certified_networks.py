"""Which networks a certificate is about: those that compute what is bounded, in the precision that it is stated for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from isce.attacks import Threat
from isce.losses.gaussian import GaussianScores, SimplexScores
from isce.minmax import certified
from isce.models import Backbone, Classifier, build

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
