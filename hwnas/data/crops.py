"""Random aligned crops of low- and high-resolution images, fast enough never to keep a training step waiting.

Every image is decoded and reduced once. Small collections then live in memory; larger ones (DIV2K is 7 GB of
pixels) in a memory-mapped file in the cache, which the next run finds again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from hwnas.data.degradation import crop_to_multiple, downscale
from hwnas.data.images import ImageArray, read_image, stored_size
from hwnas.errors import HwnasError
from hwnas.files import atomic_path

if TYPE_CHECKING:
    import torch

# An image still to be read, or one that is in memory already, with its name.
ImageSource: TypeAlias = Path | tuple[str, ImageArray]
# Low-resolution height and width, and all pixels of both resolutions.
Prepared: TypeAlias = tuple[tuple[int, ...], ImageArray]

MEMORY_LIMIT_BYTES = 1 << 30
_CACHE_FORMAT = 1
_SIZE_BYTES = 2 * np.dtype(np.int64).itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Which crops.

    Attributes:
        images: indices, [B].
        corners: low-resolution row and column of their first pixel, [B, 2].
        flips: whether they are transposed, then turned upside down, then mirrored, [B, 3].
    """

    images: npt.NDArray[np.int64]
    corners: npt.NDArray[np.int64]
    flips: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """High-resolution images and their bicubic reductions, in one flat array of pixels.

    ``pixels`` holds for each image the high-resolution one, uint8 ``[3, H, W]``, and right behind it the
    reduced one, ``[3, H / scale, W / scale]``: channels first as networks want them, which also makes cutting
    and turning a crop several times faster. ``sizes`` is int64 ``[N, 2]``, low-resolution heights and widths.
    """

    scale: int
    names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    pixels: ImageArray

    @classmethod
    def prepare(
        cls,
        images: Sequence[ImageSource],
        scale: int,
        cache: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImagePairs:
        """Read, crop to multiples of ``scale`` and reduce every image.

        Args:
            images: files, or ``(name, uint8 [H, W, 3])``.
            scale: integer factor between the two resolutions.
            cache: folder for collections of files beyond 1 GiB of pixels; ``None`` keeps those in memory too.
            progress: called with images done and images in all.

        Raises:
            HwnasError: naming the image, if one is unreadable or smaller than ``scale``.
        """
        names = tuple(image.name if isinstance(image, Path) else image[0] for image in images)
        lengths = [_pair_bytes(image, scale) for image in images]
        paths = [image for image in images if isinstance(image, Path)]
        pairs = _reduced(images, lengths, scale, progress)
        # Images handed over as arrays are in memory anyway, and have no modification time to know them by.
        large = sum(lengths) > MEMORY_LIMIT_BYTES and len(paths) == len(images)
        if cache is not None and large:
            sizes, pixels = _on_disk(cache / f"pairs-{_key(paths, scale)}.npy", pairs, lengths)
        else:
            sizes, pixels = _in_memory(pairs, lengths)
        return cls(scale=scale, names=names, sizes=sizes, pixels=pixels)

    def with_targets(self, make: Callable[[ImageArray], ImageArray], cache: Path) -> ImagePairs:
        """The same low-resolution images, with what ``make`` makes of them in the place of the photographs.

        Args:
            make: uint8 ``[h, w, 3]`` to ``[h * scale, w * scale, 3]``.
            cache: file that it is kept in; one that is there already is taken.

        Raises:
            HwnasError: if the file cannot be written.
        """
        lengths = [int(height * width) * 3 * (self.scale**2 + 1) for height, width in self.sizes]

        def made() -> Iterator[Prepared]:
            for i in range(len(self)):
                lr, _ = self.pair(i)
                hr = make(np.ascontiguousarray(lr.transpose(1, 2, 0))).transpose(2, 0, 1)
                yield lr.shape[1:], np.concatenate([hr.ravel(), lr.ravel()])

        sizes, pixels = _on_disk(cache, made(), lengths)
        return ImagePairs(self.scale, self.names, sizes, pixels)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where in ``pixels`` each image begins, [N]."""
        ends = self.sizes.prod(axis=1).cumsum() * 3 * (self.scale**2 + 1)
        return np.concatenate([[0], ends[:-1]]).astype(np.int64)

    def pair(self, index: int) -> tuple[ImageArray, ImageArray]:
        """Views of one image: low resolution ``[3, h, w]``, high resolution ``[3, h * scale, w * scale]``."""
        height, width = (int(side) for side in self.sizes[index])
        start = int(self.starts[index])
        middle = start + height * width * 3 * self.scale**2
        hr = self.pixels[start:middle].reshape(3, height * self.scale, width * self.scale)
        lr = self.pixels[middle : middle + height * width * 3].reshape(3, height, width)
        return lr, hr

    def room_for(self, crop: int, say: Callable[[str], None]) -> list[int]:
        """Indices of the images that have room for crops of ``crop`` low-resolution pixels.

        Collections mix sizes (T91 beside BSD200), so a few small images are left out, and named to ``say``.

        Raises:
            HwnasError: if fewer than half have room, naming the largest crop that all have room for.
        """
        room = [i for i in range(len(self)) if self.sizes[i].min() >= crop]
        if len(room) == len(self):
            return room
        small = [i for i in range(len(self)) if self.sizes[i].min() < crop]
        named = ", ".join(
            f"{self.names[i]} ({self.sizes[i, 1] * self.scale}x{self.sizes[i, 0] * self.scale})" for i in small[:3]
        )
        more = f" and {len(small) - 3} more" if len(small) > 3 else ""
        side = crop * self.scale
        why = f"{named}{more}: too small for crops of {side}x{side} ({crop} low-resolution pixels at x{self.scale})"
        fits = f"--crop {int(self.sizes.min())}"
        if len(room) < len(self) / 2:
            raise HwnasError(f"{why}; use {fits} or smaller, or remove what is too small")
        say(f"{why}; left out, {len(room)} of {len(self)} images remain ({fits} would use all)")
        return room

    def sample(
        self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops: images and positions uniform, each in one of the eight orientations of a square.

        Args:
            rng: decides everything; the same state gives the same crops.
            batch: number of crops B.
            crop: their side c in low-resolution pixels.
            indices: the images to choose from, as `room_for` gives them; ``None`` for all.

        Returns:
            float32 in 0..1: low resolution ``[B, 3, c, c]``, high resolution ``[B, 3, c*scale, c*scale]``.

        Raises:
            ValueError: if a chosen image has no room for the crop.
        """
        drawn = self.draw(rng, batch, crop, indices)
        side = crop * self.scale
        lr_batch = np.empty((batch, 3, crop, crop), np.uint8)
        hr_batch = np.empty((batch, 3, side, side), np.uint8)
        for b in range(batch):
            lr, hr = self.pair(int(drawn.images[b]))
            y, x = (int(v) for v in drawn.corners[b])
            lr_batch[b] = _oriented(lr[:, y : y + crop, x : x + crop], drawn.flips[b])
            y, x = y * self.scale, x * self.scale
            hr_batch[b] = _oriented(hr[:, y : y + side, x : x + side], drawn.flips[b])
        return _as_tensor(lr_batch), _as_tensor(hr_batch)

    def draw(self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None) -> Drawn:
        """What `sample` cuts; the arguments are its."""
        chosen = rng.integers(len(self) if indices is None else len(indices), size=batch)
        images = chosen if indices is None else np.asarray(indices)[chosen]
        return Drawn(images, rng.integers(self.sizes[images] - crop + 1), rng.integers(2, size=(batch, 3)))


def _pair_bytes(image: ImageSource, scale: int) -> int:
    """Bytes of both resolutions of one image, which a quarter turn by EXIF does not change."""
    height, width = stored_size(image) if isinstance(image, Path) else image[1].shape[:2]
    if min(height, width) < scale:
        name = image if isinstance(image, Path) else image[0]
        raise HwnasError(f"{name} is {width}x{height}, too small to be reduced by {scale}; remove it")
    return int((height // scale) * (width // scale) * 3 * (scale**2 + 1))


def _reduced(
    images: Sequence[ImageSource],
    lengths: list[int],
    scale: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Prepared]:
    for i, image in enumerate(images):
        hr = crop_to_multiple(read_image(image) if isinstance(image, Path) else image[1], scale)
        lr = downscale(hr, scale)
        flat = np.concatenate([hr.transpose(2, 0, 1).ravel(), lr.transpose(2, 0, 1).ravel()])
        if flat.size != lengths[i]:
            raise HwnasError(f"{image} has another size than its header says; remove or replace it")
        yield lr.shape[:2], flat
        if progress is not None:
            progress(i + 1, len(images))


def _in_memory(pairs: Iterator[Prepared], lengths: list[int]) -> tuple[npt.NDArray[np.int64], ImageArray]:
    pixels = np.empty(sum(lengths), np.uint8)
    sizes = []
    end = 0
    for size, flat in pairs:
        pixels[end : end + flat.size] = flat
        end += flat.size
        sizes.append(size)
    return np.array(sizes, np.int64), pixels


def _key(paths: Sequence[Path], scale: int) -> str:
    """Names everything the prepared pixels depend on, so that a changed photograph is prepared again."""
    files = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return hashlib.sha256(json.dumps([_CACHE_FORMAT, scale, files]).encode()).hexdigest()[:16]


def _on_disk(path: Path, pairs: Iterator[Prepared], lengths: list[int]) -> tuple[npt.NDArray[np.int64], ImageArray]:
    """Sizes and memory-mapped pixels from ``path``; written first unless a complete file is there.

    One flat array holds all pixels and behind them the sizes: no second file can fall out of step with it.
    """
    # numpy says ValueError of a truncated file, EOFError of an empty one.
    with suppress(OSError, ValueError, EOFError):
        return _mapped(path, lengths)
    sizes = []
    # Written as a stream: a full disk is then an error here, and not a crash on access to a sparse map.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        shape = (sum(lengths) + _SIZE_BYTES * len(lengths),)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for size, flat in pairs:
            file.write(flat.tobytes())
            sizes.append(size)
        file.write(np.array(sizes, np.int64).tobytes())
    return _mapped(path, lengths)


def _mapped(path: Path, lengths: list[int]) -> tuple[npt.NDArray[np.int64], ImageArray]:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    end = sum(lengths)
    if mapped.dtype != np.uint8 or mapped.shape != (end + _SIZE_BYTES * len(lengths),):
        raise ValueError(f"{path} does not hold {len(lengths)} images of {end} bytes")
    return np.frombuffer(mapped[end:].tobytes(), np.int64).reshape(-1, 2), np.asarray(mapped[:end])


def _oriented(crop: ImageArray, flips: npt.NDArray[np.int64]) -> ImageArray:
    """Transposed, upside down, mirrored: three bits for all quarter turns and their mirror images."""
    if flips[0]:
        crop = crop.transpose(0, 2, 1)
    if flips[1]:
        crop = crop[:, ::-1]
    return crop[:, :, ::-1] if flips[2] else crop


def _as_tensor(batch: ImageArray) -> torch.Tensor:
    import torch

    # Divided by numpy: torch would wake its thread pool for it, and wait for that on a machine that is busy.
    return torch.from_numpy(np.divide(batch, np.float32(255), dtype=np.float32))
