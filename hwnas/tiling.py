"""Enlarging images that do not fit in memory, or in a compiled network's fixed input, piece by piece.

A convolutional network whose receptive field reaches no further than ``overlap`` pixels gives exactly what it
would give for the whole image: every piece sees that much of its surroundings, and the image's own border
stays a border, zero padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """One tile along one axis, in low-resolution pixels: what the network sees and what is kept of it."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def tile_spans(size: int, tile: int, overlap: int) -> Iterator[Span]:
    """Cover ``0..size`` with kept parts that neither overlap nor leave gaps.

    All spans have the same length, ``min(size, tile + 2 * overlap)``: the last one moves inwards rather than
    shrink, so a runtime that plans or compiles per input size does so once.
    """
    window = min(size, tile + 2 * overlap)
    last = size - window
    kept = 0
    for start in (*range(0, last, tile), last):
        keep_stop = size if start == last else start + overlap + tile
        yield Span(start, start + window, kept, keep_stop)
        kept = keep_stop


def upscale_tiled(
    upscaler: Callable[[np.ndarray], np.ndarray], image: np.ndarray, scale: int, tile: int, overlap: int
) -> np.ndarray:
    """Enlarge ``image`` in tiles.

    Args:
        upscaler: takes ``[h, w, C]``, returns ``[h * scale, w * scale, C]``.
        image: low-resolution ``[H, W, C]``.
        scale: what ``upscaler`` enlarges by.
        tile: side of the part that a tile contributes, in low-resolution pixels.
        overlap: low-resolution pixels of context around it. An image whose sides are no longer than
            ``tile + 2 * overlap`` is enlarged in a single call.

    Returns:
        ``[H * scale, W * scale, C]`` of the upscaler's dtype.

    Raises:
        ValueError: if the upscaler does not enlarge by ``scale``, or ``tile`` or ``overlap`` make no sense.
    """
    if tile < 1 or overlap < 0:
        raise ValueError(f"tile {tile} must be at least 1 and overlap {overlap} at least 0")
    if not image.size:
        raise ValueError(f"cannot enlarge an empty image of shape {list(image.shape)}")
    rows, columns = (list(tile_spans(side, tile, overlap)) for side in image.shape[:2])
    return _assembled(upscaler, image, scale, rows, columns)


def upscale_in_windows(
    upscaler: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    scale: int,
    window: tuple[int, int],
    overlap: int,
) -> np.ndarray:
    """Enlarge ``image`` by an upscaler that takes ``window`` (height, width) and nothing else.

    A side that is shorter than the window is continued by its last pixels; the border between them is none for the
    network, which matters within its reach. The overlap is at most a quarter of the window.
    """
    height, width = image.shape[:2]
    missing = [max(0, side - have) for side, have in zip(window, (height, width), strict=True)]
    padded = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    spans = []
    for side, whole in zip(window, padded.shape, strict=False):
        context = min(overlap, side // 4)
        spans.append(list(tile_spans(whole, side - 2 * context, context)))
    return _assembled(upscaler, padded, scale, *spans)[: height * scale, : width * scale]


def _assembled(
    upscaler: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    scale: int,
    rows: list[Span],
    columns: list[Span],
) -> np.ndarray:
    height, width = image.shape[:2]
    out: np.ndarray | None = None
    for y in rows:
        for x in columns:
            piece = upscaler(image[y.start : y.stop, x.start : x.stop])
            expected = ((y.stop - y.start) * scale, (x.stop - x.start) * scale)
            if piece.shape[:2] != expected:
                raise ValueError(
                    f"the upscaler made {list(piece.shape[:2])} of a tile, not {list(expected)}; "
                    f"it does not enlarge by {scale}"
                )
            if out is None:
                out = np.empty((height * scale, width * scale, *piece.shape[2:]), piece.dtype)
            out[_scaled(y.keep_start, y.keep_stop, scale), _scaled(x.keep_start, x.keep_stop, scale)] = piece[
                _scaled(y.keep_start - y.start, y.keep_stop - y.start, scale),
                _scaled(x.keep_start - x.start, x.keep_stop - x.start, scale),
            ]
    assert out is not None  # an image that is not empty has at least one tile
    return out


def _scaled(start: int, stop: int, scale: int) -> slice:
    return slice(start * scale, stop * scale)
