"""A network on digits that some tests share."""

from __future__ import annotations

import pytest
import torch

from isce import data, losses, models
from isce.data import stratified
from isce.models import Classifier


@pytest.fixture(scope="session")
def digits_target():
    """100 test images with labels, ten of each class, and a classifier trained for a second on the others."""
    digits = data.load("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = losses.build("sce")
        backbone = models.build("small-cnn", input_shape=digits.input_shape, mean=digits.mean, std=digits.std)
        classifier = Classifier(backbone, objective.score_map(backbone.embedding_dim, 10))
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-2)
        x, y = digits.train.unit(), digits.train.labels
        for _ in range(40):
            rows = torch.randint(len(x), (128,))
            optimizer.zero_grad()
            objective(classifier(x[rows]), y[rows]).backward()
            optimizer.step()
    test = digits.test.select(stratified(digits.test.labels, 100))
    return test.unit(), test.labels, classifier.eval().requires_grad_(requires_grad=False)
