"""PSNR and SSIM as the super-resolution literature counts them, so that our numbers stand beside its tables.

The protocol: 8-bit images, the luma channel of BT.601 only, ``scale`` pixels shaved off every border (no
method is judged where it lacks context), the metric per image, then the mean over images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hwnas.data.images import ImageArray

Luma = npt.NDArray[np.float64]

# The window of Wang et al. (2004), holding a Gaussian with sigma 1.5; only windows inside the image count.
SSIM_WINDOW = 11


def to_luma(rgb: ImageArray) -> Luma:
    """BT.601 luma in 16..235, as MATLAB's ``rgb2ycbcr`` gives it for uint8 images: rounded to whole levels.

    Whether to round is a convention, and it moves PSNR. Bicubic enlargement of Set5 x2, Set5 x4, Set14 x2 and
    Set14 x4 scores 33.64, 28.42, 30.31 and 26.09 dB rounded, which is how the field's tables are made, and
    33.67, 28.43, 30.33 and 26.09 dB unrounded.

    Args:
        rgb: uint8 ``[H, W, 3]``.

    Returns:
        float64 ``[H, W]`` of whole numbers.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.floor(rgb.astype(np.float64) @ weights + 16.5)


def smallest_side(shave: int) -> int:
    """Pixels that both sides of an image need for both metrics."""
    return SSIM_WINDOW + 2 * shave


def psnr(sr: ImageArray, hr: ImageArray, shave: int) -> float:
    """Peak signal-to-noise ratio of the luma in dB; infinite for equal luma.

    Args:
        sr: the estimate, uint8 ``[H, W, 3]``.
        hr: the truth, of the same shape.
        shave: pixels ignored at every border; by convention the scale.

    Raises:
        ValueError: if the shapes differ or nothing is left after shaving.
    """
    a, b = _shaved_luma(sr, hr, shave, smallest=1)
    error = float(np.mean((a - b) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(sr: ImageArray, hr: ImageArray, shave: int) -> float:
    """Structural similarity (Wang et al., 2004) of the luma, at most 1; arguments as for `psnr`.

    Raises:
        ValueError: if the shapes differ or less than one 11x11 window is left after shaving.
    """
    from skimage.metrics import structural_similarity

    a, b = _shaved_luma(sr, hr, shave, smallest=SSIM_WINDOW)
    # Gaussian weights and population variances are Wang et al.'s; scikit-image's own defaults are not. Its
    # separable filter takes 1/50 of the time of torchmetrics' 11x11 convolution in double precision.
    similarity = structural_similarity(
        a, b, win_size=SSIM_WINDOW, gaussian_weights=True, use_sample_covariance=False, data_range=255
    )
    return float(similarity)


def _shaved_luma(sr: ImageArray, hr: ImageArray, shave: int, smallest: int) -> tuple[Luma, Luma]:
    if sr.shape != hr.shape or sr.ndim != 3 or sr.shape[2] != 3:
        raise ValueError(f"cannot compare images of shapes {list(sr.shape)} and {list(hr.shape)}; need equal [H, W, 3]")
    height, width = sr.shape[:2]
    if shave < 0 or min(height, width) < smallest + 2 * shave:
        raise ValueError(
            f"a {width}x{height} image is too small to measure: after shaving {shave} pixels off every "
            f"border at least {smallest}x{smallest} must remain"
        )
    inner = np.s_[shave : height - shave, shave : width - shave]
    return to_luma(sr[inner]), to_luma(hr[inner])
