"""Files of a run that are damaged or of something else are named, and never executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

FAILURE = 1


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
    message = hwnas("search", "--resume", "--out", run).error(FAILURE)
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
    message = hwnas("train", "--resume", run).error(FAILURE)
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
    assert str(run / "train" / "state.pt") in hwnas("train", "--resume", run).error(FAILURE)
    torch.save(state, _unfinished(run))
    assert str(run / "search" / "state.pt") in hwnas("search", "--resume", "--out", run).error(FAILURE)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
def test_a_pickle_is_never_run(hwnas: Any, run: Path, tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    crater = tmp_path / "crater"
    write({"epoch": _Bomb(crater)}, run / "train" / "state.pt")
    assert "state.pt" in hwnas("train", "--resume", run).error(FAILURE)
    write({"epoch": _Bomb(crater)}, _unfinished(run))
    assert "state.pt" in hwnas("search", "--resume", "--out", run).error(FAILURE)
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
        message = hwnas(*command).only_error(FAILURE)
        assert str(weights) in message
        assert "damaged" in message


def test_weights_of_another_program_are_named(hwnas: Any, run: Path, photographs: Path) -> None:
    weights = run / "weights.safetensors"
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, weights)
    message = hwnas("evaluate", run, "--data", photographs).only_error(FAILURE)
    assert "was not written by hwnas" in message


def test_weights_that_do_not_fit_their_record_are_named(hwnas: Any, run: Path, photographs: Path) -> None:
    from safetensors import safe_open

    weights = run / "weights.safetensors"
    with safe_open(weights, framework="np") as file:
        record = file.metadata()
    tensors = load_file(weights)
    tensors.pop(next(name for name in tensors if name.endswith("weight")))
    save_file(tensors, weights, record)
    assert str(weights) in hwnas("evaluate", run, "--data", photographs).only_error(FAILURE)
    save_file(tensors, weights, {"hwnas": "{}"})
    assert str(weights) in hwnas("evaluate", run, "--data", photographs).only_error(FAILURE)
    save_file(tensors, weights, {"hwnas": "not json"})
    assert str(weights) in hwnas("evaluate", run, "--data", photographs).only_error(FAILURE)


def test_a_run_without_weights_says_what_makes_them(hwnas: Any, searched: Any, photographs: Path) -> None:
    for command in (("evaluate", searched.path, "--data", photographs), ("export", searched.path)):
        assert "hwnas train" in hwnas(*command).only_error(FAILURE)


@pytest.mark.parametrize("keep", [0, 40, -100])
def test_a_damaged_model_is_named(process: Any, run: Path, photographs: Path, keep: int, hwnas: Any) -> None:
    model = run / "model.onnx"
    model.write_bytes(model.read_bytes()[:keep])
    # ONNX Runtime writes past Python's streams: once in a process of its own.
    command = process if keep == -100 else hwnas
    message = command("evaluate", model, "--data", photographs).only_error(FAILURE)
    assert f"{model} is not an ONNX file, or is damaged" in message


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 99}', '{"wiring": {"kind": "magic"}}'])
def test_an_architecture_file_that_is_none_is_named(hwnas: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(content)
    assert str(path) in hwnas("cost", path).only_error(FAILURE)


@pytest.mark.parametrize("cut", [None, 100])
def test_lost_weights_of_a_finished_training_are_not_reported_as_trained(
    hwnas: Any, run: Path, cut: int | None
) -> None:
    weights, state = run / "weights.safetensors", run / "train" / "state.pt"
    content = weights.read_bytes()
    weights.unlink()
    if cut is not None:
        weights.write_bytes(content[:cut])
    message = hwnas("train", run, "--resume").error(FAILURE)
    assert str(weights) in message and f"delete {state}" in message
    # The advice holds.
    state.unlink()
    assert hwnas("train", run, "--resume").code == 0
    assert weights.read_bytes() == content


def test_a_lost_front_is_named(hwnas: Any, run: Path) -> None:
    front = (run / "front.csv").read_bytes()
    (run / "front.csv").unlink()
    message = hwnas("search", "--resume", "--out", run).error(FAILURE)
    assert f"delete {run / 'architecture.json'}" in message
    (run / "architecture.json").unlink()
    assert hwnas("search", "--resume", "--out", run).code == 0
    assert (run / "front.csv").read_bytes() == front


def test_a_damaged_training_state_does_not_stand_in_the_way_of_an_export(hwnas: Any, run: Path, tmp_path: Path) -> None:
    (run / "train" / "state.pt").write_bytes(b"garbage")
    assert hwnas("export", run, "-o", tmp_path / "model.onnx").code == 0
