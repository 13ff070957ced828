"""The main job at the size of ``make demo``: slow, and the only test of what a user is after."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_main_job_meets_its_budget_and_beats_bicubic_enlargement(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "hwnas", "run", "--target", "cpu", "--budget", "5GBitOps", "--preset", "tiny"]
    answer = subprocess.run([*command, "--out", out, "--json"], check=True, capture_output=True, text=True)
    result = json.loads(answer.stdout)
    assert result["psnr"] > result["bicubic_psnr"] + 0.5
    assert result["ssim"] > result["bicubic_ssim"]
    with (out / "front.csv").open(newline="") as file:
        front = list(csv.DictReader(file))
    (chosen,) = [row for row in front if row["chosen"] == "1"]
    assert 1e9 < float(chosen["bitops"]) <= 5e9
    assert len(front) >= 4
    assert (out / "model.onnx").stat().st_size > 10_000
    assert "Parity with torch" in (out / "summary.md").read_text()
