"""Killed, interrupted, resumed: in the end the same files as without, to the last bit."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hwnas.data.images import find_images

START = Callable[..., "subprocess.Popen[str]"]

# More epochs than the other tests: there has to be something left when the first is over.
SEARCH = ("--budget", "50MBitOps", "--set", "search.epochs=4", "--set", "search.steps_per_epoch=3")
TRAINING = ("--set", "train.epochs=4", "--set", "train.steps_per_epoch=6")


def _files(run: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in names}


# Killed from outside, a fast training could be over before the signal arrives.
_MORTAL = """
import os, signal, sys
words, write = sys.argv.pop(1), sys.stderr.write
def dying(text):
    write(text)
    if words in text:
        os.kill(os.getpid(), signal.SIGKILL)
sys.stderr.write = dying
from hwnas.cli.main import main
sys.exit(main())
"""


def _kill_at(words: str, *arguments: str | Path) -> None:
    """Run a command in a process that dies by SIGKILL when it says ``words``."""
    command = [sys.executable, "-c", _MORTAL, words, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def _stop_after(process: subprocess.Popen[str], words: str, what: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as a line with ``words`` is on stderr; the exit code and what came after."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            process.send_signal(what)
            break
    else:
        pytest.fail(f"it ended before {words!r} was said: {seen}")
    _, rest = process.communicate(timeout=60)
    return process.returncode, rest


@pytest.fixture(scope="module")
def uninterrupted(hwnas: Any, tiny: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing disturbed."""
    path = tmp_path_factory.mktemp("uninterrupted") / "search"
    answer = hwnas("search", *tiny, *SEARCH, "--out", path)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture(scope="module")
