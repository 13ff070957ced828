"""Against the benchmark inputs that the field distributes, and the textbook formula in floating point."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hwnas.data.degradation import crop_to_multiple, downscale, upscale
from hwnas.data.images import ImageArray, read_image

SHARED_DATA = Path(__file__).resolve().parents[2] / "../shared/data"
BENCHMARK_IMAGES = sorted(SHARED_DATA.glob("Set*/HR/*.png"))

needs_benchmarks = pytest.mark.skipif(
    not BENCHMARK_IMAGES, reason="no benchmark images in shared/data beside the checkout"
)


def keys_cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def resize_by_definition(image: ImageArray, factor: float) -> ImageArray:
    """A dense matrix per axis, built from the kernel as papers write it."""
    for axis in (0, 1):
        size = image.shape[axis]
        out = round(size * factor)
        widening = max(1, 1 / factor)
        centres = (np.arange(out) + 0.5) / factor - 0.5
        taps = np.arange(-40, size + 40)
        dense = keys_cubic((centres[:, None] - taps) / widening)
        dense /= dense.sum(axis=1, keepdims=True)
        matrix = np.zeros((out, size))
        np.add.at(matrix.T, np.clip(taps, 0, size - 1), dense.T)
        result = np.moveaxis(np.tensordot(matrix, image.astype(float), (1, axis)), 0, axis)
        # Weights with a third in them miss an exact half by a rounding error; the nudge restores it.
        image = np.clip(np.floor(result + 0.5 + 1e-9), 0, 255).astype(np.uint8)
    return image


@needs_benchmarks
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("path", BENCHMARK_IMAGES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_benchmarks_inputs_are_reproduced_bit_for_bit(path: Path, scale: int) -> None:
    distributed = read_image(path.parents[1] / f"LRx{scale}" / path.name)
    np.testing.assert_array_equal(downscale(crop_to_multiple(read_image(path), scale), scale), distributed)


@needs_benchmarks
def test_all_nineteen_benchmark_images_are_there() -> None:
    assert len(BENCHMARK_IMAGES) == 19


@settings(max_examples=40, deadline=None)
@given(data=st.data(), scale=st.integers(1, 8), height=st.integers(1, 6), width=st.integers(1, 6))
def test_both_directions_follow_the_definition(data: st.DataObject, scale: int, height: int, width: int) -> None:
    small = data.draw(arrays.arrays(np.uint8, (height, width, 3)))
    np.testing.assert_array_equal(upscale(small, scale), resize_by_definition(small, scale))
    large = data.draw(arrays.arrays(np.uint8, (height * scale, width * scale, 1)))
    np.testing.assert_array_equal(downscale(large, scale), resize_by_definition(large, 1 / scale))


@given(level=st.integers(0, 255), scale=st.integers(1, 8))
def test_a_flat_image_stays_flat(level: int, scale: int) -> None:
    flat = np.full((scale * 2, scale * 3, 3), level, np.uint8)
    assert (downscale(flat, scale) == level).all()
    assert (upscale(flat, scale) == level).all()


def test_cropping_keeps_the_top_left() -> None:
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    np.testing.assert_array_equal(crop_to_multiple(image, 4), image[:4, :8])


def test_sides_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(ValueError, match="a 9x8 image has no exact 1/4; crop it"):
        downscale(np.zeros((8, 9, 3), np.uint8), 4)


@pytest.mark.parametrize("scale", [0, 9])
def test_impossible_scales_are_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="not between 1 and 8"):
        upscale(np.zeros((8, 8, 3), np.uint8), scale)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a non-empty uint8 image"):
        downscale(image, 2)
