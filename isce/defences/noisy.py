"""Noisy softmax (Chen et al. 2017): noise that makes the true class's logit smaller than it is."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from isce.defences.base import Batch, Defence, seeded
from isce.losses import Objective
from isce.losses.checks import number


class NoisySoftmax(Defence):
    """Train with the true class's logit f_y less alpha ||w_y|| ||h|| (1 - cos theta) |xi| (Chen et al. 2017).

    h is the embedding, w_y the class's row of the linear map to the logits, theta the angle between them, and
    xi ~ N(0, 1) one draw for each image. So the loss asks for a random margin that is never negative, and that fades as
    theta does: the annealing of the paper. The gradient goes through the factor of |xi| too. A bias of the map is no
    part of it. The network that is tested has no noise.

    Args:
        alpha_squared: alpha^2, at least 0; the paper's settings lie near 0.1.
    """

    name = "noisy-softmax"
    title = "noisy softmax"
    source = "Chen et al. 2017"

    def __init__(self, alpha_squared: float = 0.1) -> None:
        super().__init__()
        self.alpha = number("alpha_squared", alpha_squared, at_least=0) ** 0.5

    def check(self, objective: Objective) -> None:
        """Refuse an objective whose logits are not linear in the embedding, or that trains on bounds."""
        super().check(objective)
        with seeded(0):  # a new map draws its weights
            score_map = copy.deepcopy(objective).score_map(2, 2)
        self._linear(score_map, objective)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of the noisy logits; the accuracy is counted from the logits without noise."""
        score_map = self._linear(batch.classifier.score_map, batch.objective)
        logits, embedding = batch.outputs(batch.x)
        noise = torch.randn(len(batch.y), generator=batch.draws).to(logits).abs()
        own = score_map.weight[batch.y]
        margin = self.alpha * (own.norm(dim=1) * embedding.norm(dim=1) - (own * embedding).sum(1)) * noise
        noisy = logits.scatter_add(1, batch.y.unsqueeze(1), -margin.unsqueeze(1))
        return batch.objective(noisy, batch.y, embedding), logits

    def _linear(self, score_map: nn.Module, objective: Objective) -> nn.Linear:
        if not isinstance(score_map, nn.Linear):
            got = f"{objective.name} gives {type(score_map).__name__}"
            raise ValueError(f"{self.name} needs logits that are linear in the embedding, and {got}")
        return score_map
