"""Min-max analysis of I-SCE: robust counterparts, bounds and certificates, and the inference region.

``upper_bounds`` and ``certified`` prove predictions of a network on a ball. ``logit_box_maximum`` and
``logit_box_minimum`` work on logits; ``input_bound`` and ``certified_radius`` carry them to inputs with the constants
of ``network_constants``; ``inner_gap`` and ``inference_region`` measure trained models.
"""

from __future__ import annotations

from isce.minmax.analysis import Analysis, Ball, analyse
from isce.minmax.bounds import certified_radius, input_bound
from isce.minmax.certificates import certified, upper_bounds
from isce.minmax.counterparts import covering_inference, logit_box_maximum, logit_box_minimum, wrong_evidence
from isce.minmax.gap import inner_gap, projected_ascent
from isce.minmax.lipschitz import network_constants
from isce.minmax.region import InferenceRegion, frechet_distance, inference_region

__all__ = [
    "Analysis",
    "Ball",
    "InferenceRegion",
    "analyse",
    "certified",
    "certified_radius",
    "covering_inference",
    "frechet_distance",
    "inference_region",
    "inner_gap",
    "input_bound",
    "logit_box_maximum",
    "logit_box_minimum",
    "network_constants",
    "projected_ascent",
    "upper_bounds",
    "wrong_evidence",
]
