"""Bad input is answered with one line that says what to do, and leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

BUDGET = ("--budget", "50MBitOps")
FAILURE, USAGE = 1, 2


def _only_error(answer: Any, code: int) -> str:
    """The error line of an answer that failed with ``code`` and said nothing else."""
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    return _error(answer, code)


def _error(answer: Any, code: int) -> str:
    return str(answer.error(code))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run would be."""
    return tmp_path / "out"


@pytest.fixture
def folder(photographs: Path, tmp_path: Path) -> Path:
    """Photographs to be spoiled."""
    return Path(shutil.copytree(photographs, tmp_path / "folder"))


# Images.


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


SPOILED: list[tuple[Callable[[Path], None], str]] = [
    (_missing, "there is no folder"),
    (_empty, "no images in"),
    (_single, "holds a single image; give at least two"),
    (_truncated, "2.png: "),
    (_text, "1.png: "),
    (_nothing_in, "3.png: "),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
@pytest.mark.parametrize("command", ["search", "run"])
def test_a_search_names_what_is_wrong_with_the_photographs(
    hwnas: Any,
    tiny: tuple[str, ...],
    folder: Path,
    out: Path,
    command: str,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(folder)
    answer = hwnas(command, *tiny, "--data", folder, *BUDGET, "--out", out)
    assert message in _error(answer, FAILURE)
    assert not out.exists()


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_a_training_names_what_is_wrong_with_the_photographs(
    hwnas: Any,
    tiny_training: tuple[str, ...],
    folder: Path,
    out: Path,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    spoil(folder)
    answer = hwnas("train", "espcn", *tiny_training, "--data", folder, "--out", out)
    assert message in _only_error(answer, FAILURE)
    assert not out.exists()


@pytest.mark.parametrize(("spoil", "message"), [case for case in SPOILED if case[0] is not _single])
def test_an_evaluation_names_what_is_wrong_with_the_photographs(
    hwnas: Any, folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    assert message in _only_error(hwnas("evaluate", "bicubic", "--data", folder, "--json"), FAILURE)


def test_images_smaller_than_the_crop_are_named_with_the_crop_that_fits(
    hwnas: Any, tiny: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("search", *tiny, "--crop", "25", *BUDGET, "--out", out)
    message = _error(answer, FAILURE)
    assert "too small" in message
    assert "--crop 24" in message
    assert not out.exists()
    # The advice holds, and the command can be repeated as it was.
    assert hwnas("search", *tiny, "--crop", "24", *BUDGET, "--out", out).code == 0


def test_a_training_says_which_small_images_it_leaves_out(
    hwnas: Any, tiny_training: tuple[str, ...], folder: Path, out: Path
) -> None:
    with Image.open(folder / "1.png") as image:
        image.crop((0, 0, 40, 88)).save(folder / "1.png")
    answer = hwnas("train", "espcn", *tiny_training, "--data", folder, "--crop", "12", "--out", out)
    assert answer.code == 0, answer.err
    assert "1.png (40x88): too small for crops of 48x48" in answer.err and "left out" in answer.err


def test_a_training_with_too_large_crops_names_the_crop_that_fits(
    hwnas: Any, tiny_training: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("train", "espcn", *tiny_training, "--crop", "25", "--out", out)
    assert "--crop 24" in _only_error(answer, FAILURE)
    assert not out.exists()


def test_upscaling_what_is_no_image_leaves_nothing(hwnas: Any, folder: Path, tmp_path: Path) -> None:
    _truncated(folder)
    message = _only_error(hwnas("upscale", "bicubic", folder / "2.png", tmp_path / "large.png"), FAILURE)
    assert "2.png" in message
    assert not (tmp_path / "large.png").exists()


def test_upscaling_what_is_missing_says_so(hwnas: Any, tmp_path: Path) -> None:
    assert "none.png" in _only_error(
        hwnas("upscale", "bicubic", tmp_path / "none.png", tmp_path / "large.png"), FAILURE
    )


def test_upscaling_into_an_unknown_format_says_which_there_are(hwnas: Any, photographs: Path, tmp_path: Path) -> None:
    answer = hwnas("upscale", "bicubic", photographs / "0.png", tmp_path / "large.xyz")
    assert "png" in _only_error(answer, USAGE)


def test_the_originals_are_never_replaced(hwnas: Any, folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for source, destination in ((folder, folder), (folder / "0.png", folder / "0.png"), (folder / "0.png", folder)):
        assert "would replace" in _only_error(hwnas("upscale", "bicubic", source, destination), USAGE)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("scale", ["0", "-1", "9"])
def test_a_factor_that_bicubic_has_not_is_refused(hwnas: Any, photographs: Path, scale: str) -> None:
    answer = hwnas("evaluate", "bicubic", "--data", photographs, "--scale", scale)
    assert f"--scale {scale}" in _only_error(answer, USAGE)


def test_another_factor_than_the_networks_is_refused(hwnas: Any, espcn: Any, photographs: Path) -> None:
    for network in (espcn.path, espcn.path / "model.onnx"):
        answer = hwnas("evaluate", network, "--data", photographs, "--scale", "2")
        assert "enlarges by 4, not by 2" in _only_error(answer, USAGE)


# Names and settings.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "mars"), "no target is called 'mars'; there are: cpu"),
        (("--preset", "huge"), "no preset is called 'huge'; there are: tiny, small, paper"),
        (("--algorithm", "magic"), "no algorithm is called 'magic'; there are: "),
        (("--space", "outer"), "no space is called 'outer'; there are: quantnas, quantnas-float"),
        (("--budget", "5"), "'5' is not a budget"),
        (("--budget", "5GWishes"), "no cost is counted in 'GWishes'"),
        (("--budget", "0GBitOps"), "is zero"),
        (("--budget", "-5GBitOps"), "is not a budget"),
        (("--budget", "5GBitOps@32"), "is not an input size"),
        (("--input-size", "large"), "is not an input size"),
        (("--set", "search.nonsense=3"), "search.nonsense"),
        (("--set", "nonsense=3"), "nonsense"),
        (("--set", "search.epochs"), "--set name=value"),
        (("--set", "search.epochs=many"), "search.epochs"),
        (("--set", "search.epochs=0"), "search.epochs"),
        (("--set", "search=3"), "search"),
        (("--set", "train.crop=2"), "train.crop"),
        (("--bits", "4,x"), "--bits 4,x"),
        (("--bits", "9"), "9"),
        (("--bits", "1"), "1"),
        (("--scale", "7"), "scale"),
        (("--cells", "0"), "cells"),
        (("--channels", "0"), "channels"),
        (("--channels", "7"), "channels"),
        (("--penalty", "-1"), "penalty"),
        (("--quantization", "magic"), "quantization"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(
    hwnas: Any, tiny: tuple[str, ...], out: Path, arguments: tuple[str, str], message: str
) -> None:
    answer = hwnas("search", *tiny, *BUDGET, "--out", out, *arguments)
    assert message in _only_error(answer, USAGE)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("cost", "mystery"),
        ("cost", "nowhere.json"),
        ("train", "mystery"),
        ("evaluate", "mystery", "--data", "."),
        ("upscale", "mystery", "in.png", "out.png"),
        ("export", "mystery"),
    ],
)
def test_an_unknown_network_is_named(hwnas: Any, arguments: tuple[str, ...]) -> None:
    assert arguments[1] in _only_error(hwnas(*arguments), USAGE)


def test_unknown_names_are_answered_with_the_known_ones(hwnas: Any) -> None:
    assert "espcn, quantnas-body3, srresnet" in _only_error(hwnas("cost", "mystery"), USAGE)
    assert "bitops, flops, memory, params" in _only_error(hwnas("cost", "espcn", "--metric", "beauty"), USAGE)


def test_a_budget_below_the_minimum_is_refused_with_what_there_is(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    answer = hwnas("run", *tiny, "--budget", "1MBitOps", "--out", out)
    message = _only_error(answer, USAGE)
    assert all(word in message for word in ("minimum", "centre", "maximum", "1 MBitOps at 32x32"))
    assert not out.exists()


def test_what_the_refusal_calls_the_minimum_can_be_met(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    message = hwnas("search", *tiny, "--budget", "1MBitOps", "--out", out).err
    number, unit = message.partition("minimum is ")[2].split()[:2]
    enough = f"{number}{unit.strip(',')}"
    answer = hwnas("search", *tiny, "--budget", enough, "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["costs"]["bitops"] == pytest.approx(float(number) * 1e6, rel=1e-3)


@pytest.mark.parametrize("stage", ["search", "train"])
def test_an_unknown_precision_is_refused(hwnas: Any, tiny: tuple[str, ...], out: Path, stage: str) -> None:
    command = ("search", *tiny, *BUDGET) if stage == "search" else ("train", "espcn", *tiny[:2], "--crop", "8")
    answer = hwnas(*command, "--set", f"{stage}.precision=3.5-bit", "--out", out)
    assert f"{stage}.precision: Input should be '32-true'" in _error(answer, USAGE)
    assert not out.exists()


def test_a_settings_file_that_is_none_is_named(hwnas: Any, tiny: tuple[str, ...], out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "settings.yaml"
    for content in (b"a: [", b"just words", b"\xff\xfe\x00", b""):
        broken.write_bytes(content)
        answer = hwnas("search", *tiny, *BUDGET, "--config", broken, "--out", out)
        assert str(broken) in _only_error(answer, FAILURE)
    missing = hwnas("search", *tiny, *BUDGET, "--config", tmp_path / "none.yaml", "--out", out)
    assert "none.yaml" in _only_error(missing, FAILURE)
    assert not out.exists()


# Where to write.


def test_a_folder_of_other_files_is_left_alone(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    for resume in ((), ("--resume",)):
        answer = hwnas("search", *tiny, *BUDGET, "--out", out, *resume)
        assert "is not a run of hwnas; choose another --out" in _only_error(answer, USAGE)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_run_is_not_begun_again_without_being_asked(hwnas: Any, tiny: tuple[str, ...], run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command in ("search", "run"):
        assert "--resume" in _only_error(hwnas(command, *tiny, *BUDGET, "--out", run), USAGE)
    assert "--resume" in _only_error(hwnas("train", run), USAGE)
    assert "--resume" in _only_error(hwnas("train", "espcn", "--out", run), USAGE)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_place_that_cannot_be_written_is_named(hwnas: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    answer = hwnas("search", *tiny, *BUDGET, "--out", tmp_path / "file" / "run")
    assert "cannot create" in _only_error(answer, FAILURE)
    assert (tmp_path / "file").read_text() == "a regular file"


def test_an_export_that_cannot_be_written_is_named(hwnas: Any, finished: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    answer = hwnas("export", finished.path, "-o", tmp_path / "file" / "model.onnx")
    assert "cannot write" in _only_error(answer, FAILURE)


def test_a_model_that_computes_something_else_is_refused_and_removed(
    hwnas: Any, espcn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hwnas.exporters import deploy, parity

    monkeypatch.setattr(deploy, "QUANTISED_TOLERANCE", parity.Tolerance(mean=-1, maximum=-1))
    answer = hwnas("export", espcn.path, "--mixed", "-o", tmp_path / "model.onnx")
    assert "does not compute what the network computes" in _only_error(answer, FAILURE)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that 24 kB fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs a small file system of its own, and may not mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    hwnas: Any, tiny: tuple[str, ...], finished: Any, full_disk: Path
) -> None:
    answer = hwnas("export", finished.path, "-o", full_disk / "model.onnx")
    message = _only_error(answer, FAILURE)
    assert "No space left on device" in message
    assert list(full_disk.iterdir()) == []
    answer = hwnas("search", *tiny, *BUDGET, "--out", full_disk / "run")
    assert "No space left on device" in _error(answer, FAILURE)
    assert not list(full_disk.rglob(".*")), "temporary files stay behind"
    assert not (full_disk / "run" / "architecture.json").exists()


# Damaged files.


def _unfinished(run: Path) -> Path:
    """The run as it was after its search's last epoch, before the result was written."""
    for name in (
        "architecture.json",
        "front.csv",
        "weights.safetensors",
        "model.onnx",
        "summary.md",
        "train/state.pt",
    ):
        (run / name).unlink()
    return run / "search" / "state.pt"


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_search_state_is_named(hwnas: Any, run: Path, content: bytes | None) -> None:
    state = _unfinished(run)
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = _error(hwnas("search", "--resume", "--out", run), FAILURE)
    assert str(state) in message
    assert "delete it to begin" in message
    # The advice holds.
    state.unlink()
    assert hwnas("search", "--resume", "--out", run).code == 0


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_training_state_is_named(hwnas: Any, run: Path, content: bytes | None) -> None:
    state = run / "train" / "state.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = _error(hwnas("train", "--resume", run), FAILURE)
    assert str(state) in message
    assert "delete it to begin" in message
    state.unlink()
    assert hwnas("train", "--resume", run).code == 0


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"epoch": 1},
        {"architecture": None, "network": 3},
        {"architecture": "other"},
        {"supernet": {}, "epoch": "x"},
        [1, 2],
    ],
)
def test_a_state_of_something_else_is_named(hwnas: Any, run: Path, state: Any) -> None:
    torch.save(state, run / "train" / "state.pt")
    assert str(run / "train" / "state.pt") in _error(hwnas("train", "--resume", run), FAILURE)
    torch.save(state, _unfinished(run))
    assert str(run / "search" / "state.pt") in _error(hwnas("search", "--resume", "--out", run), FAILURE)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_a_pickle_is_never_run(hwnas: Any, run: Path, tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    crater = tmp_path / "crater"
    write({"epoch": _Bomb(crater)}, run / "train" / "state.pt")
    assert "state.pt" in _error(hwnas("train", "--resume", run), FAILURE)
    write({"epoch": _Bomb(crater)}, _unfinished(run))
    assert "state.pt" in _error(hwnas("search", "--resume", "--out", run), FAILURE)
    assert not crater.exists()


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_named(hwnas: Any, run: Path, photographs: Path, keep: int) -> None:
    weights = run / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    for command in (
        ("evaluate", run, "--data", photographs),
        ("export", run),
        ("evaluate", weights, "--data", "x"),
    ):
        message = _only_error(hwnas(*command), FAILURE)
        assert str(weights) in message
        assert "damaged" in message


def test_weights_of_another_program_are_named(hwnas: Any, run: Path, photographs: Path) -> None:
    weights = run / "weights.safetensors"
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, weights)
    message = _only_error(hwnas("evaluate", run, "--data", photographs), FAILURE)
    assert "was not written by hwnas" in message


def test_weights_that_do_not_fit_their_record_are_named(hwnas: Any, run: Path, photographs: Path) -> None:
    from safetensors import safe_open

    weights = run / "weights.safetensors"
    with safe_open(weights, framework="np") as file:
        record = file.metadata()
    tensors = load_file(weights)
    tensors.pop(next(name for name in tensors if name.endswith("weight")))
    save_file(tensors, weights, record)
    assert str(weights) in _only_error(hwnas("evaluate", run, "--data", photographs), FAILURE)
    save_file(tensors, weights, {"hwnas": "{}"})
    assert str(weights) in _only_error(hwnas("evaluate", run, "--data", photographs), FAILURE)
    save_file(tensors, weights, {"hwnas": "not json"})
    assert str(weights) in _only_error(hwnas("evaluate", run, "--data", photographs), FAILURE)


def test_a_run_without_weights_says_what_makes_them(hwnas: Any, searched: Any, photographs: Path) -> None:
    for command in (("evaluate", searched.path, "--data", photographs), ("export", searched.path)):
        assert "hwnas train" in _only_error(hwnas(*command), FAILURE)


@pytest.mark.parametrize("keep", [0, 40, -100])
def test_a_damaged_model_is_named(process: Any, run: Path, photographs: Path, keep: int, hwnas: Any) -> None:
    model = run / "model.onnx"
    model.write_bytes(model.read_bytes()[:keep])
    # ONNX Runtime writes past Python's streams: once in a process of its own.
    command = process if keep == -100 else hwnas
    message = _only_error(command("evaluate", model, "--data", photographs), FAILURE)
    assert f"{model} is not an ONNX file, or is damaged" in message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 99}', '{"wiring": {"kind": "magic"}}'])
def test_an_architecture_file_that_is_none_is_named(hwnas: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(content)
    assert str(path) in _only_error(hwnas("cost", path), FAILURE)


# Training that goes wrong.


def test_a_search_that_diverges_says_which_setting_to_lower(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    answer = hwnas("search", *tiny, *BUDGET, "--set", "search.learning_rate=1e30", "--out", out)
    message = _error(answer, FAILURE)
    assert "search.learning_rate" in message
    assert not (out / "architecture.json").exists()
    assert not (out / "front.csv").exists()


def test_a_training_that_diverges_says_which_setting_to_lower(
    hwnas: Any, tiny_training: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("train", "espcn", *tiny_training, "--set", "train.learning_rate=1e30", "--out", out)
    assert "train.learning_rate" in _error(answer, FAILURE)
    assert not (out / "weights.safetensors").exists()


# The traceback.


def test_an_error_of_several_lines_is_told_in_one(hwnas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwnas.errors import HwnasError

    def fail(*_: Any) -> None:
        raise HwnasError("one [bold]\ntwo")

    monkeypatch.setattr("hwnas.cli.resolve.resolve_architecture", fail)
    assert _only_error(hwnas("cost", "espcn"), FAILURE) == "error: one [bold] two"


def test_the_traceback_is_for_those_who_ask(process: Any) -> None:
    plain = process("cost", "mystery")
    assert "Traceback" not in plain.err
    _only_error(plain, USAGE)
    debug = process("cost", "mystery", "--debug")
    assert debug.code == USAGE
    assert debug.err.startswith("Traceback")
    assert "UsageError" in debug.err
    assert debug.err.splitlines()[-1] == plain.err.strip()


def test_a_picture_of_one_colour_is_enlarged_like_any_other(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "red.png")
    assert hwnas("upscale", espcn.path, tmp_path / "red.png", tmp_path / "large.png").code == 0
    assert Image.open(tmp_path / "large.png").size == (64, 64)
