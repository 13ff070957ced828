"""Tiled equals whole, for a real convolutional network with zero padding and for every ragged size."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.tiling import tile_spans, upscale_in_windows, upscale_tiled

SCALE = 2
RECEPTIVE_RADIUS = 3


def network() -> torch.nn.Module:
    """Three 3x3 convolutions; whole-number weights in double precision add up exactly in any order."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 3 * SCALE**2, 3, padding=1),
        torch.nn.PixelShuffle(SCALE),
    ).double()
    for parameter in layers.parameters():
        parameter.data = torch.randint(-3, 4, parameter.shape, generator=generator).double()
    return layers


NETWORK = network()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny convolutions: on a busy machine each would wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.no_grad()
def enlarge(image: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    return NETWORK(x)[0].permute(1, 2, 0).numpy()


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.integers(2, 16),
    overlap=st.integers(RECEPTIVE_RADIUS, 6),
)
def test_tiles_that_see_the_receptive_field_give_exactly_the_whole(
    height: int, width: int, tile: int, overlap: int
) -> None:
    image = photo(height, width)
    np.testing.assert_array_equal(upscale_tiled(enlarge, image, SCALE, tile, overlap), enlarge(image))


def test_less_overlap_than_the_receptive_field_shows() -> None:
    image = photo(40, 40)
    assert (upscale_tiled(enlarge, image, SCALE, 8, RECEPTIVE_RADIUS - 1) != enlarge(image)).any()


@given(size=st.integers(1, 200), tile=st.integers(1, 50), overlap=st.integers(0, 20))
def test_spans_cover_everything_once_with_enough_context(size: int, tile: int, overlap: int) -> None:
    spans = list(tile_spans(size, tile, overlap))
    kept = [i for span in spans for i in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(size))
    assert len({span.stop - span.start for span in spans}) == 1
    for span in spans:
        assert span.stop - span.start <= tile + 2 * overlap
        assert span.start <= max(0, span.keep_start - overlap)
        assert span.stop >= min(size, span.keep_stop + overlap)


def test_an_image_that_fits_is_enlarged_in_one_call() -> None:
    calls: list[tuple[int, ...]] = []

    def counted(image: np.ndarray) -> np.ndarray:
        calls.append(image.shape)
        return enlarge(image)

    upscale_tiled(counted, photo(16, 10), SCALE, tile=16, overlap=4)
    assert calls == [(16, 10, 3)]


def test_every_call_has_the_same_size() -> None:
    shapes = set()

    def watched(image: np.ndarray) -> np.ndarray:
        shapes.add(image.shape)
        return enlarge(image)

    upscale_tiled(watched, photo(50, 37), SCALE, tile=10, overlap=3)
    assert shapes == {(16, 16, 3)}


def test_the_dtype_is_the_upscalers() -> None:
    def repeat(image: np.ndarray) -> np.ndarray:
        return image.repeat(2, axis=0).repeat(2, axis=1)

    image = photo(9, 9)
    tiled = upscale_tiled(repeat, image, 2, tile=4, overlap=0)
    assert tiled.dtype == np.uint8
    np.testing.assert_array_equal(tiled, repeat(image))


def test_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"made \[32, 32\] of a tile, not \[64, 64\]; it does not enlarge by 4"):
        upscale_tiled(enlarge, photo(16, 16), 4, tile=16, overlap=0)


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (4, -1)])
def test_impossible_tiles_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        upscale_tiled(enlarge, photo(8, 8), SCALE, tile, overlap)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="empty image"):
        upscale_tiled(enlarge, np.zeros((0, 8, 3), np.uint8), SCALE, 4, 0)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 50), width=st.integers(20, 50))
def test_windows_make_the_image_that_the_whole_makes(height: int, width: int) -> None:
    """Where the image is no smaller than they are, and a quarter of one is more than the network's reach."""
    window, image = (16, 20), photo(height, width)

    def of_one_size(piece: np.ndarray) -> np.ndarray:
        assert piece.shape[:2] == window
        return enlarge(piece)

    found = upscale_in_windows(of_one_size, image, SCALE, window, RECEPTIVE_RADIUS)
    np.testing.assert_array_equal(found, enlarge(image))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (10, 50), (40, 7)])
def test_an_image_smaller_than_a_window_is_continued(height: int, width: int) -> None:
    found = upscale_in_windows(enlarge, photo(height, width), SCALE, (16, 20), RECEPTIVE_RADIUS)
    assert found.shape == (height * SCALE, width * SCALE, 3)
    # The upper left corner is far from where it was continued.
    rows, columns = (max(0, side - RECEPTIVE_RADIUS) * SCALE for side in (height, width))
    np.testing.assert_array_equal(found[:rows, :columns], enlarge(photo(height, width))[:rows, :columns])
