"""TrilevelNAS from the command line: searches, trainings, exports, and every way to ask for what cannot be."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_TRAINING, Finished, Hwnas

FAILED, USAGE = 1, 2
SETTINGS = ("epochs=3", "warmup_epochs=1", "steps_per_epoch=3", "batch=2", "crop=8", "front_points=3")


@pytest.fixture(scope="session")
def trilevel(photographs: Path) -> tuple[str, ...]:
    """Options of a search that takes seconds."""
    return (
        *("--algorithm", "trilevel", "--data", str(photographs), "--space", "trilevel-a", "--scale", "2"),
        *("--cells", "2", "--channels", "8", "--set", "space.layers=2"),
        *(part for setting in SETTINGS for part in ("--set", f"search.{setting}")),
        *("--set", "search.alpha_learning_rate=0.05", "--set", "train.crop=8", *TINY_TRAINING),
    )


@pytest.fixture(scope="session")
def found(hwnas: Hwnas, trilevel: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """What ``hwnas search --algorithm trilevel`` leaves; not to be changed."""
    path = tmp_path_factory.mktemp("trilevel") / "run"
    answer = hwnas("search", *trilevel, "--budget", "0.5GFLOPs", "--out", path, "--json")
    assert answer.code == 0, answer.err
    return Finished(path, answer)


def test_a_search_meets_its_budget_and_leaves_its_front(found: Finished) -> None:
    assert found.answer.json["costs"]["flops"] <= 0.5e9
    assert "space trilevel-a" in found.answer.err and "paths" in found.answer.err
    with (found.path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    costs = [float(row["flops"]) for row in rows]
    assert costs == sorted(costs) and sum(row["chosen"] == "1" for row in rows) == 1
    stated = json.loads((found.path / "architecture.json").read_text())
    assert stated["wiring"]["kind"] == "trilevel" and stated["wiring"]["path"].count(1) == 1


def test_what_was_found_is_trained_exported_and_scored(
    hwnas: Hwnas, found: Finished, tmp_path: Path, photographs: Path
) -> None:
    out = tmp_path / "trained"
    data = ("--data", photographs, "--set", "train.crop=8", *TINY_TRAINING)
    trained = hwnas("train", found.path / "architecture.json", *data, "--out", out, "--json")
    assert trained.code == 0, trained.err
    for precision in ((), ("--int8",)):
        exported = hwnas("export", out, *precision, "--json")
        assert exported.code == 0, exported.err
        scored = hwnas("evaluate", out / "model.onnx", "--data", photographs, "--json")
        assert scored.code == 0 and scored.json["psnr"] > 10
    quantised = hwnas("train", found.path / "architecture.json", *data, "--bits", "8", "--out", tmp_path / "q")
    assert quantised.code == 0, quantised.err
    assert hwnas("export", tmp_path / "q").code == 0


def test_a_network_is_trained_towards_a_teacher(
    hwnas: Hwnas, found: Finished, tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = ("--data", photographs, "--set", "train.crop=8", *TINY_TRAINING)
    teacher = tmp_path / "teacher"
    assert hwnas("train", "espcn", "--scale", "2", *data, "--out", teacher).code == 0
    taught = hwnas(
        "train", found.path / "architecture.json", *data, "--teacher", teacher, "--out", tmp_path / "student"
    )
    assert taught.code == 0, taught.err
    assert list((tmp_path / "cache").rglob("teacher-*.npy"))
    config = (tmp_path / "student" / "config.yaml").read_text()
    assert str(teacher) in config
    # Only the student is in its file.
    assert hwnas("evaluate", tmp_path / "student", "--data", photographs).code == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "1KFLOPs"], "its minimum is"),
        (["--teacher", "esrgan"], "esrgan needs weights; name their file with --teacher-weights"),
        (["--teacher", "nobody"], "'nobody' is no run, no .safetensors file, and no published architecture"),
        (["--teacher", "esrgan", "--teacher-weights", "missing.pth"], "there is no file"),
        (["--teacher-weights", "missing.pth"], "--teacher-weights are of a published teacher; name it by --teacher"),
        (["--space", "falsr"], "space falsr has no channels to set; leave it out, or name the space's algorithm"),
        (["--min-psnr", "30"], "no setting search.min_psnr of algorithm trilevel, but of falsr"),
        (["--set", "space.network=fixed"], "network 'fixed' has one path; give it too"),
        (["--set", "space.path=[0,1]"], "path is that of network 'fixed'; give network=fixed too"),
        (
            ["--set", "space.network=fixed", "--set", "space.path=[0,0]"],
            "has 0 upsamplings, and x2 on backbone a takes 1",
        ),
        (["--set", "space.widths=[2,3]", "--set", "space.operators=[conv3x3_g2]"], "groups = 2 does not divide"),
        (["--set", "space.operators=[conv9x9]"], "'conv9x9' is no operator of a cell"),
        (["--set", "search.relaxation=hardmax"], "search.relaxation"),
        (["--set", "search.distance.perceptual=1"], "perceptual needs the weights of VGG19"),
        (["--workers", "2"], "trilevel searches in one process"),
        (["--bits", "4,8"], "one bit width for all layers"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    hwnas: Hwnas, trilevel: Sequence[str], out: Path, arguments: list[str], named: str
) -> None:
    assert named in hwnas("search", *trilevel, *arguments, "--out", out).error(USAGE)
    assert not out.exists()


def _until(condition: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_is_stopped_goes_on(
    start: Callable[..., subprocess.Popen[str]],
    hwnas: Hwnas,
    trilevel: Sequence[str],
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    command = ("search", *trilevel, "--set", "search.epochs=6", "--budget", "0.5GFLOPs")
    whole = hwnas(*command, "--out", tmp_path / "whole", "--json")
    process = start(*command, "--out", tmp_path / "stopped")
    _until((tmp_path / "stopped" / "search" / "state.pt").exists)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    again = hwnas("search", "--out", tmp_path / "stopped", "--resume", "--json")
    assert again.code == 0, again.err
    assert again.json["costs"] == whole.json["costs"]
    first, second = (json.loads((tmp_path / n / "architecture.json").read_text()) for n in ("whole", "stopped"))
    assert first == second


@pytest.mark.parametrize(
    ("name", "parameters"), [("trilevel-a", 372_355), ("trilevel-b", 234_192), ("agd", 410_307), ("esrgan", 16_697_987)]
)
def test_published_networks_have_costs_from_the_command_line(hwnas: Hwnas, name: str, parameters: int) -> None:
    assert hwnas("cost", name, "--metric", "params", "--json").json["value"] == parameters
