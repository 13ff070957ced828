"""How good an upscaler is on a folder of images, always next to what bicubic enlargement scores there.

A PSNR says nothing by itself: it depends more on the photographs than on the network. The bicubic score of
the same images makes it readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hwnas import metrics
from hwnas.data.degradation import crop_to_multiple, downscale, upscale
from hwnas.data.images import ImageArray, high_resolution_images, read_image
from hwnas.errors import HwnasError

Upscaler: TypeAlias = Callable[[ImageArray], ImageArray]


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image: PSNR in dB, infinite where nothing differs, and SSIM, of the upscaler and of bicubic."""

    name: str
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a folder's images at one scale; the summary values are means over images."""

    scale: int
    images: tuple[ImageScore, ...]

    @property
    def psnr(self) -> float:
        return _mean([image.psnr for image in self.images])

    @property
    def ssim(self) -> float:
        return _mean([image.ssim for image in self.images])

    @property
    def bicubic_psnr(self) -> float:
        return _mean([image.bicubic_psnr for image in self.images])

    @property
    def bicubic_ssim(self) -> float:
        return _mean([image.bicubic_ssim for image in self.images])

    def as_json(self) -> dict[str, Any]:
        """The scores as JSON values; JSON has no infinity, so an infinite PSNR becomes ``None``."""
        return {
            "scale": self.scale,
            "psnr": _finite(self.psnr),
            "ssim": self.ssim,
            "bicubic_psnr": _finite(self.bicubic_psnr),
            "bicubic_ssim": self.bicubic_ssim,
            "images": [{key: _finite(value) for key, value in asdict(image).items()} for image in self.images],
        }


def load_pairs(folder: Path, scale: int) -> Iterator[tuple[str, ImageArray, ImageArray]]:
    """The test images of a folder as ``(file name, low resolution [h, w, 3], high resolution [hs, ws, 3])``.

    ``folder`` holds high-resolution images, or ``HR/`` with them. Where ``LRx{scale}/`` stands beside
    ``HR/``, its files of the same names are the inputs, otherwise they are made by our bicubic reduction. The
    high-resolution image is cropped top-left to a multiple of the scale.

    Raises:
        HwnasError: naming the file, if one is unreadable, lacks its input or is of another size than that
            asks for.
    """
    low_folder = _low_resolution_folder(folder, scale)
    for path in high_resolution_images(folder):
        hr = crop_to_multiple(read_image(path), scale)
        if low_folder is None:
            if not hr.size:
                raise HwnasError(f"{path} is too small to be reduced by {scale}; remove it")
            yield path.name, downscale(hr, scale), hr
            continue
        low_path = low_folder / path.name
        if not low_path.exists():
            raise HwnasError(f"{low_path} is missing, the input that belongs to {path}; add it, or remove {low_folder}")
        lr = read_image(low_path)
        height, width = lr.shape[0] * scale, lr.shape[1] * scale
        if hr.shape[:2] != (height, width):
            raise HwnasError(
                f"{path} is {hr.shape[1]}x{hr.shape[0]}, not {scale} times its input {low_path} "
                f"({width}x{height}); replace one of them"
            )
        yield path.name, lr, hr


def evaluate(upscaler: Upscaler, folder: Path, scale: int, progress: Callable[[int], None] | None = None) -> Evaluation:
    """Score ``upscaler`` on every image of ``folder``; see `load_pairs` and `evaluate_pairs`.

    Raises:
        HwnasError: naming the file, for everything that is wrong with an image.
        ValueError: if the upscaler returns another size than it should.
    """
    return evaluate_pairs(upscaler, load_pairs(folder, scale), scale, progress)


def evaluate_pairs(
    upscaler: Upscaler,
    pairs: Iterable[tuple[str, ImageArray, ImageArray]],
    scale: int,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score ``upscaler`` on images.

    Args:
        upscaler: takes uint8 ``[h, w, 3]``, returns uint8 ``[h * scale, w * scale, 3]``.
        pairs: name, low-resolution and high-resolution image of each.
        scale: the factor, also the border that the metrics leave out.
        progress: called with the number of images done after each.

    Raises:
        HwnasError: if an image is too small to be scored.
        ValueError: if the upscaler returns another size than it should.
    """
    scores: list[ImageScore] = []
    for name, lr, hr in pairs:
        sr = upscaler(lr)
        if sr.shape != hr.shape:
            raise ValueError(f"the upscaler made {list(sr.shape)} of {name}, whose x{scale} is {list(hr.shape)}")
        bicubic = upscale(lr, scale)
        try:
            score = ImageScore(
                name=name,
                psnr=metrics.psnr(sr, hr, scale),
                ssim=metrics.ssim(sr, hr, scale),
                bicubic_psnr=metrics.psnr(bicubic, hr, scale),
                bicubic_ssim=metrics.ssim(bicubic, hr, scale),
            )
        except ValueError as error:
            raise HwnasError(f"cannot score {name}: {error}; remove it") from error
        scores.append(score)
        if progress is not None:
            progress(len(scores))
    return Evaluation(scale=scale, images=tuple(scores))


def _low_resolution_folder(folder: Path, scale: int) -> Path | None:
    low = folder / f"LRx{scale}"
    return low if (folder / "HR").is_dir() and low.is_dir() else None


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
