"""Invariants of single families: limits in which one loss is another, geometry of centres, how centres move."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import make
from torch import Tensor

from isce import losses


def problem(n: int = 32, c: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, c, generator=generator).double(), torch.randint(c, (n,), generator=generator)


def released_without(logits: Tensor, target: Tensor) -> Tensor:
    return losses.build("isce-released", inference=0.0, clip=False).per_example(logits, target)


REDUCES_TO_SCE = {
    "isce": ({"inference": 0.0}, lambda z: z),
    "isce-vector": ({"inference": [0.0] * 4}, lambda z: z),
    "isce-matrix": ({"inference": torch.diag(torch.arange(4.0)).tolist()}, lambda z: z),
    "isce-released": ({"inference": 0.0, "clip": False}, lambda z: F.normalize(z, dim=1)),
    "lgm": ({"alpha": 0.0, "lam": 0.0}, lambda z: z),
    "lgm-diagonal": ({"alpha": 0.0, "lam": 0.0, "covariance": "diagonal"}, lambda z: z),
    "label-smoothing": ({"label_smoothing": 0.0}, lambda z: z),
    "logit-squeezing": ({"lam": 0.0}, lambda z: z),
    "cosface": ({"margin": 0.0}, lambda z: z),
    "arcface": ({"margin": 0.0}, lambda z: z),
    "contrastive": ({"lam": 0.0}, lambda z: z),
    "triplet": ({"lam": 0.0}, lambda z: z),
    "center": ({"lam": 0.0}, lambda z: z),
}


@pytest.mark.parametrize("kind", REDUCES_TO_SCE)
def test_is_sce_without_its_own_part(kind):
    params, logits = REDUCES_TO_SCE[kind]
    name = kind.removesuffix("-vector").removesuffix("-matrix").removesuffix("-diagonal")
    z, y = problem()
    objective = make(name, **params)
    embedding = torch.randn(len(y), 3).double()
    expected = losses.build("sce").per_example(logits(z), y)
    torch.testing.assert_close(objective.per_example(z, y, embedding), expected)


@settings(deadline=None)
@given(
    m=st.floats(-20, 20),
    gap=st.lists(st.floats(-30, 30), min_size=2, max_size=5),
    label=st.integers(0, 4),
)
def test_isce_forms_agree(m, gap, label):
    z, y = torch.tensor([gap]).double(), torch.tensor([label % len(gap)])
    c = len(gap)
    scalar = losses.inference_softmax_cross_entropy(z, y, m)
    forms = [
        torch.tensor(m, dtype=torch.float64),
        torch.full((c,), m, dtype=torch.float64),
        torch.full((c, c), m, dtype=torch.float64),
        torch.full((c, c), m, dtype=torch.float64) - 5 * torch.eye(c).double(),  # the diagonal isn't used
        torch.full((c, 1), m, dtype=torch.float64).expand(c, c),
    ]
    for form in forms:
        torch.testing.assert_close(losses.inference_softmax_cross_entropy(z, y, form), scalar)
    assert scalar >= 0


def test_isce_vector_is_looked_up_by_the_true_class():
    z, y = problem()
    m = torch.tensor([0.5, -1.0, 2.0, 0.0]).double()
    vector = losses.inference_softmax_cross_entropy(z, y, m, reduction="none")
    rows = losses.inference_softmax_cross_entropy(z, y, m.unsqueeze(1).expand(4, 4), reduction="none")
    for k in range(4):
        scalar = losses.inference_softmax_cross_entropy(z, y, float(m[k]), reduction="none")
        torch.testing.assert_close(vector[y == k], scalar[y == k])
    torch.testing.assert_close(vector, rows)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4)])
def test_isce_can_be_differentiated_by_the_inference_information(shape):
    z, y = problem(8)
    m = torch.randn(shape).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m: losses.inference_softmax_cross_entropy(z, y, m), m)


def test_objective_keeps_its_own_constant_copy_of_inference():
    m = torch.ones(3, 3, requires_grad=True)
    objective = losses.build("isce", inference=m)
    m.data[0, 1] = 7.0
    assert torch.equal(objective.inference, 1 - torch.eye(3))  # the diagonal is dropped
    assert not objective.inference.requires_grad
    for scalar in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        objective = losses.build("isce", inference=scalar)
        assert objective.inference == 0.1  # to the last bit, and a hyper-parameter: nothing to save
        assert not objective.state_dict()


@pytest.mark.parametrize(("c", "d"), [(2, 1), (3, 2), (10, 9), (10, 256), (100, 256), (257, 256)])
def test_mmc_centres_have_equal_norms_and_angles(c, d):
    centres = losses.build("mmc").score_map(d, c).centres.double()
    torch.testing.assert_close(centres.norm(dim=1), torch.full((c,), 10.0).double(), rtol=1e-6, atol=0)
    cosines = F.normalize(centres) @ F.normalize(centres).T
    expected = torch.full((c, c), -1 / (c - 1)).double().fill_diagonal_(1.0)
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-6)


def test_mmc_centres_are_those_of_the_papers_recursion():
    """Algorithm 1 of Pang et al. (2020), with 0-based indices."""
    c, d = 7, 9
    mu = torch.zeros(c, d).double()
    mu[0, 0] = 1.0
    for i in range(1, c):
        for j in range(i):
            mu[i, j] = -(1 + (mu[i] @ mu[j]) * (c - 1)) / (mu[j, j] * (c - 1))
        mu[i, i] = (1 - mu[i].square().sum()).clamp_min(0).sqrt()
    torch.testing.assert_close(losses.simplex(c, d), mu, rtol=0, atol=1e-7)


@pytest.mark.parametrize("c_mm", [10.0, 100.0])
def test_mmc_is_half_the_squared_distance_and_predicts_the_nearest_centre(c_mm):
    objective = losses.build("mmc", c_mm=c_mm)
    logits = objective.score_map(12, 5)
    h, y = c_mm * torch.randn(20, 12), torch.arange(20) % 5
    expected = [0.5 * sum((a - b) ** 2 for a, b in zip(h[i].tolist(), logits.centres[y[i]].tolist(), strict=True))
                for i in range(20)]  # fmt: skip
    torch.testing.assert_close(objective.per_example(logits(h), y), torch.tensor(expected))
    assert torch.equal(logits(h).argmax(1), torch.cdist(h, logits.centres).argmin(1))
    assert not list(logits.parameters())


@pytest.mark.parametrize("covariance", ["identity", "diagonal"])
def test_lgm_logits_are_log_densities(covariance):
    torch.manual_seed(0)
    logits = losses.build("lgm", covariance=covariance).score_map(3, 4).double()
    if logits.log_variance is not None:
        logits.log_variance.data = torch.randn(4, 3).double()
    h = torch.randn(6, 3).double()
    deviation = torch.ones(4, 3).double() if logits.log_variance is None else (logits.log_variance / 2).exp()
    densities = torch.distributions.Normal(logits.means, deviation).log_prob(h.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(logits(h), densities + 1.5 * math.log(2 * math.pi))


def test_lgm_is_the_papers_loss_with_means_and_variances():
    """Equation by equation from the embedding, for a learnt diagonal; its gradient reaches means and variances."""
    torch.manual_seed(0)
    objective = losses.build("lgm", alpha=0.2, lam=0.4, covariance="diagonal")
    logits = objective.score_map(3, 4).double()
    logits.log_variance.data = torch.randn(4, 3).double()
    h, y = torch.randn(6, 3).double(), torch.tensor([0, 1, 2, 3, 3, 0])

    def paper(means: Tensor, log_variance: Tensor) -> Tensor:
        d = 0.5 * ((h[:, None] - means).square() / log_variance.exp()).sum(-1)
        weight = log_variance.sum(-1).exp().rsqrt()  # |S_k|^(-1/2)
        own = weight[y] * (-1.2 * d[range(6), y]).exp()
        others = (weight * (-d).exp()).sum(1) - weight[y] * (-d[range(6), y]).exp()
        likelihood = d[range(6), y] + 0.5 * log_variance.sum(-1)[y]
        return (-(own / (own + others)).log() + 0.4 * likelihood).mean()  # fmt: skip

    loss = objective(logits(h), y)
    expected = paper(logits.means, logits.log_variance)
    torch.testing.assert_close(loss, expected)
    weights = list(logits.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_center_moves_by_the_papers_rule():
    objective = make("center", lam=0.1).train()
    old = objective.centres.clone()
    h, y = torch.randn(5, 3), torch.tensor([0, 0, 2, -100, 0])
    objective(torch.zeros(5, 4, requires_grad=True), y, h)
    expected = old.clone()
    for k in range(4):
        members = [i for i in range(5) if y[i] == k]
        expected[k] -= 0.5 * sum((old[k] - h[i] for i in members), torch.zeros(3)) / (1 + len(members))
    torch.testing.assert_close(objective.centres, expected)
    assert torch.equal(objective.centres[[1, 3]], old[[1, 3]])


def test_center_stands_still_outside_of_training():
    h, y, z = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0]), torch.zeros(5, 4)
    objective = make("center").train()
    old = objective.centres.clone()
    objective.per_example(z, y, h)
    objective.matched(z, y, h)
    with torch.no_grad():
        objective(z, y, h)
    objective.eval()(z, y, h)
    assert torch.equal(objective.centres, old)


def test_center_moves_under_autocast_as_without():
    h, y, z = torch.randn(5, 3).bfloat16(), torch.tensor([0, 1, 2, 3, 0]), torch.zeros(5, 4)
    plain, cast = (make("center").train() for _ in range(2))
    plain(z, y, h.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast(z, y, h)
    assert torch.equal(cast.centres, plain.centres)


@pytest.mark.parametrize("held", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("ignored", [False, True])
def test_an_overflow_moves_no_centre_and_later_batches_are_as_if_it_had_not_been(held, ignored):
    """Half precision overflows, a gradient scaler skips the step, and training goes on: so must the centres."""
    generator = torch.Generator().manual_seed(0)
    z, h = torch.randn(5, 4, generator=generator), torch.randn(5, 3, generator=generator)
    y = torch.tensor([0, 1, 2, 0, 1])
    kept = torch.tensor([True, True, False, True, True])
    spoilt, clean = (make("center").train() for _ in range(2))
    clean(z[kept], y[kept], h[kept])
    h[2, 1] = held
    loss = spoilt(z, torch.where(kept, y, -100) if ignored else y, h)
    assert bool(loss.isfinite()) == ignored  # an example that counts is not hidden
    torch.testing.assert_close(spoilt.centres, clean.centres)
    h[2, 1] = 0.0
    torch.testing.assert_close(spoilt(z, y, h), clean(z, y, h))


def test_finite_embeddings_whose_sum_overflows_move_no_centre_out_of_reach():
    objective = make("center").train()
    h = torch.full((4, 3), 3e38)
    objective(torch.zeros(4, 4), torch.tensor([0, 0, 0, 1]), h)
    assert objective.centres.isfinite().all()
    assert objective.centres[1, 0] > 1e37  # one alone is in reach


@pytest.mark.parametrize("name", ["contrastive", "triplet"])
def test_pair_terms_do_not_depend_on_the_order_of_the_batch(name):
    torch.manual_seed(0)
    z, y = problem(12)
    h, order = torch.randn(12, 3).double(), torch.randperm(12)
    objective = make(name)
    each = objective.per_example(z, y, h)
    torch.testing.assert_close(objective.per_example(z[order], y[order], h[order]), each[order])
    alone = objective.per_example(z[:1], y[:1], h[:1])  # a batch of one has no pair
    torch.testing.assert_close(alone, losses.build("sce").per_example(z[:1], y[:1]))


def test_contrastive_and_triplet_embeddings_that_coincide_have_no_infinite_slope():
    y, z = torch.tensor([0, 1, 0]), torch.zeros(3, 4)
    for name in ("contrastive", "triplet"):
        h = torch.ones(3, 3, requires_grad=True)
        make(name)(z, y, h).backward()
        assert h.grad.isfinite().all()


def test_cosine_logits_are_scaled_cosines():
    torch.manual_seed(0)
    logits = losses.build("cosface", scale=5.0).score_map(3, 4)
    h = 100 * torch.randn(6, 3)
    expected = 5 * F.cosine_similarity(h.unsqueeze(1), logits.weight.unsqueeze(0), dim=-1)
    torch.testing.assert_close(logits(h), expected)
    torch.testing.assert_close(logits(1e-3 * h), expected)
    zero = torch.zeros(1, 3, requires_grad=True)
    logits(zero).sum().backward()
    assert torch.equal(logits(zero), torch.zeros(1, 4))
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("name", ["cosface", "arcface"])
@settings(deadline=None)
@given(cosine=st.floats(-1, 0.999), step=st.floats(1e-3, 1))
def test_margin_losses_fall_as_the_angle_closes(name, cosine, step):
    """Also across the angle where ArcFace changes its form."""
    objective = losses.build(name, scale=4.0)
    z = torch.tensor([[4 * cosine, 0.0], [4 * min(cosine + step, 1.0), 0.0]]).double()
    far, near = objective.per_example(z, torch.zeros(2, dtype=torch.int64)).tolist()
    assert near < far
    assert far >= losses.build("sce").per_example(z[:1], torch.tensor([0])).item() - 1e-12


def test_released_outputs_never_change_the_prediction_by_default():
    z, _ = problem(500, 10)
    for params in ({}, {"clip": False}, {"inference": 0.5, "scale": 2.0, "clip": False}):
        out = losses.released_outputs(z, **params)
        assert torch.equal(out.argmax(1), z.argmax(1))
    assert losses.released_outputs(z).abs().max() <= 1


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_released_reading_has_no_temperature(scale):
    z, y = problem()
    objective = losses.build("isce-released")
    torch.testing.assert_close(objective(scale * z, y), objective(z, y))
