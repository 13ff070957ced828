"""FALSR from the command line: searches, candidates, published weights, and every way to ask for what cannot be."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import TINY_TRAINING, Finished, Hwnas

FAILED, USAGE = 1, 2
SHARED = Path(__file__).resolve().parents[3] / "shared"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the published weights, is not there")
WEIGHTS, SET5 = SHARED / "weights/falsr", SHARED / "data/Set5"


@pytest.fixture(scope="session")
def falsr(photographs: Path) -> tuple[str, ...]:
    """Options of a search that takes seconds."""
    settings = ("population=4", "generations=1", "evaluation.steps=4", "evaluation.batch=2", "evaluation.crop=8")
    return (
        *("--algorithm", "falsr", "--data", str(photographs), "--cells", "2"),
        *(part for setting in (*settings, "evaluation.validation_crop=16") for part in ("--set", f"search.{setting}")),
        *("--set", "train.crop=8", *TINY_TRAINING),
    )


@pytest.fixture(scope="session")
def found(hwnas: Hwnas, falsr: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """What ``hwnas search --algorithm falsr`` leaves; not to be changed."""
    path = tmp_path_factory.mktemp("falsr") / "run"
    answer = hwnas("search", *falsr, "--budget", "40KParams", "--workers", "2", "--out", path, "--json")
    assert answer.code == 0, answer.err
    return Finished(path, answer)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_leaves_its_front_its_candidates_and_its_report(found: Finished) -> None:
    answer = found.answer.json
    assert answer["costs"]["params"] <= 40_000 and answer["methods"] == {"params": "counted"}
    assert len(rows(found.path / "candidates.csv")) == 8
    front = rows(found.path / "front.csv")
    assert all((found.path / row["architecture"]).is_file() for row in front)
    assert "<html" in (found.path / "report.html").read_text()[:300].lower()
    assert {path.name for path in (found.path / "search").iterdir()} == {"trials.jsonl"}
    assert "space falsr: 205,701" not in found.answer.err and "space falsr" in found.answer.err
    assert "generation 1/1: front" in found.answer.err


def test_the_table_shows_the_front_and_how_to_go_on(hwnas: Hwnas, found: Finished) -> None:
    answer = hwnas("search", "--out", found.path, "--resume")
    assert all(word in answer.out for word in ("flops at", "256x256", "params", "crowding"))
    assert "8 candidates were tried" in answer.out
    assert f"next: hwnas train {found.path}" in answer.out
    assert "the search is complete" in answer.err


@pytest.mark.parametrize("bits", [None, 8])
def test_any_point_of_the_front_is_trained_and_exported(
    hwnas: Hwnas, found: Finished, tmp_path: Path, bits: int | None
) -> None:
    last = len(rows(found.path / "front.csv")) - 1
    out = tmp_path / "trained"
    width = () if bits is None else ("--bits", str(bits))
    trained = hwnas("train", found.path, "--candidate", str(last), *width, "--out", out)
    assert trained.code == 0, trained.err
    stated = json.loads((out / "architecture.json").read_text())
    candidate = json.loads((found.path / f"front/{last:02d}.json").read_text())
    assert stated["wiring"] == candidate["wiring"]
    assert {spec["weight_bits"] for spec in stated["operators"].values()} == {bits or 32}
    exported = hwnas("export", out, *([] if bits else ["--int8"]), "--json")
    assert exported.code == 0, exported.err
    image = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(image)
    assert hwnas("upscale", out / "model.onnx", image, tmp_path / "out.png").code == 0
    assert Image.open(tmp_path / "out.png").size == (48, 40)


def test_a_candidate_goes_beside_its_run_unless_told(hwnas: Hwnas, found: Finished) -> None:
    assert hwnas("train", found.path, "--candidate", "0").code == 0
    assert (found.path.parent / "run-00" / "weights.safetensors").is_file()
    assert not (found.path / "weights.safetensors").exists()


def test_a_point_that_is_not_there_is_refused(hwnas: Hwnas, found: Finished, tmp_path: Path) -> None:
    last = len(rows(found.path / "front.csv")) - 1
    error = hwnas("train", found.path, "--candidate", "99").only_error(USAGE)
    assert f"has the points 0 to {last}, and no 99" in error
    assert "is no run" in hwnas("train", "falsr-a", "--candidate", "0").only_error(USAGE)


def test_a_whole_run_ends_in_a_verified_file(hwnas: Hwnas, falsr: Sequence[str], out: Path) -> None:
    answer = hwnas("run", *falsr, "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["within_budgets"] is True
    assert (out / "model.onnx").is_file() and "Found by falsr" in (out / "summary.md").read_text()


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--budget", "1KParams"], "no architecture of space falsr meets 1 kParams: its minimum is"),
        (["--budget", "1MFLOPs@480x480"], "raise the budget, or use fewer cells"),
        (["--budget", "1KBitOps", "--bits", "8"], "raise the budget, or use fewer cells or narrower bits"),
        (["--budget", "1KParams", "--cells", "1"], "; raise the budget"),
        (["--budget", "10KParams", "--budget", "1MFLOPs@480x480"], "its minimum is"),
        (["--space", "quantnas"], "falsr searches the spaces falsr and falsr-rgb, not quantnas"),
        (["--channels", "8"], "has no channels"),
        (["--bits", "4,8"], "one bit width for all layers"),
        (["--objective", "speed"], "no metric is called 'speed'"),
        (["--objective", "latency"], "and, of a target: effective-bitops@TARGET, latency@TARGET"),
        (["--objective", "bitops", "--objective", "bitops"], "names one cost twice"),
        (["--objective", "latency@toaster"], "toaster"),
        (["--quantization", "noise"], "there is no setting search.quantization"),
        (["--set", "search.crossover=2"], "search.crossover"),
        (["--set", "search.random_connections=0.9"], "are shares of one"),
        (["--set", "search.population=1"], "search.population"),
        (["--min-psnr", "nan"], "min_psnr"),
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--ray", "auto"], "give one of them"),
        (["--trial-gpus", "0.5"], "add --ray ADDRESS"),
        (["--ray", "no address"], "is no address of a Ray cluster"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    hwnas: Hwnas, falsr: Sequence[str], out: Path, arguments: list[str], named: str
) -> None:
    answer = hwnas("search", *falsr, *arguments, "--out", out)
    assert named in answer.error(USAGE)
    assert not out.exists()


def test_a_cluster_that_cannot_be_reached_is_named(hwnas: Hwnas, falsr: Sequence[str], out: Path) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    error = hwnas("search", *falsr, "--ray", "127.0.0.1:1", "--out", out).error(FAILED)
    assert "no Ray cluster can be reached at 127.0.0.1:1" in error and "ray start --head" in error
    assert time.monotonic() - began < 30
    assert not out.exists()


def test_another_search_has_no_workers(hwnas: Hwnas, tiny: Sequence[str], out: Path) -> None:
    error = hwnas("search", *tiny, "--budget", "50MBitOps", "--workers", "2", "--out", out).error(USAGE)
    assert "quantnas searches in one process; leave --workers out" in error
    assert not out.exists()


@pytest.mark.slow
def test_a_psnr_that_nothing_reaches_fails_and_keeps_the_best(hwnas: Hwnas, falsr: Sequence[str], out: Path) -> None:
    error = hwnas("search", *falsr, "--min-psnr", "90", "--out", out).error(FAILED)
    assert "no candidate reached 90.00 dB; the best, which is kept, has" in error
    assert (out / "front.csv").is_file() and (out / "architecture.json").is_file()
    # It is no success the second time either.
    assert "no candidate reached 90.00 dB" in hwnas("search", "--out", out, "--resume", "--json").error(FAILED)
    assert hwnas("train", out, "--set", "train.epochs=1", "--set", "train.steps_per_epoch=1").code == 0


def test_a_broken_line_of_the_log_is_named(hwnas: Hwnas, found: Finished, tmp_path: Path) -> None:
    import shutil

    run = Path(shutil.copytree(found.path, tmp_path / "run"))
    (run / "architecture.json").unlink()
    log = run / "search" / "trials.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0], "not json\n", *lines[2:]]))
    answer = hwnas("search", "--out", run, "--resume", "--workers", "2")
    assert answer.code == 0
    assert "trials.jsonl: line 2 (" in answer.err and "is broken and skipped" in answer.err
    assert rows(run / "front.csv") == rows(found.path / "front.csv")


# Interrupted


def _until(condition: Callable[[], Any], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_search_that_is_stopped_goes_on(
    start: Callable[..., subprocess.Popen[str]], hwnas: Hwnas, falsr: Sequence[str], out: Path, how: signal.Signals
) -> None:
    process = start("search", *falsr, "--workers", "2", "--set", "search.generations=3", "--out", out)
    log = out / "search" / "trials.jsonl"
    _until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 3)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume goes on with it" in err and "Traceback" not in err
        assert not (out / "search" / "images").exists()
    before = log.read_text().splitlines()
    answer = hwnas("search", "--out", out, "--resume", "--workers", "2")
    assert answer.code == 0, answer.err
    after = [json.loads(line)["architecture"] for line in log.read_text().splitlines() if line]
    assert len(after) == len(set(after)) == 16
    assert [json.loads(line)["architecture"] for line in before] == after[: len(before)]


# Published networks


def test_published_networks_have_costs_from_the_command_line(hwnas: Hwnas) -> None:
    answer = hwnas("cost", "falsr-a", "--metric", "flops", "--input-size", "480x480", "--json").json
    assert round(answer["value"] / 1e9, 2) == 235.00 and answer["unit"] == "MACs"
    assert hwnas("cost", "falsr-b", "--metric", "params", "--json").json["value"] == 324_745


def test_an_architecture_needs_its_weights_to_enlarge(hwnas: Hwnas, photographs: Path) -> None:
    error = hwnas("evaluate", "falsr-a", "--data", photographs).only_error(USAGE)
    assert "name the file of its weights with --weights" in error


@published
def test_weights_of_another_network_are_refused_by_their_first_tensor(hwnas: Hwnas) -> None:
    error = hwnas("evaluate", "falsr-b", "--weights", WEIGHTS / "FALSR-A.safetensors", "--data", SET5).only_error(
        FAILED
    )
    assert "it has no tensor cells.0.supple.weight" in error


@published
def test_a_protocol_is_of_networks_that_it_is_for(hwnas: Hwnas) -> None:
    weights = ("--weights", WEIGHTS / "FALSR-B.safetensors")
    assert "no protocol is called 'x'" in hwnas(
        "evaluate", "falsr-b", *weights, "--data", SET5, "--protocol", "x"
    ).only_error(USAGE)
    assert "is of networks of luma" in hwnas(
        "evaluate", "bicubic", "--scale", "2", "--data", SET5, "--protocol", "falsr"
    ).only_error(USAGE)


@published
def test_published_weights_enlarge_an_image(hwnas: Hwnas, tmp_path: Path) -> None:
    source = SET5 / "LRx2" / "img_003.png"
    weights = ("--weights", WEIGHTS / "FALSR-C.safetensors")
    assert hwnas("upscale", "falsr-c", *weights, source, tmp_path / "whole.png", "--tile", "0").code == 0
    assert hwnas("upscale", "falsr-c", *weights, source, tmp_path / "tiles.png", "--tile", "48").code == 0
    whole, tiles = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("whole.png", "tiles.png"))
    assert np.abs(whole - tiles).max() <= 1
