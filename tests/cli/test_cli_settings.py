"""Wrong names and settings, and trainings that go wrong, are answered with one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

BUDGET = ("--budget", "50MBitOps")
FAILURE, USAGE = 1, 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "mars"), "no target is called 'mars'; there are: android, cpu, "),
        (("--preset", "huge"), "no preset is called 'huge'; there are: tiny, small, paper"),
        (("--algorithm", "magic"), "no algorithm is called 'magic'; there are: "),
        (
            ("--space", "outer"),
            "no space is called 'outer'; there are: agd, autodeeplab, falsr, falsr-rgb, fixed, quantnas",
        ),
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
    assert message in answer.only_error(USAGE)
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
    assert arguments[1] in hwnas(*arguments).only_error(USAGE)


def test_unknown_names_are_answered_with_the_known_ones(hwnas: Any) -> None:
    assert "falsr-a, falsr-a-rgb, falsr-b" in hwnas("cost", "mystery").only_error(USAGE)
    assert "bitops, flops, memory, params" in hwnas("cost", "espcn", "--metric", "beauty").only_error(USAGE)


def test_a_budget_below_the_minimum_is_refused_with_what_there_is(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    answer = hwnas("run", *tiny, "--budget", "1MBitOps", "--out", out)
    message = answer.only_error(USAGE)
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
    assert f"{stage}.precision: Input should be '32-true'" in answer.error(USAGE)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision is possible here")
def test_half_precision_without_a_gpu_is_refused(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    command = ("train", "espcn", *tiny[:2], "--crop", "8", "--set", "train.precision=16-mixed", "--out", out)
    assert "16-mixed needs a GPU" in hwnas(*command).error(USAGE)
    assert not out.exists()


def test_a_settings_file_that_is_none_is_named(hwnas: Any, tiny: tuple[str, ...], out: Path, tmp_path: Path) -> None:
    broken = tmp_path / "settings.yaml"
    for content in (b"a: [", b"just words", b"\xff\xfe\x00", b""):
        broken.write_bytes(content)
        answer = hwnas("search", *tiny, *BUDGET, "--config", broken, "--out", out)
        assert str(broken) in answer.only_error(FAILURE)
    missing = hwnas("search", *tiny, *BUDGET, "--config", tmp_path / "none.yaml", "--out", out)
    assert "none.yaml" in missing.only_error(USAGE)
    assert not out.exists()


def test_a_search_that_diverges_says_which_setting_to_lower(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    answer = hwnas("search", *tiny, *BUDGET, "--set", "search.learning_rate=1e30", "--out", out)
    message = answer.error(FAILURE)
    assert "search.learning_rate" in message
    assert not (out / "architecture.json").exists()
    assert not (out / "front.csv").exists()


def test_a_training_that_diverges_says_which_setting_to_lower(
    hwnas: Any, tiny_training: tuple[str, ...], out: Path
) -> None:
    answer = hwnas("train", "espcn", *tiny_training, "--set", "train.learning_rate=1e30", "--out", out)
    assert "train.learning_rate" in answer.error(FAILURE)
    assert not (out / "weights.safetensors").exists()


def test_an_error_of_several_lines_is_told_in_one(hwnas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwnas.errors import HwnasError

    def fail(*_: Any) -> None:
        raise HwnasError("one [bold]\ntwo")

    monkeypatch.setattr("hwnas.spaces.lookup.find_architecture", fail)
    assert hwnas("cost", "espcn").only_error(FAILURE) == "error: one [bold] two"


def test_the_traceback_is_for_those_who_ask(process: Any) -> None:
    plain = process("cost", "mystery")
    assert "Traceback" not in plain.err
    plain.only_error(USAGE)
    debug = process("cost", "mystery", "--debug")
    assert debug.code == USAGE
    assert debug.err.startswith("Traceback")
    assert "UsageError" in debug.err
    assert debug.err.splitlines()[-1] == plain.err.strip()


def test_a_picture_of_one_colour_is_enlarged_like_any_other(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "red.png")
    assert hwnas("upscale", espcn.path, tmp_path / "red.png", tmp_path / "large.png").code == 0
    assert Image.open(tmp_path / "large.png").size == (64, 64)
