"""Crops cut where images stay against those that are cut on the processor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.data.crops import ImagePairs
from hwnas.data.resident import Crops

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def pairs(scale: int) -> ImagePairs:
    """Of three sizes, none of them square."""
    rng = np.random.default_rng(0)
    shapes = ((41, 36), (32, 50), (60, 33))
    return ImagePairs.prepare(
        [(f"{i}", rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for i, shape in enumerate(shapes)], scale
    )


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.integers(2, 4),
    crop=st.integers(1, 8),
    indices=st.sampled_from([None, [1], [2, 0]]),
)
def test_they_are_the_same_to_the_last_bit(
    device: str, seed: int, scale: int, crop: int, indices: list[int] | None
) -> None:
    images = pairs(scale)
    crops = Crops(images, torch.device(device))
    expected = images.sample(np.random.default_rng(seed), 7, crop, indices)
    for resident in (False, True):
        if resident:
            crops.stay()
        rng = np.random.default_rng(seed)
        for found, wanted in zip(crops.sample(rng, 7, crop, indices), expected, strict=True):
            assert found.dtype == torch.float32 and found.device.type == device
            assert torch.equal(found.cpu(), wanted)
        assert rng.integers(1 << 30) == _after(images, seed, crop, indices), "as much chance is used up"


def _after(images: ImagePairs, seed: int, crop: int, indices: list[int] | None) -> int:
    rng = np.random.default_rng(seed)
    images.sample(rng, 7, crop, indices)
    return int(rng.integers(1 << 30))


@pytest.mark.parametrize("resident", [False, True])
def test_the_low_resolution_is_channels_last(resident: bool) -> None:
    crops = Crops(pairs(2), torch.device("cpu"))
    if resident:
        crops.stay()
    lr, hr = crops.sample(np.random.default_rng(0), 3, 6)
    assert lr.is_contiguous(memory_format=torch.channels_last) and hr.is_contiguous()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_images_stay_on_a_gpu_that_has_room_for_them() -> None:
    before = torch.cuda.memory_allocated()
    images = pairs(2)
    crops = Crops(images, torch.device("cuda"))
    assert torch.cuda.memory_allocated() - before >= images.pixels.nbytes
    assert crops.sample(np.random.default_rng(0), 2, 4)[0].is_cuda
