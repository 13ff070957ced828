"""Photographs that cannot be used are named, in one line that says what to do, and nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

BUDGET = ("--budget", "50MBitOps")
FAILURE, USAGE = 1, 2


def _missing(folder: Path) -> None:
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _single(folder: Path) -> None:
    for i in (1, 2, 3):
        (folder / f"{i}.png").unlink()


def _truncated(folder: Path) -> None:
    path = folder / "2.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(folder: Path) -> None:
    (folder / "1.png").write_text("no image at all")


def _nothing_in(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"")


SPOILED: list[tuple[Callable[[Path], None], str, int]] = [
    (_missing, "there is no folder", USAGE),
    (_empty, "no images in", FAILURE),
    (_single, "holds a single image; give at least two", FAILURE),
    (_truncated, "2.png: ", FAILURE),
    (_text, "1.png: ", FAILURE),
    (_nothing_in, "3.png: ", FAILURE),
]


@pytest.mark.parametrize(("spoil", "message", "code"), SPOILED)
@pytest.mark.parametrize("command", ["search", "run"])
def test_a_search_names_what_is_wrong_with_the_photographs(
    hwnas: Any,
    tiny: tuple[str, ...],
    folder: Path,
    out: Path,
    command: str,
    spoil: Callable[[Path], None],
    message: str,
    code: int,
) -> None:
    spoil(folder)
    answer = hwnas(command, *tiny, "--data", folder, *BUDGET, "--out", out)
    assert message in answer.error(code)
    assert not out.exists()


@pytest.mark.parametrize(("spoil", "message", "code"), SPOILED)
def test_a_training_names_what_is_wrong_with_the_photographs(
    hwnas: Any,
    tiny_training: tuple[str, ...],
    folder: Path,
    out: Path,
    spoil: Callable[[Path], None],
    message: str,
    code: int,
) -> None:
    spoil(folder)
    answer = hwnas("train", "espcn", *tiny_training, "--data", folder, "--out", out)
    assert message in answer.only_error(code)
    assert not out.exists()


@pytest.mark.parametrize(("spoil", "message", "code"), [case for case in SPOILED if case[0] is not _single])
def test_an_evaluation_names_what_is_wrong_with_the_photographs(
    hwnas: Any, folder: Path, spoil: Callable[[Path], None], message: str, code: int
) -> None:
    spoil(folder)
    assert message in hwnas("evaluate", "bicubic", "--data", folder, "--json").only_error(code)


def test_images_smaller_than_the_crop_are_named_with_the_crop_that_fits(
    hwnas: Any, tiny: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("search", *tiny, "--crop", "25", *BUDGET, "--out", out)
    message = answer.error(FAILURE)
    assert "too small" in message
    assert "--crop 24" in message
    assert not out.exists()
    # The advice holds, and the command can be repeated as it was.
    assert hwnas("search", *tiny, "--crop", "24", *BUDGET, "--out", out).code == 0


@pytest.mark.parametrize("command", ["train", "run"])
def test_which_small_images_are_left_out_is_said_once(
    hwnas: Any, tiny: tuple[str, ...], tiny_training: tuple[str, ...], folder: Path, out: Path, command: str
) -> None:
    with Image.open(folder / "1.png") as image:
        image.crop((0, 0, 40, 88)).save(folder / "1.png")
    start = ("train", "espcn", *tiny_training) if command == "train" else ("run", *tiny, *BUDGET)
    answer = hwnas(*start, "--data", folder, "--crop", "12", "--out", out)
    assert answer.code == 0, answer.err
    assert answer.err.count("1.png (40x88): too small for crops of 48x48") == 1 and "left out" in answer.err
    if command == "train":
        answer = hwnas("export", out, "--int8", "-o", out / "int8.onnx")
        assert answer.code == 0, answer.err
        assert answer.err.count("1.png (40x88): too small for crops of 48x48") == 1 and "left out" in answer.err


def test_a_training_with_too_large_crops_names_the_crop_that_fits(
    hwnas: Any, tiny_training: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("train", "espcn", *tiny_training, "--crop", "25", "--out", out)
    assert "--crop 24" in answer.only_error(FAILURE)
    assert not out.exists()


def test_upscaling_what_is_no_image_leaves_nothing(hwnas: Any, folder: Path, tmp_path: Path) -> None:
    _truncated(folder)
    message = hwnas("upscale", "bicubic", folder / "2.png", tmp_path / "large.png").only_error(FAILURE)
    assert "2.png" in message
    assert not (tmp_path / "large.png").exists()


def test_upscaling_what_is_missing_says_so(hwnas: Any, tmp_path: Path) -> None:
    answer = hwnas("upscale", "bicubic", tmp_path / "none.png", tmp_path / "large.png")
    assert "there is no" in answer.only_error(USAGE) and "none.png" in answer.err


def test_upscaling_a_folder_goes_on_after_an_image_that_cannot_be_read(
    hwnas: Any, folder: Path, tmp_path: Path
) -> None:
    _truncated(folder)
    message = hwnas("upscale", "bicubic", folder, tmp_path / "large").error(FAILURE)
    assert "1 of 4 images" in message and "2.png" in message
    assert sorted(path.name for path in (tmp_path / "large").iterdir()) == ["0.png", "1.png", "3.png"]


def test_upscaling_a_folder_of_which_nothing_can_be_read_promises_nothing(
    hwnas: Any, folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"")
    message = hwnas("upscale", "bicubic", folder, tmp_path / "large").error(FAILURE)
    assert "4 of 4 images" in message and "others" not in message
    assert not (tmp_path / "large").exists()


def test_upscaling_into_an_unknown_format_says_which_there_are(hwnas: Any, photographs: Path, tmp_path: Path) -> None:
    answer = hwnas("upscale", "bicubic", photographs / "0.png", tmp_path / "large.xyz")
    assert "png" in answer.only_error(USAGE)


def test_the_originals_are_never_replaced(hwnas: Any, folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for source, destination in ((folder, folder), (folder / "0.png", folder / "0.png"), (folder / "0.png", folder)):
        assert "would replace" in hwnas("upscale", "bicubic", source, destination).only_error(USAGE)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("scale", ["0", "-1", "9"])
def test_a_factor_that_bicubic_has_not_is_refused(hwnas: Any, photographs: Path, scale: str) -> None:
    answer = hwnas("evaluate", "bicubic", "--data", photographs, "--scale", scale)
    assert f"--scale {scale}" in answer.only_error(USAGE)


def test_another_factor_than_the_networks_is_refused(hwnas: Any, espcn: Any, photographs: Path) -> None:
    for network in (espcn.path, espcn.path / "model.onnx"):
        answer = hwnas("evaluate", network, "--data", photographs, "--scale", "2")
        assert "enlarges by 4, not by 2" in answer.only_error(USAGE)
