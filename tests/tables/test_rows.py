"""The scripts of published tables: rows are kept one by one, and a table stands once in docs/results.md."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from hwnas.architecture import Architecture
from hwnas.checkpoints import load_network
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError

from .conftest import TABLES


@pytest.fixture
def writing(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    found = script("writing")
    monkeypatch.setattr(found, "RESULTS", tmp_path / "results.md")
    (tmp_path / "results.md").write_text("# Results\n\nOthers.\n")
    return found


def test_a_table_stands_once_between_its_marks(writing: ModuleType, tmp_path: Path) -> None:
    for figure in ("1", "2"):
        writing.into_results("one", "One", "python one.py", [["a", "b"], ["x", figure]], "Twice.", "abc, a machine")
        writing.into_results("two", "Two", "python two.py", [["a"], ["y"]], "Once.", "abc, a machine")
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("# Results\n\nOthers.\n") and text.count("### One") == text.count("### Two") == 1
    assert "| a | b |\n| --- | --- |\n| x | 2 |" in text and "| x | 1 |" not in text
    assert text.index("### One") < text.index("### Two") and "    python one.py\n" in text
    (tmp_path / "results.md").write_text(text.replace("<!-- end of one -->\n", ""))
    with pytest.raises(HwnasError, match="has no line <!-- end of one --> after <!-- one -->"):
        writing.into_results("one", "One", "python one.py", [["a"]], "Thrice.", "abc, a machine")
    assert "### Two" in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([27.1, 27.3, 27.4], "27.27 ± 0.17"),
        ([27.1], "27.10"),
        ([], ""),
        ([1517.6], "1518"),
        ([16700.4, 16700.4], "16700"),
        ([0.002], "0.0020"),
        ([0.60714, 0.61], "0.6086 ± 0.0014"),
        ([30.001, 30.0], "30.00 ± 0.00"),
    ],
)
def test_runs_are_told_by_their_mean_and_spread(writing: ModuleType, values: list[float], said: str) -> None:
    assert writing.mean_and_spread(values) == said


@pytest.fixture
def kept(script: Callable[[str], ModuleType], tmp_path: Path) -> tuple[ModuleType, Any]:
    """A row of three runs, of which two are scored on Set5 and one on Set14."""
    row = script("published").Row("one", {"network": "one"}, (("train", "espcn"),), {"Set5 dB": 31.0, "Manga dB": 9.0})
    scores = [{"Set5 dB": 30.0, "Set14 dB": 27.0}, {"Set5 dB": 30.2}, {}]
    for seed, scored in enumerate(scores):
        figures = {"GMACs": 2.4285714, **scored}
        spent = {"seconds": 60, "commits": ["abc"], "machines": ["a machine"]}
        (tmp_path / f"one-{seed}").mkdir()
        text = json.dumps({"figures": figures, **spent, "steps": 4, "run": "run"})
        (tmp_path / f"one-{seed}" / "row.json").write_text(text)
    return script("cells"), row


def test_a_figure_that_some_runs_lack_is_left_out(kept: tuple[ModuleType, Any], tmp_path: Path) -> None:
    cells, row = kept
    head, line = cells.cells_of_rows(tmp_path, {row: cells.kept_rows(tmp_path, row)})
    said = dict(zip(head, line, strict=True))
    assert said["runs"] == "3" and said["GMACs"] == "2.429" and said["minutes"] == "3.0"
    assert said["Set5 dB"] == said["Set14 dB"] == "" and said["published, DIV2K: Set5 dB"] == "31.00"
    assert "published, DIV2K: Manga dB" not in head
    shutil.rmtree(tmp_path / "one-2")
    head, line = cells.cells_of_rows(tmp_path, {row: cells.kept_rows(tmp_path, row)})
    assert dict(zip(head, line, strict=True))["Set5 dB"] == "30.10 ± 0.10"


def test_programs_are_told_of_each_run_in_all_digits(
    kept: tuple[ModuleType, Any], writing: ModuleType, tmp_path: Path
) -> None:
    cells, row = kept
    writing.write_csv(tmp_path / "table.csv", cells.lines_of_runs(tmp_path, {row: cells.kept_rows(tmp_path, row)}))
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == ["0", "1", "2"] and lines[0]["GMACs"] == "2.4285714"
    assert [line["Set5 dB"] for line in lines] == ["30.0", "30.2", ""]


def test_a_damaged_row_is_named(kept: tuple[ModuleType, Any], tmp_path: Path) -> None:
    cells, row = kept
    (tmp_path / "one-1" / "row.json").write_text('{"figures": {"GM')
    with pytest.raises(HwnasError, match=r"one-1/row\.json cannot be read; remove it, and the same command"):
        cells.kept_rows(tmp_path, row)


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


@pytest.mark.parametrize(
    ("family", "width", "multiple"),
    [
        ("espcn", 1, 1),
        ("espcn", 16, 1),
        ("ecbsr", 15, 1),
        ("ecbsr", 511, 1),
        ("rfdn", 2, 1),
        ("ecbsr", 72, 4),
        ("rfdn", 6, 3),
    ],
)
def test_the_widest_is_found_from_wherever_it_is(
    script: Callable[[str], ModuleType], family: str, width: int, multiple: int
) -> None:
    hand_made, tried = script("hand_made"), []

    def fits(architecture: Architecture) -> bool:
        tried.append(int(architecture.name.rpartition("-")[2]))
        return tried[-1] <= width

    assert hand_made.widest(family, fits, multiple).name == f"{family}-{width}"
    assert all(width % multiple == 0 for width in tried)
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
    trilevel = script("trilevel_1").rows()
    assert [row.name for row in trilevel if not row.commands] == [
        "esrgan",
        "srresnet",
        "agd",
        "trilevel-a",
        "trilevel-b",
    ]
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


@pytest.mark.parametrize("name", ["falsr_1", "quantnas_7", "quantnas_time", "quantnas_2"])
def test_figures_of_few_steps_are_not_for_the_documents(
    script: Callable[[str], ModuleType],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    weights = ["--weights", str(tmp_path)] if name == "falsr_1" else []
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--docs", *weights])
    module = script(name)
    table = [script("published").Published("two", "Two", module.rows)] if name == "quantnas_2" else []
    with pytest.raises(SystemExit) as ended:
        module.main(*table)
    assert ended.value.code == 2 and "figures of --quick say nothing" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "ten"])
def test_minutes_are_a_time(script: Callable[[str], ModuleType], text: str) -> None:
    driver = script("driver")
    assert driver.minutes("0") == 0 and driver.minutes("2.5") == 2.5
    with pytest.raises(ValueError):
        driver.minutes(text)


@pytest.mark.slow
def test_a_table_goes_on_where_its_time_was_up(tmp_path: Path) -> None:
    script = TABLES / "quantnas_1.py"

    def run(*options: str) -> str:
        command = [sys.executable, script, "--quick", "--out", tmp_path, *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    rows = ("--rows", "espcn-lsq-8,ours-3")
    said = run(*rows, "--minutes", "0")
    assert "espcn-lsq-8: not run, its time was up" in said and "hwnas" not in said
    assert "ours-3" not in run("--rows", "espcn-lsq-8").replace("espcn-lsq-8, seed 0: hwnas", "")
    said = run(*rows)
    assert "espcn-lsq-8, seed 0" not in said and "ours-3, seed 0: hwnas search" in said
    assert "hwnas" not in run(*rows)
    with (tmp_path / "quantnas-1-quick" / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["network"] == "espcn" and float(first["GBitOps 32x32"]) == pytest.approx(2.4285, rel=1e-3)
    assert float(second["GBitOps 32x32"]) <= 4.63 and first["steps"] == "4"
    assert first["published, DIV2K: GBitOps"] == "2.3" and "published, DIV2K: GBitOps" in said
    # Nothing was scored that a published PSNR could stand beside.
    assert "Set14" not in said


@pytest.mark.slow
def test_what_a_network_costs_needs_no_training(tmp_path: Path) -> None:
    script = TABLES / "trilevel_1.py"
    command = [sys.executable, script, "--quick", "--out", tmp_path, "--rows", "esrgan,srresnet,trilevel-b"]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "trilevel-1-quick" / "table.csv").open(newline="") as file:
        esrgan, srgan, ours = csv.DictReader(file)
    # As the paper rounds them; it has ESRGAN's additions among its products.
    assert float(esrgan["K parameters"]) == pytest.approx(16_700, rel=1e-3)
    assert float(srgan["K parameters"]) == pytest.approx(1_520, rel=3e-3)
    assert float(srgan["GMACs 256x256"]) == pytest.approx(166.7, rel=4e-3)
    assert esrgan["steps"] == "0" and "published, DIV2K: Set5 dB" in ours


@pytest.mark.slow
def test_a_row_that_fails_is_told_and_holds_up_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "quantnas-1-quick"
    (folder / "espcn-lsq-8-0" / "run").mkdir(parents=True)
    (folder / "espcn-lsq-8-0" / "run" / "thesis.txt").write_text("precious")
    command = [sys.executable, TABLES / "quantnas_1.py", "--quick", "--out", tmp_path]
    command += ["--rows", "espcn-lsq-8,espcn-hwgq-8"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "espcn-lsq-8, seed 0: hwnas train espcn" in done.stderr
    assert "is not a run of hwnas" in done.stderr and "what failed: 1" in done.stderr.splitlines()[-1]
    with (folder / "table.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["method"] == "HWGQ, 8 bits"


@pytest.mark.slow
def test_the_time_of_a_search_goes_on_where_its_time_was_up(tmp_path: Path) -> None:
    command = [sys.executable, TABLES / "quantnas_time.py", "--quick", "--out", tmp_path]
    said = subprocess.run([*command, "--minutes", "0"], check=True, capture_output=True, text=True).stdout
    assert "its time was up" in said
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "quantnas-time-quick" / "table.csv").open(newline="") as file:
        stages = {line["stage"]: line for line in csv.DictReader(file)}
    # The piece that had no time is one of them.
    assert stages["search"]["commands"] == "2" and stages["train"]["commands"] == "1"
    assert float(stages["search"]["images/s"]) > 0 and float(stages["both"]["hours"]) > 0


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
        rates = {line["seed"]: float(line["learning rate"]) for line in csv.DictReader(file)}
    assert rates == {"0": float(best), "1": float(best)}


def scripts() -> list[Path]:
    main = 'if __name__ == "__main__"'
    return [path for path in sorted(TABLES.parent.rglob("*.py")) if main in path.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_every_script_tells_what_it_does(path: Path) -> None:
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {path.name}"), done.stderr


def test_benchmarks_of_one_name_are_refused(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    places = [tmp_path / name / "HR" for name in ("Set5", "Set14")]
    for place in places:
        place.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["quantnas_2", *(f"--test={place}" for place in places), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script("driver").main(script("published").Published("two", "Two", script("quantnas_2").rows))
    assert ended.value.code == 2 and "two benchmarks have the same name" in capsys.readouterr().err
