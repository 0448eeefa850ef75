"""Networks for images in [0, 1], normalisation inside. Imports torch only.

A network is a :class:`Backbone` (image to embedding) and a score map (embedding to decision logits, owned by the
objective), joined by one :class:`Classifier`.
"""

from isce.models.assembly import assemble
from isce.models.base import Backbone, Classifier
from isce.models.detector import Guarded
from isce.models.registry import build, check_batch_statistics, names
from isce.models.resnet import PreActivationResNet, ResNet18
from isce.models.shallow import LeNet, SmallCNN

__all__ = [
    "Backbone",
    "Classifier",
    "Guarded",
    "LeNet",
    "PreActivationResNet",
    "ResNet18",
    "SmallCNN",
    "assemble",
    "build",
    "check_batch_statistics",
    "names",
]
