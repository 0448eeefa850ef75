#!/bin/sh
# torchvision 0.28.0: AugMix (v2) of images of bytes makes them a little darker, and its mildest Solarize is not the
# identity. The mixture of the chains is computed in floating point and then cut down to whole numbers, not rounded: where
# every operation gives back its image, 13% of the pixels of value 255 come out as 254. The scale of magnitudes of Solarize begins
# at threshold 255, which turns exactly the pixels of value 255 black; each other operation begins at its identity. Images
# with pure white strokes, as of written digits, are hit by both.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: mixtures of identities leave some pixels of value 255 at 254
#   seen: and none above, nor below 254
#   seen: the lowest magnitude of Solarize is threshold 255
#   seen: with it 255 becomes 0, and 254 stays

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 torchvision==0.28.0
python - <<'PY'
import torch
from _toy import see

# A build for CUDA beside a torch for the CPU, as package indexes hand them out, wants these two declared.
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional


class Still(v2.AugMix):
    """AugMix whose every operation is the identity."""

    def _apply_image_or_video_transform(self, image, transform_id, magnitude, interpolation, fill):
        return image


torch.manual_seed(0)
white = torch.full((100, 1, 10, 10), 255, dtype=torch.uint8)
mixed = torch.cat([Still()(image[None]) for image in white])
counts = {int(value): int((mixed == value).sum()) for value in mixed.unique()}
print("pixels of value 255 became", counts)
see("mixtures of identities leave some pixels of value 255 at 254", counts.get(254, 0) > 0)
see("and none above, nor below 254", set(counts) == {254, 255})
magnitudes, _ = v2.AugMix._AUGMENTATION_SPACE["Solarize"]
threshold = 255 * float(magnitudes(10, 32, 32)[0])  # a share of the largest value
print("threshold of the lowest magnitude of Solarize:", threshold)
see("the lowest magnitude of Solarize is threshold 255", threshold == 255)
values = torch.tensor([0, 1, 127, 254, 255], dtype=torch.uint8).view(1, 1, 5)
turned = functional.solarize(values, threshold).flatten().tolist()
print(values.flatten().tolist(), "become", turned)
see("with it 255 becomes 0, and 254 stays", turned == [0, 1, 127, 254, 0])
PY
