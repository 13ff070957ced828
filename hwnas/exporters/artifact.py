"""Exported networks, run as their users will run them: in their runtime, images of bytes in and out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import HwnasError
from hwnas.tiling import upscale_in_windows

_PROBE_SIDE = 16
"""The least that engines of TensorRT are built for."""

_MOST_PIXELS = 2**26
"""Of the images that a file may state to take: 8192x8192."""

WHOLE_IMAGE = "whole image"
"""The property ``overlap`` of a network that looks at all of its input, so that there can be no tiles."""

UNKNOWN_REACH = 64
"""Context for tiles of a file that does not say how far its network looks, in low-resolution pixels."""


class Artifact(ABC):
    """A file that a runtime has opened.

    Attributes:
        path: the file.
        runtime: what runs it, with its version.
        size: height and width of the images it takes, each None where any will do.
        takes_bytes: it reads and makes uint8 images, rather than float in 0 to 1.
        properties: what the file says of itself.
    """

    path: Path
    runtime: str
    size: tuple[int | None, int | None]
    takes_bytes: bool
    properties: Mapping[str, str]

    @abstractmethod
    def run(self, x: NDArray) -> NDArray:
        """[1, 3, h, w] to [1, 3, scale * h, scale * w], of the type that the artifact has.

        Raises:
            HwnasError: if the runtime cannot.
        """


class ArtifactUpscaler:
    """An artifact as a function of images.

    Calling it takes uint8 [h, w, 3] and returns uint8 [h * scale, w * scale, 3], RGB; of any size, in windows that
    overlap where the artifact takes one size only.

    Raises:
        HwnasError: if it is no super-resolution network.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.path = artifact.path
        stated = [side for side in artifact.size if side is not None]
        if any(side < 1 for side in stated) or math.prod(stated) > _MOST_PIXELS:
            raise HwnasError(
                f"{self.path} takes images of {'x'.join(map(str, stated))}, which are none; export it again"
            )
        self.scale = self._find_scale()
        self.overlap = self._find_overlap()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self.artifact.size
        if height is None or width is None or image.shape[:2] == (height, width):
            return self._enlarge(image)
        if self.overlap is None:
            raise HwnasError(
                f"{self.path} takes inputs of {width}x{height} only, not of {image.shape[1]}x{image.shape[0]}, and "
                "looks at the whole image; export the network again for any size"
            )
        return upscale_in_windows(self._enlarge, image, self.scale, (height, width), self.overlap)

    def _enlarge(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        x = planes if self.artifact.takes_bytes else planes.astype(np.float32) / np.float32(255)
        y = self.artifact.run(x)
        height, width = (side * self.scale for side in image.shape[:2])
        if y.shape != (1, 3, height, width):
            raise HwnasError(
                f"{self.path} makes {list(y.shape)} of {list(x.shape)}, which is not the scale {self.scale} that it "
                "states; export it again"
            )
        y = y[0].transpose(1, 2, 0)
        if self.artifact.takes_bytes:
            return np.ascontiguousarray(y)
        if not np.isfinite(y).all():
            raise HwnasError(
                f"{self.path} makes pixels that are no numbers, of an image of {image.shape[1]}x{image.shape[0]}"
            )
        # Half up, as in the evaluation; numpy's rint would round halves to even.
        upscaled: NDArray[np.uint8] = np.floor(np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)
        return upscaled

    def _find_overlap(self) -> int | None:
        """Context that tiles need; None if the network looks at the whole image, so that there can be no tiles."""
        stored = self.artifact.properties.get("overlap", str(UNKNOWN_REACH))
        return int(stored) if _is_count(stored) else None

    def _find_scale(self) -> int:
        """The scale in the file's properties; in a file from elsewhere, that of a small image put through."""
        stored = self.artifact.properties.get("scale")
        if stored is not None:
            if not _is_count(stored) or int(stored) < 1:
                raise HwnasError(f"{self.path}: the property 'scale' is {stored!r}, expected a whole number")
            return int(stored)
        sides = [_PROBE_SIDE if side is None else side for side in self.artifact.size]
        shape = self.artifact.run(np.zeros((1, 3, *sides), np.uint8 if self.artifact.takes_bytes else np.float32)).shape
        scale = shape[2] // sides[0] if len(shape) == 4 else 0
        if scale < 2 or shape != (1, 3, sides[0] * scale, sides[1] * scale):
            raise HwnasError(
                f"{self.path} does not upscale RGB images: it makes {list(shape)} of [1, 3, {sides[0]}, {sides[1]}]"
            )
        return scale


def _is_count(text: str) -> bool:
    # Not more digits than any overlap has: Python refuses to convert thousands of them.
    return text.isdecimal() and len(text) <= 6
