"""What ``--data`` means: the user's own photographs, DIV2K, or the ones that come with scikit-image.

A search chooses by validation images, so they are never among the training ones; and since a repeated run
must choose the same, the split depends on the file names and the seed only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.data import div2k
from hwnas.data.bundled import bundled_images
from hwnas.data.crops import ImagePairs, ImageSource
from hwnas.data.div2k import Progress, cache_folder
from hwnas.data.images import ImageArray, find_images, high_resolution_images, read_image
from hwnas.errors import HwnasError
from hwnas.metrics import smallest_side

VALIDATION_SHARE = 0.05
MOST_VALIDATION_IMAGES = 10


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Prepared training images and, whole, the high-resolution validation images uint8 ``[H, W, 3]``."""

    train: ImagePairs
    validation: list[tuple[str, ImageArray]]


def load_training_data(spec: str, scale: int, seed: int, progress: Progress | None = None) -> TrainingData:
    """The images that a ``--data`` option names.

    Args:
        spec: ``bundled``, ``div2k`` (downloaded on first use), or a folder of high-resolution images; where
            the folder has ``HR/`` inside, that one is used. About 5% of a folder, at least one image and at
            most ten, are held out for validation; of DIV2K, the first ten of its validation set.
        scale: the factor to train for.
        seed: chooses a folder's validation images.
        progress: called with what is being done, how much is done and how much there is.

    Raises:
        HwnasError: if the images are missing, too few or unreadable, or DIV2K cannot be downloaded.
    """
    training: list[ImageSource]
    if spec == "bundled":
        in_memory, validation = bundled_images()
        training = [*in_memory]
    elif spec == "div2k":
        training = [*find_images(div2k.fetch(div2k.TRAIN, progress))]
        validation = _read(find_images(div2k.fetch(div2k.VALID, progress))[:MOST_VALIDATION_IMAGES])
    else:
        in_folder, held_out = split(high_resolution_images(Path(spec)), seed)
        training, validation = [*in_folder], _read(held_out)
        for path, (_, image) in zip(held_out, validation, strict=True):
            height, width = image.shape[:2]
            if min(height, width) // scale * scale < smallest_side(scale):
                raise HwnasError(
                    f"{path} is held out for validation, and too small to be scored ({width}x{height}); remove it"
                )

    def preparing(done: int, total: int) -> None:
        if progress is not None:
            progress("preparing images", done, total)

    train = ImagePairs.prepare(training, scale, cache=cache_folder(), progress=preparing)
    return TrainingData(train=train, validation=validation)


def split(images: list[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Training and validation files, each in the order given, the same for the same number of files and seed.

    Raises:
        HwnasError: if there is only one image.
    """
    if len(images) < 2:
        raise HwnasError(
            f"{images[0].parent} holds a single image; give at least two, one of them is kept for validation"
        )
    count = max(1, min(MOST_VALIDATION_IMAGES, round(VALIDATION_SHARE * len(images))))
    held_out = set(np.random.default_rng(seed).permutation(len(images))[:count].tolist())
    training = [image for i, image in enumerate(images) if i not in held_out]
    return training, [images[i] for i in sorted(held_out)]


def _read(paths: list[Path]) -> list[tuple[str, ImageArray]]:
    return [(path.name, read_image(path)) for path in paths]
