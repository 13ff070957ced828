"""Folders as users have them, and the published bicubic scores through the whole path."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hwnas.data.degradation import downscale, upscale
from hwnas.data.images import ImageArray, write_image
from hwnas.errors import HwnasError
from hwnas.evaluation import Evaluation, ImageScore, evaluate, load_pairs

SHARED_DATA = Path(__file__).resolve().parents[1] / "../shared/data"


def noise(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bicubic_x2(lr: ImageArray) -> ImageArray:
    return upscale(lr, 2)


@pytest.mark.parametrize(("name", "scale", "published"), [("Set5", 4, 28.42), ("Set5", 2, 33.64)])
def test_bicubic_on_set5_scores_as_published_next_to_itself(name: str, scale: int, published: float) -> None:
    if not (SHARED_DATA / name).is_dir():
        pytest.skip("no benchmark images in shared/data beside the checkout")
    evaluation = evaluate(lambda lr: upscale(lr, scale), SHARED_DATA / name, scale)
    assert evaluation.psnr == pytest.approx(published, abs=0.005)
    assert (evaluation.psnr, evaluation.ssim) == (evaluation.bicubic_psnr, evaluation.bicubic_ssim)
    assert [image.name for image in evaluation.images] == [f"img_00{i}.png" for i in range(1, 6)]


def test_a_plain_folder_is_degraded_by_us(tmp_path: Path) -> None:
    hr = noise(33, 30)
    write_image(tmp_path / "a.png", hr)
    [(name, lr, cropped)] = load_pairs(tmp_path, 2)
    assert name == "a.png"
    np.testing.assert_array_equal(cropped, hr[:32, :30])
    np.testing.assert_array_equal(lr, downscale(hr[:32, :30], 2))


def test_inputs_beside_hr_are_used_and_hr_is_cropped_to_them(tmp_path: Path) -> None:
    hr, lr = noise(35, 32), noise(17, 16, seed=1)
    write_image(tmp_path / "HR" / "a.png", hr)
    write_image(tmp_path / "LRx2" / "a.png", lr)
    [(_, got, cropped)] = load_pairs(tmp_path, 2)
    np.testing.assert_array_equal(got, lr)
    np.testing.assert_array_equal(cropped, hr[:34, :32])


def test_inputs_of_another_scale_are_not_used(tmp_path: Path) -> None:
    hr = noise(32, 32)
    write_image(tmp_path / "HR" / "a.png", hr)
    write_image(tmp_path / "LRx4" / "a.png", noise(8, 8))
    [(_, lr, _)] = load_pairs(tmp_path, 2)
    np.testing.assert_array_equal(lr, downscale(hr, 2))


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "HR" / name, noise(32, 32))
    write_image(tmp_path / "LRx2" / "a.png", noise(16, 16))
    with pytest.raises(HwnasError, match=r"LRx2/b\.png is missing.*HR/b\.png; add it"):
        list(load_pairs(tmp_path, 2))


@pytest.mark.parametrize(("lr", "asked"), [((16, 16), "32x32"), ((8, 7), "14x16")], ids=["larger", "of scale 4"])
def test_an_input_of_another_size_is_named(tmp_path: Path, lr: tuple[int, int], asked: str) -> None:
    write_image(tmp_path / "HR" / "a.png", noise(32, 30))
    write_image(tmp_path / "LRx2" / "a.png", noise(*lr))
    with pytest.raises(HwnasError, match=rf"HR/a\.png is 30x32, not 2 times its input.*\({asked}\)"):
        list(load_pairs(tmp_path, 2))


@pytest.mark.parametrize(("size", "message"), [(1, "too small to be reduced by 2"), (12, "cannot score a.png")])
def test_an_image_too_small_to_be_scored_is_named(tmp_path: Path, size: int, message: str) -> None:
    write_image(tmp_path / "a.png", noise(size, size))
    with pytest.raises(HwnasError, match=message):
        evaluate(bicubic_x2, tmp_path, 2)


def test_an_upscaler_of_another_scale_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(32, 32))
    with pytest.raises(ValueError, match=r"made \[48, 48, 3\] of a\.png, whose x2 is \[32, 32, 3\]"):
        evaluate(lambda lr: upscale(lr, 3), tmp_path, 2)


def test_progress_counts_the_images(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / f"{i}.png", noise(32, 32, seed=i))
    seen: list[int] = []
    evaluate(bicubic_x2, tmp_path, 2, progress=seen.append)
    assert seen == [1, 2, 3]


def test_summaries_are_means_over_images() -> None:
    evaluation = Evaluation(4, (ImageScore("a", 30, 0.8, 28, 0.7), ImageScore("b", 20, 0.6, 19, 0.5)))
    assert evaluation.psnr == 25
    assert evaluation.ssim == pytest.approx(0.7)
    assert evaluation.bicubic_psnr == 23.5
    assert evaluation.bicubic_ssim == pytest.approx(0.6)


def test_json_has_no_infinity() -> None:
    evaluation = Evaluation(2, (ImageScore("a.png", math.inf, 1.0, 28.5, 0.5),))
    expected = {"psnr": None, "ssim": 1.0, "bicubic_psnr": 28.5, "bicubic_ssim": 0.5}
    text = json.dumps(evaluation.as_json(), allow_nan=False)
    assert json.loads(text) == {"scale": 2, **expected, "images": [{"name": "a.png", **expected}]}
