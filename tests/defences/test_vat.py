"""Virtual adversarial training: the direction against the exact one, the loss written out, what float32 needs."""

from __future__ import annotations

import copy

import torch
from defence_batches import batch_of, digits_batch, flat, shown_to
from pixels import linear
from trained import trained

from isce import data
from isce.defences.vat import VirtualAdversarial

WEIGHT = [[2.0, 0.5], [-0.3, 1.0], [0.2, 0.1]]
X = flat([[0.3, 0.4], [0.8, 0.0], [0.1, 0.9]])
Y = [0, 1, 2]


def starts(x, seed=0):
    """The random unit vectors that a defence begins with."""
    start = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    return start / start.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def exact(classifier, x, start):
    """Unit vectors along W' F W d, the limit of the power iteration for a short move (F: p's covariance)."""
    weight, p = classifier.score_map.weight.detach(), classifier(x).softmax(1).detach()
    moved = start.flatten(1) @ weight.T
    slope = ((p * moved - p * (p * moved).sum(1, keepdim=True)) @ weight).view_as(x)
    return slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def directions(defence, classifier, x, y):
    """What the defence takes for r / eps."""
    batch = batch_of(classifier, x, y)
    return defence._direction(batch, batch.outputs(x)[0].detach().log_softmax(1))  # pyright: ignore[reportPrivateUsage]


def test_the_direction_is_the_exact_one_of_a_linear_network():
    classifier = linear(WEIGHT)
    found = directions(VirtualAdversarial(xi=1e-6), classifier, X, Y)
    torch.testing.assert_close(found, exact(classifier, X, starts(X)), rtol=1e-4, atol=1e-4)


def test_is_the_loss_written_out():
    classifier = linear(WEIGHT)
    loss, logits = VirtualAdversarial(0.5, xi=1e-6).loss(batch_of(classifier, X, Y))
    p, q = (classifier(x).softmax(1) for x in (X, X + 0.5 * exact(classifier, X, starts(X))))
    expected = -p.diagonal().log().mean() + (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, classifier(X))


def test_the_gradient_stops_at_p_and_at_r():
    classifier = linear(WEIGHT)
    weight = classifier.score_map.weight
    (found,) = torch.autograd.grad(VirtualAdversarial(0.5, xi=1e-6).loss(batch_of(classifier, X, Y))[0], weight)
    moved = X + 0.5 * exact(classifier, X, starts(X))
    p, q = (classifier(x).softmax(1).detach() for x in (X, moved))
    # d CE / d W = (p - e_y) x', d KL / d W with p and r constant = (q - p) (x + r)'.
    expected = ((p - torch.eye(3)).T @ X.flatten(1) + (q - p).T @ moved.flatten(1)) / 3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_labels_have_no_part_in_the_divergence():
    parts = []
    for y in (Y, [2, 0, 1]):
        batch = batch_of(linear(WEIGHT), X, y)
        loss, logits = VirtualAdversarial().loss(batch)
        parts.append(loss - batch.objective(logits, batch.y))
    torch.testing.assert_close(*parts)


def test_where_nothing_changes_the_random_direction_is_kept():
    classifier = linear([[0.0, 0.0], [0.0, 0.0]], [0.2, 0.1])
    found = directions(VirtualAdversarial(), classifier, X, [0, 1, 0])
    torch.testing.assert_close(found, starts(X))


def test_a_confident_network_has_the_direction_of_both_its_classes():
    """In float32 p is 1, the derivative of the top logit 0, and the squares of the others' are 0."""
    classifier = linear([[60.0, 20.0], [0.0, 10.0]]).float()
    x = X.float() + 0.3
    found = directions(VirtualAdversarial(), classifier, x, [0, 0, 0])
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.ones(3))
    assert classifier(x).softmax(1)[:, 0].min() == 1
    along = torch.tensor([60.0, 10.0]) / torch.tensor([60.0, 10.0]).norm()
    torch.testing.assert_close((found.flatten(1) @ along).abs(), torch.ones(3), rtol=1e-3, atol=1e-3)


def test_in_float32_the_default_xi_finds_the_direction_and_that_of_the_paper_does_not():
    classifier, _ = trained("sce")
    x = data.load("digits").train.subset(100).unit()
    y = torch.zeros(len(x), dtype=torch.int64)
    double = copy.deepcopy(classifier).double()
    true = directions(VirtualAdversarial(xi=1e-6), double, x.double(), y).flatten(1)

    def agreement(xi):
        found = directions(VirtualAdversarial(xi=xi), classifier, x, y).flatten(1)
        return (found * true).sum(1).abs().quantile(0.1).item()

    assert agreement(VirtualAdversarial().xi) > 0.99
    assert agreement(1e-6) < 0.9


def test_moves_have_the_length_eps():
    batch = digits_batch()
    shown = shown_to(batch)
    defence = VirtualAdversarial(eps=1.5)
    defence.loss(batch)
    for x, length in zip(shown, (0.0, defence.xi, 1.5), strict=True):
        torch.testing.assert_close((x - batch.x).flatten(1).norm(dim=1), torch.full((12,), length), atol=1e-4, rtol=0)
