"""The figures of the scripts of published tables: what the papers print, what is scored, and what is timed."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from hwnas.errors import HwnasError
from hwnas.spaces.baselines import espcn

from .conftest import TABLES

PAPERS = Path(__file__).resolve().parents[3] / "shared" / "papers"

with_papers = pytest.mark.skipif(not PAPERS.is_dir(), reason="../shared, with the papers, is not there")


def lines_of_numbers(paper: str) -> list[set[float]]:
    text = (PAPERS / paper).read_text(encoding="utf-8")
    return [{float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)} for line in text.splitlines()]


@with_papers
@pytest.mark.parametrize(
    ("table", "paper"),
    [
        ("quantnas_1", "quantnas.txt"),
        ("quantnas_2", "quantnas.txt"),
        ("quantnas_3", "quantnas.txt"),
        ("quantnas_4", "quantnas.txt"),
        ("trilevel_1", "trilevel-nas.txt"),
    ],
)
def test_published_figures_stand_together_in_the_paper(
    script: Callable[[str], ModuleType], table: str, paper: str
) -> None:
    lines = lines_of_numbers(paper)
    rows = [row for row in script(table).rows() if row.published]
    for row in rows:
        # The papers count parameters in millions.
        figures = {round(v / 1000, 6) if k == "K parameters" else float(v) for k, v in row.published.items()}
        assert any(figures <= line for line in lines), row.name
    assert len(rows) >= 2


@with_papers
def test_published_scores_of_falsr_are_those_of_the_paper(script: Callable[[str], ModuleType]) -> None:
    text, falsr = (PAPERS / "falsr.txt").read_text(encoding="utf-8"), script("falsr_1")
    for name, published in falsr.PUBLISHED.items():
        scores = zip((published["Set5 dB"], published["Set14 dB"]), falsr.SSIMS[name], strict=True)
        row = "\n".join(f"{psnr:.2f}/{ssim:.4f}" for psnr, ssim in scores)
        assert f"{name.upper()} (ours)\n{row}\n" in text


def photographs(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(2):
        low = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        low.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_rows_are_scored_as_the_command_line_scores_their_runs(tmp_path: Path) -> None:
    folder = tmp_path / "quantnas-1-quick"
    command = [sys.executable, TABLES / "quantnas_1.py", "--quick", "--out", tmp_path, "--rows", "espcn-lsq-8"]
    evaluate = [sys.executable, "-m", "hwnas", "evaluate", folder / "espcn-lsq-8-0" / "run", "--json", "--data"]
    seen = set()
    # Where a benchmark is does not matter to what it is called, and another of that name is another one.
    for seed, place in enumerate((tmp_path / "Mine", tmp_path / "others" / "Mine")):
        subprocess.run([*command, "--test", "."], check=True, capture_output=True, cwd=photographs(place, seed))
        with (folder / "table.csv").open(newline="") as file:
            (line,) = csv.DictReader(file)
        scored = json.loads(subprocess.run([*evaluate, place], check=True, capture_output=True, text=True).stdout)
        assert float(line["Mine dB"]) == scored["psnr"] and float(line["Mine bicubic"]) == scored["bicubic_psnr"]
        seen.add(line["Mine dB"])
    assert len(seen) == 2 and (folder / "table.png").exists()


def test_a_network_fits_if_it_is_fast_enough(script: Callable[[str], ModuleType]) -> None:
    within, network = script("comparison_latency").Within, espcn(2, True, 16).with_bits(8)
    assert within(200, (8, 8)).fits(network)
    assert not within(1e-3, (8, 8)).fits(network)


@pytest.mark.slow
def test_a_trained_network_is_timed_and_none_that_takes_too_long_is_a_row(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    within, run = script("comparison_latency").Within, tmp_path / "run"
    few = [part for key in ("epochs", "steps_per_epoch", "batch") for part in ("--set", f"train.{key}=1")]
    train = [sys.executable, "-m", "hwnas", "train", "espcn", "--bits", "8", "--bicubic", *few, "--out", run]
    subprocess.run(train, check=True, capture_output=True)
    assert 0 < within(5, (16, 16)).measure(run)["ms"] <= 5.25
    with pytest.raises(HwnasError, match=r"takes .* of 0\.001 ms; go on when the machine is quiet"):
        within(1e-3, (16, 16)).measure(run)
