"""The scripts of published tables: rows are kept one by one, and a table stands once in docs/results.md."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from hwnas.architecture import Architecture
from hwnas.checkpoints import load_network
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError

TABLES = Path(__file__).parents[1] / "benchmarks" / "tables"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of the folder."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(TABLES))
    yield importlib.import_module
    for name in [name for name in sys.modules.keys() - before if (TABLES / f"{name}.py").exists()]:
        del sys.modules[name]


@pytest.fixture
def writing(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    found = script("writing")
    monkeypatch.setattr(found, "RESULTS", tmp_path / "results.md")
    (tmp_path / "results.md").write_text("# Results\n\nOthers.\n")
    return found


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


@pytest.mark.parametrize("family", ["espcn", "fsrcnn", "ecbsr", "rfdn", "srresnet"])
def test_a_hand_made_network_is_as_wide_as_the_budget_allows(script: Callable[[str], ModuleType], family: str) -> None:
    limit = 2.5e9
    hand_made, fits = script("hand_made"), script("comparison_bitops").fits
    found = hand_made.widest(family, fits)
    made = hand_made.FAMILIES[family]
    width = int(found.name.rpartition("-")[2])

    def cost(width: int) -> float:
        return cost_model("bitops").architecture_cost(made(4, True, width).with_bits(8), (32, 32)).value

    assert found.operators == made(4, True, width).with_bits(8).operators
    assert cost(width) <= limit < cost(width + hand_made.STEPS.get(family, 1))


@pytest.mark.parametrize(("family", "width"), [("espcn", 1), ("espcn", 16), ("ecbsr", 15), ("ecbsr", 511), ("rfdn", 2)])
def test_the_widest_is_found_from_wherever_it_is(script: Callable[[str], ModuleType], family: str, width: int) -> None:
    hand_made, tried = script("hand_made"), []

    def fits(architecture: Architecture) -> bool:
        tried.append(int(architecture.name.rpartition("-")[2]))
        return tried[-1] <= width

    assert hand_made.widest(family, fits).name == f"{family}-{width}"
    assert max(tried) <= max(2 * width, hand_made.NARROW) and len(tried) == len(set(tried))


def test_a_family_that_no_budget_has_room_for_is_named(script: Callable[[str], ModuleType]) -> None:
    with pytest.raises(HwnasError, match="no espcn fits, however narrow"):
        script("hand_made").widest("espcn", lambda architecture: False)
    with pytest.raises(HwnasError, match="espcn fits with 512 channels, and is not tried with more"):
        script("hand_made").widest("espcn", lambda architecture: True)


def test_every_row_of_every_table_has_a_name_of_its_own(script: Callable[[str], ModuleType]) -> None:
    counts = {}
    for path in sorted(TABLES.glob("*.py")):
        module = script(path.stem)
        if hasattr(module, "rows") and path.stem not in ("hand_made", "driver"):
            names = [row.name for row in module.rows()]
            assert len(names) == len(set(names))
            assert {row.point[0] for row in module.rows() if row.point} <= set(names)
            counts[path.stem] = len(names)
    within = [row.name for row in script("comparison_latency").Within(2, (24, 40)).rows()]
    assert within == [row.name for row in script("comparison_bitops").rows()]
    assert counts["quantnas_1"] == 7 and counts["quantnas_2"] == 8 and counts["comparison_bitops"] == 6


def test_a_series_is_drawn_once_for_each_benchmark(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    runs = [[{"x": 2.0, "Set5 dB": 30.0, "Set14 dB": 27.0}, {"x": 2.0, "Set5 dB": 30.2}], [{"x": 1.0, "Set5 dB": 29.0}]]
    script("drawing").draw(
        tmp_path / "table.png", "Title", "x", {"one": runs, "other": [[{"x": 3.0, "Set5 dB": 28.0}]]}
    )
    with Image.open(tmp_path / "table.png") as picture:
        assert picture.format == "PNG" and picture.width == pytest.approx(2 * 6.4 * 120, abs=4)
    script("drawing").draw(tmp_path / "none.png", "Title", "x", {"one": [[{"x": 2.0}]]})
    assert not (tmp_path / "none.png").exists()


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
    assert float(second["GBitOps 32x32"]) <= 4.63 and first["steps"] == "4"
    # Nothing was scored that a published PSNR could stand beside.
    assert first["published, DIV2K: GBitOps"] == "2.3" and not any(name.endswith(" dB") for name in first)


@pytest.mark.slow
def test_points_of_a_front_are_trained_where_it_has_them(tmp_path: Path) -> None:
    script = TABLES / "quantnas_5.py"

    def run(rows: str) -> str:
        command = [sys.executable, script, "--quick", "--out", tmp_path, "--rows", rows]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert "that front has no such point" in run("front-0")
    run("with-adadm-5e-5,front-0,front-1,front-7")
    with (tmp_path / "quantnas-5-quick" / "table.csv").open(newline="") as file:
        searched, *points = csv.DictReader(file)
    costs = [float(point["GBitOps 32x32"]) for point in points]
    assert len(costs) == 2 and costs[0] < costs[1] and float(searched["GBitOps 32x32"]) in costs


@pytest.mark.slow
def test_the_rate_that_is_best_by_held_out_photographs_is_that_of_later_runs(tmp_path: Path) -> None:
    script, folder = TABLES / "comparison_bitops.py", tmp_path / "comparison-bitops-quick"
    command = [sys.executable, script, "--quick", "--out", tmp_path, "--rows", "espcn"]
    first = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert first.count("espcn, seed 0: hwnas train") == 2
    psnrs = {
        rate: load_network(folder / "espcn-0" / f"rate-{rate}" / "weights.safetensors")[0].validation_psnr
        for rate in ("0.002", "0.0005")
    }
    best = max(psnrs, key=psnrs.__getitem__)
    second = subprocess.run([*command, "--seeds", "2"], check=True, capture_output=True, text=True).stdout
    assert "seed 0" not in second and second.count("espcn, seed 1: hwnas train") == 1
    assert f"train.learning_rate={best}" in second
    with (folder / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["learning rate"]) == float(best) and row["runs"] == "2"
