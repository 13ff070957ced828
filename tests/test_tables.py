"""The scripts of published tables: rows are kept one by one, and a table stands once in docs/results.md."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TABLES = Path(__file__).parents[1] / "benchmarks" / "tables"


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(TABLES))
    found = importlib.import_module("writing")
    monkeypatch.setattr(found, "RESULTS", tmp_path / "results.md")
    (tmp_path / "results.md").write_text("# Results\n\nOthers.\n")
    yield found
    sys.modules.pop("writing")


def test_a_table_stands_once_between_its_marks(writing: ModuleType, tmp_path: Path) -> None:
    for figure in ("1", "2"):
        writing.into_results("one", "One", "python one.py", [["a", "b"], ["x", figure]], "Twice.")
        writing.into_results("two", "Two", "python two.py", [["a"], ["y"]], "Once.")
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("# Results\n\nOthers.\n") and text.count("### One") == text.count("### Two") == 1
    assert "| a | b |\n| --- | --- |\n| x | 2 |" in text and "| x | 1 |" not in text
    assert text.index("### One") < text.index("### Two") and "    python one.py\n" in text


def test_runs_are_told_by_their_mean_and_spread(writing: ModuleType) -> None:
    assert writing.mean_and_spread([27.1, 27.3, 27.4]) == "27.27 ± 0.17"
    assert writing.mean_and_spread([27.1]) == "27.10" and writing.mean_and_spread([]) == ""


@pytest.mark.slow
def test_a_table_goes_on_where_its_time_was_up(tmp_path: Path) -> None:
    script = TABLES / "quantnas_1.py"

    def run(*options: str) -> str:
        command = [sys.executable, script, "--quick", "--out", tmp_path, *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    rows = ("--rows", "espcn-lsq-8,ours-3")
    assert "espcn-lsq-8: not run, its time was up" in run(*rows, "--minutes", "0")
    assert "ours-3" not in run("--rows", "espcn-lsq-8").replace("espcn-lsq-8, seed 0: hwnas", "")
    said = run(*rows)
    assert "espcn-lsq-8, seed 0" not in said and "ours-3, seed 0: hwnas search" in said
    assert "hwnas" not in run(*rows)
    with (tmp_path / "quantnas-1-quick" / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["network"] == "espcn" and float(first["GBitOps 32x32"]) == pytest.approx(2.4285, rel=1e-3)
    assert float(second["GBitOps 32x32"]) <= 4.63 and first["published, DIV2K: Set14 dB"] == "27.26"
    assert "published, DIV2K: GBitOps" in first and first["steps"] == "2"
