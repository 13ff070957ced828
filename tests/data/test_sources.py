"""What users write after ``--data``, each kind once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.data import div2k
from hwnas.data.div2k import Archive
from hwnas.data.images import ImageArray, write_image
from hwnas.data.sources import load_training_data, split
from hwnas.errors import HwnasError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(seed: int) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (21, 22, 3), dtype=np.uint8)


def fill(folder: Path, count: int) -> None:
    for i in range(count):
        write_image(folder / f"{i:02}.png", noise(i))


def test_bundled_photographs_train_and_validate() -> None:
    data = load_training_data("bundled", scale=4, seed=0)
    assert len(data.train) == 13 and data.train.scale == 4
    assert [name for name, _ in data.validation] == ["chelsea", "coffee"]


@given(count=st.integers(2, 400), seed=st.integers(0, 50))
def test_a_split_holds_out_five_per_cent_and_loses_nothing(count: int, seed: int) -> None:
    images = [Path(f"{i:03}.png") for i in range(count)]
    training, held_out = split(images, seed)
    assert sorted([*training, *held_out]) == images
    assert training == sorted(training) and held_out == sorted(held_out)
    assert len(held_out) == max(1, min(10, round(count / 20)))
    assert split(images, seed) == (training, held_out)


def test_every_image_is_held_out_by_some_seed() -> None:
    images = [Path(f"{i}.png") for i in range(5)]
    counts = Counter(split(images, seed)[1][0] for seed in range(200))
    assert set(counts) == set(images)


def test_a_folder_is_split_and_its_validation_images_are_whole(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 4)
    data = load_training_data(str(tmp_path / "photos"), scale=4, seed=3)
    [(name, image)] = data.validation
    assert len(data.train) == 3 and name not in data.train.names
    np.testing.assert_array_equal(image, noise(int(Path(name).stem)))


def test_hr_inside_a_folder_is_used(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "HR", 3)
    fill(tmp_path / "set" / "LRx2", 3)
    assert len(load_training_data(str(tmp_path / "set"), scale=2, seed=0).train) == 2


def test_a_single_image_is_too_few(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 1)
    with pytest.raises(HwnasError, match=r"photos holds a single image; give at least two"):
        load_training_data(str(tmp_path / "photos"), scale=2, seed=0)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"there is no folder .*nowhere"):
        load_training_data(str(tmp_path / "nowhere"), scale=2, seed=0)


def test_div2k_validates_on_ten_of_its_own_validation_images(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An unpacked archive in the cache is all that a later run needs; nothing listens at this address.
    monkeypatch.setattr(div2k, "TRAIN", Archive("train", "http://127.0.0.1:9/train.zip", "0"))
    monkeypatch.setattr(div2k, "VALID", Archive("valid", "http://127.0.0.1:9/valid.zip", "0"))
    fill(cache / "train", 3)
    fill(cache / "valid", 12)
    data = load_training_data("div2k", scale=2, seed=0)
    assert data.train.names == ("00.png", "01.png", "02.png")
    assert [name for name, _ in data.validation] == [f"{i:02}.png" for i in range(10)]


def test_progress_says_what_is_being_done(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 3)
    seen: list[tuple[str, int, int]] = []
    load_training_data(
        str(tmp_path / "photos"), 2, 0, progress=lambda label, done, total: seen.append((label, done, total))
    )
    assert seen == [("preparing images", 1, 2), ("preparing images", 2, 2)]
