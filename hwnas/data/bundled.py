"""Photographs that are already on the machine, so a first search needs neither a download nor a data set.

The scikit-image wheel carries them. They are few and small: enough to see everything work and to beat
bicubic, not enough for a paper.
"""

from __future__ import annotations

import numpy as np

from hwnas.data.images import ImageArray
from hwnas.errors import HwnasError

TRAINING_NAMES = (
    "astronaut",
    "rocket",
    "camera",
    "coins",
    "moon",
    "hubble_deep_field",
    "retina",
    "immunohistochemistry",
    "brick",
    "grass",
    "gravel",
    "motorcycle_left",
    "motorcycle_right",
)
# Ordinary colour photographs, and nothing in training shows the same scene.
VALIDATION_NAMES = ("chelsea", "coffee")


def bundled_images() -> tuple[list[tuple[str, ImageArray]], list[tuple[str, ImageArray]]]:
    """Training and validation images as ``(name, uint8 [H, W, 3])``; grey ones repeat their channel.

    Raises:
        HwnasError: if this scikit-image was packaged without its photographs.
    """
    return _load(TRAINING_NAMES), _load(VALIDATION_NAMES)


def _load(names: tuple[str, ...]) -> list[tuple[str, ImageArray]]:
    from skimage import data

    images = []
    for name in names:
        try:
            if name.startswith("motorcycle_"):
                left, right, _ = data.stereo_motorcycle()
                image = left if name.endswith("left") else right
            else:
                image = getattr(data, name)()
        # scikit-image tries to download what its package lacks; requests' errors are OSErrors.
        except OSError as error:
            raise HwnasError(
                f"this scikit-image comes without its photograph '{name}'; install the wheel from PyPI "
                "or use --data DIR with your own photographs"
            ) from error
        images.append((name, _as_rgb(image)))
    return images


def _as_rgb(image: ImageArray) -> ImageArray:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
