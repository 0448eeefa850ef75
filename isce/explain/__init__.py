"""Why an evaluation comes out as it does: paths of attacks, gradients, embeddings and a gallery of one trained model.

:func:`explain` measures everything; the parts can be called alone. What each quantity means is said where it is made.
"""

from __future__ import annotations

from isce.explain.analysis import Explanation, explain
from isce.explain.features import Features, embeddings_seen
from isce.explain.gallery import Gallery, gallery
from isce.explain.gradients import Gradients, boxed_distance, gradients
from isce.explain.paths import Ascent, ascend, on_the_sphere

__all__ = [
    "Ascent",
    "Explanation",
    "Features",
    "Gallery",
    "Gradients",
    "ascend",
    "boxed_distance",
    "embeddings_seen",
    "explain",
    "gallery",
    "gradients",
    "on_the_sphere",
]
