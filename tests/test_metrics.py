"""Against the scores published for bicubic enlargement, torchmetrics, and the definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from torchmetrics.functional.image import structural_similarity_index_measure

from hwnas.data.degradation import upscale
from hwnas.data.images import ImageArray, read_image
from hwnas.metrics import psnr, ssim, to_luma

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"


def photograph_like(seed: int, height: int = 48, width: int = 40) -> ImageArray:
    """Noise with structure on several scales, so that SSIM has something to correlate."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, (height, width, 3))
    return np.clip(upscale(coarse, 8).astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "scale", "published"),
    [("Set5", 2, 33.64), ("Set5", 4, 28.42), ("Set14", 2, 30.31), ("Set14", 4, 26.09)],
)
def test_bicubic_scores_what_the_benchmarks_say(name: str, scale: int, published: float) -> None:
    inputs = sorted((SHARED_DATA / name / f"LRx{scale}").glob("*.png"))
    if not inputs:
        pytest.skip("no benchmark images in shared/data beside the checkout")
    scores = []
    for path in inputs:
        sr = upscale(read_image(path), scale)
        hr = read_image(path.parents[1] / "HR" / path.name)[: sr.shape[0], : sr.shape[1]]
        scores.append(psnr(sr, hr, shave=scale))
    assert np.mean(scores) == pytest.approx(published, abs=0.005)


def test_luma_is_bt601_rounded() -> None:
    image = photograph_like(0)
    np.testing.assert_array_equal(to_luma(image), np.floor(rgb2ycbcr(image)[:, :, 0] + 0.5))


def test_luma_of_black_and_white_is_16_and_235() -> None:
    assert to_luma(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).tolist() == [[16, 235]]


@pytest.mark.parametrize("difference", [1, 5, 100])
def test_psnr_of_a_constant_difference_is_exact(difference: int) -> None:
    # 255 grey levels make 219 of luma: levels 0 and 255 d / 219 differ by d.
    a = np.zeros((12, 12, 3), np.uint8)
    b = np.full((12, 12, 3), round(255 * difference / 219), np.uint8)
    assert psnr(a, b, shave=2) == pytest.approx(20 * math.log10(255 / difference), abs=1e-12)


def test_identical_images_have_infinite_psnr_and_ssim_one() -> None:
    image = photograph_like(1)
    assert psnr(image, image, shave=4) == math.inf
    assert ssim(image, image, shave=4) == pytest.approx(1)


def test_shaved_pixels_do_not_count() -> None:
    image = photograph_like(2)
    spoilt = image.copy()
    spoilt[:3] = spoilt[-3:] = spoilt[:, :3] = spoilt[:, -3:] = 0
    assert psnr(spoilt, image, shave=3) == math.inf
    assert ssim(spoilt, image, shave=3) == pytest.approx(1)
    assert math.isfinite(psnr(spoilt, image, shave=2))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), shave=st.integers(0, 8), noise=st.integers(0, 60))
def test_ssim_agrees_with_torchmetrics_where_windows_lie_inside(seed: int, shave: int, noise: int) -> None:
    hr = photograph_like(seed)
    rng = np.random.default_rng(seed)
    sr = np.clip(hr + rng.integers(-noise, noise + 1, hr.shape), 0, 255).astype(np.uint8)
    inner = np.s_[shave : 48 - shave, shave : 40 - shave]
    a, b = (torch.from_numpy(to_luma(image)[inner])[None, None] for image in (sr, hr))
    _, local = structural_similarity_index_measure(
        a, b, sigma=1.5, data_range=255.0, reduction="none", return_full_image=True
    )
    # torchmetrics 1.9 averages over windows that reach beyond the border too, on reflected pixels.
    expected = float(local[0, 0, 5:-5, 5:-5].mean())
    assert ssim(sr, hr, shave) == pytest.approx(expected, abs=1e-9)


def test_ssim_needs_one_whole_window() -> None:
    image = photograph_like(3)
    assert ssim(image[:15, :15], image[:15, :15], shave=2) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"a 15x14 image is too small.*at least 11x11 must remain"):
        ssim(image[:14, :15], image[:14, :15], shave=2)


def test_psnr_needs_one_pixel() -> None:
    image = photograph_like(4)[:4, :4]
    with pytest.raises(ValueError, match="at least 1x1 must remain"):
        psnr(image, image, shave=2)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric: object) -> None:
    image = photograph_like(5)
    assert callable(metric)
    with pytest.raises(ValueError, match=r"shapes \[48, 40, 3\] and \[47, 40, 3\]"):
        metric(image, image[1:], 2)
