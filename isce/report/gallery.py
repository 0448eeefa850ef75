"""Data of the book's gallery: images under attack in one picture, and what each network takes them for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.image import imsave

from isce.report.explain import Explained
from isce.report.names import reader_name, row_name
from isce.report.plots.runs import eps_text

#: Classes of the coloured data set; those of the grey ones are digits.
CIFAR10 = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Colours of a grey pixel that an attack made lighter, and of one that it made darker; black: it left it alone.
LIGHTER, DARKER = np.array([[255, 176, 64], [90, 170, 255]], np.float64)[:, :, None, None]


def gallery(explained: Explained) -> tuple[dict[str, Any], list[str], bytes]:
    """Return what the book's gallery says of one experiment, the names of its records, and its picture.

    Losses whose records hold other images or attacks than the first one's are left out.

    Returns:
        ``classes``: the true one of each of n images; ``losses``; ``attacks``, each with its threat model; ``found``:
        for each loss and attack, no attack first, (class, probability in per cent, whether it is right) of each image;
        ``factors``: for each loss and attack what the change is multiplied by, empty where nothing changed. The PNG has
        2n images in a row: first the clean ones and n black ones; then a row of n adversarial images and n changes for
        each attack of the first loss; then those of the next.
    """
    losses = _alike(explained)
    first = explained.first[losses[0]].results["gallery"]
    clean = explained.arrays[losses[0]]["gallery.clean"]
    coloured = clean.shape[1] == 3
    rows, factors = [[*clean, *np.zeros_like(clean)]], list[list[str]]()
    for label in losses:
        factors.append([])
        for images in explained.arrays[label]["gallery.adversarial"]:
            change = images.astype(np.float64) - clean
            largest = float(np.abs(change).max())
            shown = change / max(largest, 1)
            amplified = 127.5 * (1 + shown) if coloured else LIGHTER * shown.clip(0) + DARKER * (-shown).clip(0)
            rows.append([*images, *amplified])
            factors[-1].append(f"{(127.5 if coloured else 255) / largest:.2g}" if largest else "")
    sheet = np.block([[np.broadcast_to(image, (3, *image.shape[1:])) for image in row] for row in rows])
    about = {
        "classes": [_class(label, coloured) for label in first["labels"]],
        "losses": [reader_name(label) for label in losses],
        "attacks": [[row_name(name), _threat(of)] for name, of in first["rows"]],
        "found": [
            [
                [
                    [_class(predicted, coloured), round(100 * float(share)), int(predicted) == label]
                    for (predicted, share), label in zip(row, first["labels"], strict=True)
                ]
                for row in explained.arrays[loss]["gallery.predictions"]
            ]
            for loss in losses
        ],
        "factors": factors,
    }
    return about, [explained.name[loss] for loss in losses], _png(sheet)


def _alike(explained: Explained) -> list[str]:
    """Labels of the losses whose records hold the images and attacks of the first."""
    first, *_ = explained.first

    def shown(label: str) -> tuple[Any, bytes]:
        return explained.first[label].results["gallery"], explained.arrays[label]["gallery.clean"].tobytes()

    return [label for label in explained.first if shown(label) == shown(first)]


def _threat(label: str) -> str:
    name, _, eps = label.partition("@")
    return f"{name}, eps {eps_text(float(eps))}" if eps else name


def _class(number: float, coloured: bool) -> str:
    return CIFAR10[int(number)] if coloured else str(int(number))


def _png(sheet: np.ndarray) -> bytes:
    """A picture (3, height, width) of values from 0 to 255 as a file."""
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(np.moveaxis(sheet.round().astype(np.uint8), 0, -1))
    imsave(buffer, pixels, format="png", metadata={"Software": "isce"})
    return buffer.getvalue()
