"""Photographs as arrays: whatever a folder holds comes in as uint8 RGB, or as a line that names the bad file.

Everything downstream (degradation, metrics, training) sees one kind of image only, ``uint8 [H, W, 3]``; the
variety of formats, bit depths and broken downloads ends here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hwnas.errors import HwnasError, UsageError
from hwnas.files import atomic_path

ImageArray: TypeAlias = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_WRITERS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}


def find_images(folder: Path) -> list[Path]:
    """The image files directly inside ``folder``, sorted by name; hidden files do not count.

    Raises:
        UsageError: if ``folder`` is missing or is not a folder.
        HwnasError: if it cannot be listed or holds no image.
    """
    if not folder.exists():
        raise UsageError(f"there is no folder {folder}; check the path")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the folder that holds the images")
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise HwnasError(f"cannot list {folder}: {error.strerror}; check its permissions") from error
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".") and f.is_file()]
    if not images:
        suffixes = ", ".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
        raise HwnasError(f"no images in {folder}; put files ending in {suffixes} there (not in subfolders)")
    return images


def high_resolution_images(folder: Path) -> list[Path]:
    """The images of ``folder/HR`` if there is such a folder, otherwise of ``folder`` itself."""
    inner = folder / "HR"
    return find_images(inner if inner.is_dir() else folder)


def read_image(path: Path) -> ImageArray:
    """Decode one image, upright as its EXIF orientation says, as uint8 RGB ``[H, W, 3]``.

    Grey images repeat their channel. Transparency is dropped, not blended: the colours underneath are kept.
    16-bit grey becomes ``round(v / 257)``; of 16-bit colour Pillow keeps the high byte, ``v >> 8``, which is
    at most one level away from that. Of an animation or a multi-page file the first picture is taken.

    Raises:
        HwnasError: naming the file, if it is truncated, corrupt, no image, or absurdly large.
    """
    with _opened(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode == "F":
            raise ValueError("its pixels are floating-point numbers of unknown range")
        if upright.mode.startswith("I"):
            return _from_sixteen_bits(np.asarray(upright))
        return np.array(upright.convert("RGB"), dtype=np.uint8)


def stored_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header alone; EXIF orientation may make `read_image` exchange them.

    Orientation is not looked up: a PNG may state it behind the pixels, which would all be decoded first.

    Raises:
        HwnasError: naming the file, if not even its header can be read.
    """
    with _opened(path) as picture:
        width, height = picture.size
        return height, width


def write_image(path: Path, array: ImageArray) -> None:
    """Write uint8 RGB ``[H, W, 3]`` atomically, in the format that the suffix of ``path`` names.

    Raises:
        UsageError: if the suffix names no format that can be written.
        HwnasError: if the file cannot be written, or the format cannot hold an image of this size.
    """
    if path.suffix.lower() not in _WRITERS:
        known = ", ".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
        raise UsageError(f"cannot write {path}: unknown image suffix '{path.suffix}'; use one of {known}")
    file_format, options = _WRITERS[path.suffix.lower()]
    with atomic_path(path) as temporary:
        try:
            Image.fromarray(array).save(temporary, format=file_format, **options)
        except ValueError as error:
            raise HwnasError(f"cannot write {path}: {error}; write a PNG instead") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's view of a file; whatever goes wrong with it inside the block is blamed on the file."""
    try:
        with Image.open(path) as picture:
            yield picture
    except UnidentifiedImageError as error:
        raise _unreadable(path, "not an image, or a damaged one") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    # Pillow's decoders meet hostile bytes with SyntaxError, struct.error, zlib.error, DecompressionBombError
    # and more, none of them documented as the complete list; each means "this file is bad".
    except Exception as error:
        raise _unreadable(path, str(error) or type(error).__name__) from error


def _unreadable(path: Path, reason: str) -> HwnasError:
    return HwnasError(f"cannot read {path}: {reason}; remove or replace it")


def _from_sixteen_bits(grey: npt.NDArray[np.integer]) -> ImageArray:
    """Integer grey ``[H, W]``, 0..65535, as uint8 ``[H, W, 3]``."""
    values = grey.astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError("its pixels are 32-bit numbers of unknown range")
    eight_bits = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(eight_bits[:, :, None], 3, axis=2)