def trained(hwnas: Any, tiny_training: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantisation-aware training that nothing disturbed."""
    path = tmp_path_factory.mktemp("trained") / "espcn"
    answer = hwnas("train", "espcn", "--bits", "4", *tiny_training, *TRAINING, "--out", path)
    assert answer.code == 0, answer.err
    return path


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Ctrl-C right after the n-th state of a module was saved: the end of that epoch."""

    def arm(module: str, epochs: int) -> None:
        import importlib

        target = importlib.import_module(module)
        save, count = target.save_state, 0

        def interrupted(*arguments: Any) -> None:
            nonlocal count
            save(*arguments)
            count += 1
            if count == epochs:
                raise KeyboardInterrupt

        monkeypatch.setattr(target, "save_state", interrupted)

    yield arm


def test_a_killed_search_ends_where_an_undisturbed_one_does(
    hwnas: Any, tiny: Sequence[str], uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _kill_at("search epoch 2/", "search", *tiny, *SEARCH, "--out", run)
    assert not (run / "architecture.json").exists()
    answer = hwnas("search", "--resume", "--out", run)
    assert answer.code == 0, answer.err
    assert "search epoch 1/" not in answer.err, "it began again"
    results = ("architecture.json", "front.csv")
    assert _files(run, results) == _files(uninterrupted, results)


def test_a_killed_training_ends_where_an_undisturbed_one_does(
    hwnas: Any, tiny_training: Sequence[str], trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ("train", "espcn", "--bits", "4", *tiny_training, *TRAINING, "--out", run)
    _kill_at("epoch 2/", *command)
    answer = hwnas(*command, "--resume")
    assert answer.code == 0, answer.err
    assert "epoch 1/" not in answer.err, "it began again"
    assert "epoch 4/" in answer.err
    _same_tensors(run, trained)


def _same_tensors(run: Path, other: Path) -> None:
    found, expected = (load_file(path / "weights.safetensors") for path in (run, other))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_ctrl_c_says_how_to_go_on(start: START, tiny: Sequence[str], tmp_path: Path) -> None:
    process = start("search", *tiny, *SEARCH, "--set", "search.epochs=1000", "--out", tmp_path / "run")
    code, rest = _stop_after(process, "search epoch 1/", signal.SIGINT)
    assert code == 130
    assert "Traceback" not in rest
    last = rest.splitlines()[-1]
    assert last.startswith("error: interrupted")
    assert "--resume" in last


def test_ctrl_c_promises_no_resume_where_there_is_none(
    hwnas: Any, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwnas.evaluation.evaluate", interrupted)
    answer = hwnas("evaluate", "bicubic", "--data", photographs)
    assert (answer.code, answer.err) == (130, "error: interrupted\n")


@pytest.mark.usefixtures("listens")
def test_ctrl_c_that_a_module_swallows_ends_the_command_all_the_same(
    hwnas: Any, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules written in C do so while they are imported."""

    def swallowing(folder: Path) -> list[Path]:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return find_images(folder)

    monkeypatch.setattr("hwnas.data.images.find_images", swallowing)
    answer = hwnas("upscale", "bicubic", photographs, tmp_path / "out")
    assert (answer.code, answer.err) == (130, "error: interrupted\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("listens")
def test_ctrl_c_that_a_module_turns_into_an_error_is_no_bug(
    hwnas: Any, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path) -> list[Path]:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        raise AssertionError("no interrupt came")

    monkeypatch.setattr("hwnas.data.images.find_images", failing)
    answer = hwnas("upscale", "bicubic", photographs, tmp_path / "out")
    assert (answer.code, answer.err) == (130, "error: interrupted\n")


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        pytest.param(signal.SIGINT, 0.3, marks=pytest.mark.slow),
        (signal.SIGINT, 1.0),
        pytest.param(signal.SIGINT, 2.5, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2.5, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_modules_load_ends_the_command(
    start: START, tiny: Sequence[str], out: Path, number: signal.Signals, seconds: float
) -> None:
    process = start("search", *tiny, *SEARCH, "--set", "search.epochs=1000", "--out", out)
    time.sleep(seconds)
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    # By the signal itself before the command has begun.
    assert process.returncode in (130, -number)
    assert "Traceback" not in told and "bug" not in told
    assert said == ""


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_search_can_be_stopped_after_any_epoch(
    hwnas: Any,
    tiny: Sequence[str],
    uninterrupted: Path,
    interrupt_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epoch: int,
) -> None:
    run = tmp_path / "run"
    interrupt_after("hwnas.searches.differentiable.session", epoch)
    stopped = hwnas("search", *tiny, *SEARCH, "--out", run)
    assert stopped.code == 130
    assert not (run / "front.csv").exists()
    monkeypatch.undo()
    resumed = hwnas("search", "--resume", "--out", run)
    assert resumed.code == 0, resumed.err
    assert f"search epoch {epoch}/4" not in resumed.err, "it went on from an earlier epoch"
    results = ("architecture.json", "front.csv")
    assert _files(run, results) == _files(uninterrupted, results)


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_training_can_be_stopped_after_any_epoch(
    hwnas: Any,
    tiny_training: Sequence[str],
    trained: Path,
    interrupt_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epoch: int,
) -> None:
    run = tmp_path / "run"
    command = ("train", "espcn", "--bits", "4", *tiny_training, *TRAINING, "--out", run)
    interrupt_after("hwnas.training.train", epoch)
    assert hwnas(*command).code == 130
    monkeypatch.undo()
    resumed = hwnas(*command, "--resume")
    assert resumed.code == 0, resumed.err
    _same_tensors(run, trained)


def test_a_training_does_not_change_its_target_half_way(
    hwnas: Any,
    tiny_training: Sequence[str],
    interrupt_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    interrupt_after("hwnas.training.train", 1)
    assert hwnas("train", "espcn", "--bits", "8", *tiny_training, *TRAINING, "--out", tmp_path / "run").code == 130
    monkeypatch.undo()
    settings = tmp_path / "run" / "config.yaml"
    cpu = settings.read_text()
    settings.write_text(cpu.replace("target: cpu", "target: snapdragon"))
    answer = hwnas("train", tmp_path / "run", "--resume")
    assert "is being trained for another kind of target" in answer.error(1)
    settings.write_text(cpu)
    assert hwnas("train", tmp_path / "run", "--resume").code == 0


@pytest.mark.parametrize("epoch", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_adadm_is_frozen_in_the_same_epoch_when_resumed(
    hwnas: Any,
    tiny_training: Sequence[str],
    interrupt_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    epoch: int,
) -> None:
    # The published network has AdaDM; half of its four epochs are frozen.
    command = ("train", "quantnas-body3", *tiny_training, *TRAINING, "--set", "train.freeze=0.5")
    assert hwnas(*command, "--out", tmp_path / "whole").code == 0
    interrupt_after("hwnas.training.train", epoch)
    assert hwnas(*command, "--out", tmp_path / "parts").code == 130
    monkeypatch.undo()
    resumed = hwnas(*command, "--out", tmp_path / "parts", "--resume")
    assert resumed.code == 0, resumed.err
    _same_tensors(tmp_path / "parts", tmp_path / "whole")


def test_a_whole_run_interrupted_in_its_training_ends_the_same(
    hwnas: Any,
    tiny: Sequence[str],
    finished: Any,
    interrupt_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    interrupt_after("hwnas.training.train", 1)
    assert hwnas("run", *tiny, "--budget", "50MBitOps", "--out", run).code == 130
    monkeypatch.undo()
    resumed = hwnas("run", "--resume", "--out", run, "--json")
    assert resumed.code == 0, resumed.err
    assert "search epoch" not in resumed.err
    results = ("architecture.json", "front.csv", "weights.safetensors", "summary.md")
    assert _files(run, results) == _files(finished.path, results)
    assert resumed.json["psnr"] == finished.answer.json["psnr"]


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (("--seed", "1"), "seed was 0, is 1"),
        (("--budget", "60MBitOps"), "budgets was ['50MBitOps'], is ['60MBitOps']"),
        (("--set", "search.epochs=9"), "search.epochs was 3, is 9"),
        (("--channels", "12"), "space.channels was 6, is 12"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(hwnas: Any, run: Path, change: tuple[str, str], setting: str) -> None:
    before = (run / "config.yaml").read_bytes()
    answer = hwnas("run", "--resume", "--out", run, *change)
    assert answer.code == 2
    assert answer.err.startswith("error:")
    assert setting in answer.err
    assert (run / "config.yaml").read_bytes() == before


def test_a_finished_run_stays_as_it_is_however_often_it_is_resumed(hwnas: Any, run: Path) -> None:
    results = (
        "config.yaml",
        "architecture.json",
        "front.csv",
        "weights.safetensors",
        "summary.md",
        "model.onnx",
    )
    before = _files(run, results)
    for _ in range(2):
        answer = hwnas("run", "--resume", "--out", run, "--json")
        assert answer.code == 0, answer.err
        assert " epoch " not in f" {answer.err}", "something was searched or trained again"
        assert _files(run, results) == before
    trained = hwnas("train", run, "--resume", "--json")
    assert trained.code == 0, trained.err
    assert _files(run, results) == before


@pytest.mark.usefixtures("listens")
def test_ctrl_c_during_an_import_waits_for_its_end(
    hwnas: Any, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code in C++ that an import runs may abort the process at an exception."""
    (tmp_path / "pressed.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nloaded = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def importing(folder: Path) -> list[Path]:
        seen.append(importlib.import_module("pressed").loaded)
        return find_images(folder)

    monkeypatch.setattr("hwnas.data.images.find_images", importing)
    answer = hwnas("upscale", "bicubic", photographs, tmp_path / "out")
    assert (answer.code, answer.err, seen) == (130, "error: interrupted\n", [True])
