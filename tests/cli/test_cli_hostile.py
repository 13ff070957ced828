"""Files that lie, names that are not names, and settings that cannot work: one line, and nothing is overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

FAILURE, USAGE = 1, 2


@pytest.fixture
def espcn_json(tmp_path: Path) -> Path:
    """ESPCN x2 as a file."""
    from hwnas.spaces import named_architecture

    path = tmp_path / "espcn.json"
    named_architecture("espcn", scale=2).save(path)
    return path


def _changed(path: Path, **fields: Any) -> Path:
    content = json.loads(path.read_text())
    content.update(fields)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "", "[red]a", "a\nb", "\ud800", "a" * 101])
def test_the_name_in_an_architecture_file_is_no_path_and_no_markup(hwnas: Any, espcn_json: Path, name: str) -> None:
    _changed(espcn_json, name=name)
    assert "name" in hwnas("cost", espcn_json).error(FAILURE)


@pytest.mark.parametrize("sizes", [{"kernel": 1_000_001}, {"hidden": 8}, {"groups": 2}])
def test_impossible_operators_in_an_architecture_file_are_refused(
    hwnas: Any, espcn_json: Path, sizes: dict[str, int]
) -> None:
    operators = json.loads(espcn_json.read_text())["operators"]
    operators["conv.1"].update(sizes)
    if "groups" in sizes:
        operators["conv.1"].update(kind="separable_conv", hidden=8)
    answer = hwnas("cost", _changed(espcn_json, operators=operators))
    assert next(iter(sizes)) in answer.error(FAILURE) or "too many to be traced" in answer.error(FAILURE)


@pytest.mark.parametrize("command", ["upscale", "evaluate"])
@pytest.mark.parametrize(("key", "value"), [("scale", "3"), ("scale", "9" * 5000)])
def test_a_network_that_states_another_scale_than_it_has_is_refused(
    hwnas: Any, espcn: Any, photographs: Path, tmp_path: Path, command: str, key: str, value: str
) -> None:
    model = onnx.load(espcn.path / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
    onnx.save(model, tmp_path / "liar.onnx")
    rest = (photographs / "0.png", tmp_path / "out.png") if command == "upscale" else ("--data", photographs)
    assert "scale" in hwnas(command, tmp_path / "liar.onnx", *rest).error(FAILURE)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--seed", "-1"), "seed"),
        (("--penalty", "inf"), "penalty"),
        (("--set", "search.precision=64-true"), "precision"),
        (("--set", "train.precision=bf16-true"), "precision"),
        (("--set", "search.warmup_epochs=3"), "leaves none to search in"),
        (("--budget", "90MBitOps@64x64"), "two budgets bound bitops"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    hwnas: Any, tiny: Sequence[str], tmp_path: Path, option: tuple[str, str], message: str
) -> None:
    out = tmp_path / "out"
    assert message in hwnas("search", *tiny, "--budget", "50MBitOps", *option, "--out", out).error(USAGE)
    assert not out.exists()


@pytest.mark.parametrize("side", [8, 16])
def test_a_held_out_image_too_small_to_be_scored_is_named_before_the_search(
    hwnas: Any, tiny: Sequence[str], photographs: Path, tmp_path: Path, side: int
) -> None:
    folder, out = Path(shutil.copytree(photographs, tmp_path / "folder")), tmp_path / "out"
    for path in folder.iterdir():  # whichever is held out
        with Image.open(path) as image:
            image.crop((0, 0, side, side)).save(path)
    message = hwnas("run", *tiny, "--data", folder, "--budget", "50MBitOps", "--out", out).error(FAILURE)
    assert "too small to be scored" in message and "remove it" in message
    assert not out.exists()


def test_resuming_with_another_network_leaves_the_run_as_it_is(
    hwnas: Any, tiny_training: Sequence[str], finished: Any, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    before = (run / "architecture.json").read_bytes()
    answer = hwnas("train", "espcn", "--out", run, "--resume")
    assert answer.code != 0
    assert (run / "architecture.json").read_bytes() == before

    own = tmp_path / "espcn8"
    assert hwnas("train", "espcn", "--bits", "8", *tiny_training, "--out", own).code == 0
    before = (own / "architecture.json").read_bytes()
    message = hwnas("train", "espcn", "--bits", "4", *tiny_training, "--out", own, "--resume").error(USAGE)
    assert "espcn-8bit" in message and "--out" in message
    assert (own / "architecture.json").read_bytes() == before


@pytest.mark.parametrize("option", [("--scale", "4"), ("--bicubic",)])
def test_what_an_architecture_file_decides_is_not_silently_asked_otherwise(
    hwnas: Any, tiny_training: Sequence[str], espcn_json: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    assert option[0].strip("-") in hwnas("train", espcn_json, *tiny_training, *option, "--out", out).error(USAGE)
    assert not out.exists()
    answer = hwnas("train", espcn_json, *tiny_training, "--out", out)
    assert answer.code == 0, answer.err
    assert "scale: 2" in (out / "config.yaml").read_text()


def test_a_folder_called_like_markup_is_shown_as_it_is(
    hwnas: Any, tiny: Sequence[str], photographs: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photographs, tmp_path / "x[/y]"))
    (folder / "0.png").rename(folder / "[best].png")
    answer = hwnas("evaluate", "bicubic", "--data", folder)
    assert answer.code == 0 and "[best].png" in answer.out
    out = tmp_path / "run[/z]"
    answer = hwnas("search", *tiny, "--budget", "50MBitOps", "--out", out)
    assert answer.code == 0, answer.err
    assert "run[/z]" in answer.out.replace("\n", "")


@pytest.mark.parametrize("command", ["export", "evaluate", "upscale"])
def test_an_architecture_changed_after_the_training_is_noticed(
    hwnas: Any, finished: Any, photographs: Path, tmp_path: Path, command: str
) -> None:
    run = Path(shutil.copytree(finished.path, tmp_path / "run"))
    operators = json.loads((run / "architecture.json").read_text())["operators"]
    operators["head.0"].update(kind="conv", kernel=7, hidden=None)
    _changed(run / "architecture.json", operators=operators)
    rest: dict[str, tuple[str | Path, ...]] = {
        "export": ("-o", tmp_path / "new.onnx"),
        "evaluate": ("--data", photographs),
        "upscale": (photographs / "0.png", tmp_path / "new.png"),
    }
    assert "architecture.json was changed after" in hwnas(command, run, *rest[command]).error(FAILURE)
    assert not (tmp_path / "new.onnx").exists()


def test_what_a_user_may_have_overlooked_is_said(
    hwnas: Any, tiny: Sequence[str], tiny_training: Sequence[str], tmp_path: Path
) -> None:
    """No budget, a training that is not over."""
    searched = hwnas("search", *tiny, "--out", tmp_path / "search")
    assert searched.code == 0, searched.err
    assert "no --budget" in searched.err

    run = tmp_path / "train"
    assert hwnas("train", "espcn", *tiny_training, "--out", run).code == 0
    exported = hwnas("export", run, "-o", tmp_path / "all.onnx")
    assert exported.code == 0 and "are left" not in exported.err
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  epochs: 2\n", "  epochs: 5\n"))
    exported = hwnas("export", run, "-o", tmp_path / "part.onnx")
    assert exported.code == 0 and "3 epochs of its training are left" in exported.err


def test_a_single_image_can_be_enlarged_into_a_folder(hwnas: Any, photographs: Path, tmp_path: Path) -> None:
    assert hwnas("upscale", "bicubic", photographs / "0.png", tmp_path / "new").code == 0
    assert (tmp_path / "new" / "0.png").is_file()
