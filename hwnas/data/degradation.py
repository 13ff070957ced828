"""The low-resolution image the field means by "bicubic", bit for bit.

Benchmarks distribute inputs made by MATLAB's ``imresize``; a model trained on any other downscaling is tested
on images it has never seen the like of. The recipe: Keys' cubic with a = -0.5, widened by the scale when
shrinking, edges replicated, height first and then width, each pass rounded half up and clipped to uint8.

For an integer scale all weights are fractions with the denominator ``16 * scale**3`` (times ``scale`` when
shrinking), so both directions are computed in exact integers: no rounding error can flip a pixel.
"""

from __future__ import annotations

import numpy as np

from hwnas.data.images import ImageArray

# More than anyone enlarges at once; the integer sums below fit 32 bits up to 24.
MAX_SCALE = 8


def crop_to_multiple(image: ImageArray, scale: int) -> ImageArray:
    """The largest top-left part of ``image [H, W, C]`` whose height and width are multiples of ``scale``."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def downscale(image: ImageArray, scale: int) -> ImageArray:
    """Bicubic reduction with antialiasing.

    Args:
        image: uint8 ``[H, W, C]``, both sides multiples of ``scale`` (see `crop_to_multiple`).
        scale: integer factor, 1..8.

    Returns:
        uint8 ``[H / scale, W / scale, C]``.

    Raises:
        ValueError: if a side is no multiple of ``scale``, or is zero.
    """
    _check(image, scale)
    if image.shape[0] % scale or image.shape[1] % scale:
        raise ValueError(
            f"a {image.shape[1]}x{image.shape[0]} image has no exact 1/{scale}; crop it with crop_to_multiple first"
        )
    for axis in (0, 1):
        image = _shrink(image, scale, axis)
    return image


def upscale(image: ImageArray, scale: int) -> ImageArray:
    """Bicubic enlargement, the baseline that every network has to beat.

    Args:
        image: uint8 ``[H, W, C]``.
        scale: integer factor, 1..8.

    Returns:
        uint8 ``[H * scale, W * scale, C]``.
    """
    _check(image, scale)
    for axis in (0, 1):
        image = _enlarge(image, scale, axis)
    return image


def _check(image: ImageArray, scale: int) -> None:
    if not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"scale {scale} is not between 1 and {MAX_SCALE}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
        raise ValueError(f"expected a non-empty uint8 image [H, W, C], got {image.dtype} {list(image.shape)}")


def _cubic(numerator: int, scale: int) -> int:
    """Keys' kernel (a = -0.5) at ``numerator / (2 scale)``, times ``16 scale**3``: always an integer."""
    x, unit = abs(numerator), 2 * scale
    if x <= unit:
        return 3 * x**3 - 5 * x**2 * unit + 2 * unit**3
    if x < 2 * unit:
        return -(x**3) + 5 * x**2 * unit - 8 * x * unit**2 + 4 * unit**3
    return 0


def _shrink(image: ImageArray, scale: int, axis: int) -> ImageArray:
    # Output i is centred on input (i + 1/2) scale - 1/2 and reaches 2 scale to either side of it, so tap t of
    # every output is the same weight on a strided slice of the padded input.
    reach = 3 * scale // 2
    size = image.shape[axis] // scale
    padded = _replicate(image, axis, reach)
    taps = range(-reach, scale + reach)
    weights = [_cubic(2 * tap + 1 - scale, scale) for tap in taps]
    span = (size - 1) * scale + 1
    parts = [padded[_along(axis, slice(tap + reach, tap + reach + span, scale))] for tap in taps]
    return _weighted(parts, weights, 16 * scale**4)


def _enlarge(image: ImageArray, scale: int, axis: int) -> ImageArray:
    # Output i * scale + phase lies between the same neighbours of input i for every i: one weight per tap and
    # phase.
    size = image.shape[axis]
    padded = _replicate(image, axis, 2)
    shape = list(image.shape)
    shape[axis] *= scale
    out = np.empty(shape, np.uint8)
    for phase in range(scale):
        weights = [_cubic(2 * phase + 1 - scale - 2 * scale * tap, scale) for tap in range(-2, 3)]
        parts = [padded[_along(axis, slice(start, start + size))] for start in range(5)]
        out[_along(axis, slice(phase, None, scale))] = _weighted(parts, weights, 16 * scale**3)
    return out


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)


def _replicate(image: ImageArray, axis: int, margin: int) -> ImageArray:
    padding = [(0, 0)] * image.ndim
    padding[axis] = (margin, margin)
    return np.pad(image, padding, mode="edge")


def _weighted(parts: list[ImageArray], weights: list[int], denominator: int) -> ImageArray:
    """``sum(weight * part) / denominator``, rounded half up and clipped to uint8."""
    total = np.full(parts[0].shape, denominator // 2, np.int32)
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total += np.multiply(part, np.int32(weight), dtype=np.int32)
    return np.clip(total // denominator, 0, 255).astype(np.uint8)
