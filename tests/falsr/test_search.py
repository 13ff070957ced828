"""Whole searches, with real workers: budgets, fronts, what is left behind, and going on after being killed."""

import csv
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.architecture import load_architecture
from hwnas.budget import format_quantity, parse_budget
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError
from hwnas.progress import Silent
from hwnas.searches import SearchResult
from hwnas.searches.falsr.log import Log
from hwnas.searches.falsr.search import FALSR
from hwnas.searches.results import read_front, save_result
from tests.falsr.searching import run, small_task

BUDGET = "25KParams"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    """A search with a budget, whole; not to be changed."""
    path = tmp_path_factory.mktemp("searched") / "run"
    result = run(path, [BUDGET])
    return path, result


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "candidates.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_candidate_meets_the_budget_and_is_in_the_table(searched: tuple[Path, SearchResult]) -> None:
    path, result = searched
    table = rows(path)
    assert len(table) == 4 * 3 == len(Log(path / "search" / "trials.jsonl").trials)
    assert all(float(row["params"]) <= 25_000 for row in table)
    assert {row["generation"] for row in table} == {"0", "1", "2"}
    assert len({row["network"] for row in table}) == 12
    budget = parse_budget(BUDGET)
    assert budget.model.architecture_cost(result.chosen, budget.input_size).value <= budget.limit


def test_the_front_is_what_nobody_in_the_table_dominates(searched: tuple[Path, SearchResult]) -> None:
    path, result = searched
    points = [(-float(r["psnr_db"]), float(r["flops"]), float(r["params"])) for r in rows(path)]
    best = [p for p in points if not any(all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in points)]
    found = [(-round(c.psnr, 4), c.costs["flops"], c.costs["params"]) for c in result.front]
    assert sorted(found) == sorted((round(p[0], 4), *p[1:]) for p in best)
    assert [c.costs["flops"] for c in result.front] == sorted(c.costs["flops"] for c in result.front)
    chosen = max(result.front, key=lambda candidate: candidate.psnr)
    assert result.chosen.fingerprint == chosen.architecture.fingerprint
    marked = {int(row["front"]) for row in rows(path) if row["front"]}
    assert marked == set(range(len(result.front)))


def test_stated_costs_are_those_of_the_architectures(searched: tuple[Path, SearchResult]) -> None:
    _, result = searched
    for candidate in result.front:
        for metric, value in candidate.costs.items():
            model = cost_model(metric)
            assert model.architecture_cost(candidate.architecture, model.default_input_size).value == value


def test_what_is_saved_can_be_read_again(searched: tuple[Path, SearchResult], tmp_path: Path) -> None:
    _, result = searched
    task = small_task(tmp_path)
    save_result(task.run, result, FALSR.columns)
    front = read_front(task.run)
    assert list(front[0]) == ["point", "flops", "params", "crowding_distance", "psnr_db", "chosen", "architecture"]
    assert [row["chosen"] for row in front].count("1") == 1
    for row, candidate in zip(front, result.front, strict=True):
        assert load_architecture(tmp_path / row["architecture"]) == candidate.architecture


def test_the_report_has_a_picture_for_each_pair_and_every_candidate(searched: tuple[Path, SearchResult]) -> None:
    page = (searched[0] / "report.html").read_text()
    assert "12 candidates in 3 generations" in page and "constraints: 25 kParams" in page
    assert all(word in page for word in ("hypervolume", "MACs", "Params"))


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def without_times(path: Path) -> list[list[str]]:
    return [[v for k, v in row.items() if k != "seconds"] for row in rows(path)]


def test_a_finished_log_is_not_trained_again_and_gives_the_same(
    searched: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    path, result = searched
    (tmp_path / "search").mkdir()
    log = tmp_path / "search" / "trials.jsonl"
    log.write_bytes((path / "search" / "trials.jsonl").read_bytes())
    before = log.read_bytes()
    again = FALSR().run(small_task(tmp_path, [BUDGET]))
    assert again == result
    assert log.read_bytes() == before
    assert (tmp_path / "candidates.csv").read_text() == (path / "candidates.csv").read_text()


@pytest.mark.parametrize(
    "kept", [pytest.param(0, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow), 9]
)
def test_a_search_goes_on_from_any_line_of_its_log(
    searched: tuple[Path, SearchResult], tmp_path: Path, kept: int
) -> None:
    path, result = searched
    lines = (path / "search" / "trials.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "trials.jsonl").write_text("".join(lines[:kept]))
    again = FALSR().run(small_task(tmp_path, [BUDGET]))
    assert again.front == result.front
    assert without_times(tmp_path) == without_times(path)
    assert (tmp_path / "search" / "trials.jsonl").read_text().splitlines(keepends=True)[:kept] == lines[:kept]


def test_a_broken_line_is_named_and_its_candidate_tried_again(
    searched: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    path, result = searched
    lines = (path / "search" / "trials.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "trials.jsonl").write_text("".join([*lines[:5], lines[5][:40] + "\n", *lines[6:]]))
    told = Told()
    again = FALSR().run(small_task(tmp_path, [BUDGET], told))
    assert again.front == result.front
    assert any(re.search(r"trials\.jsonl: line 6 \(.*\) is broken and skipped", line) for line in told.lines)
    assert len(Log(tmp_path / "search" / "trials.jsonl").trials) == 12


def test_a_failed_candidate_is_recorded_and_the_search_goes_on(
    searched: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    path, _ = searched
    entries = [json.loads(line) for line in (path / "search" / "trials.jsonl").read_text().splitlines()]
    failed = {"kind": "trial", "architecture": entries[1]["architecture"], "error": "its process was killed by SIGKILL"}
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "trials.jsonl").write_text(json.dumps(failed) + "\n")
    run(tmp_path, [BUDGET])
    table = rows(tmp_path)
    assert len(table) == 12
    (row,) = [row for row in table if row["error"]]
    assert row["error"] == failed["error"] and not row["psnr_db"]


@pytest.mark.slow
def test_if_all_fail_the_search_says_why(tmp_path: Path) -> None:
    hopeless = {"steps": 4, "batch": 2, "crop": 8, "learning_rate": 1e30}
    with pytest.raises(
        HwnasError, match=r"none of 12 candidates could be trained to the end; .*trials\.jsonl says why"
    ):
        run(tmp_path, evaluation=hopeless)
    assert all("the loss became" in str(trial.error) for trial in Log(tmp_path / "search/trials.jsonl").trials.values())


@pytest.mark.slow
def test_a_smallest_psnr_without_a_budget_chooses_the_cheapest_that_has_it(tmp_path: Path) -> None:
    free = run(tmp_path / "free")
    least = sorted(candidate.psnr for candidate in free.front)[len(free.front) // 2]
    bounded = run(tmp_path / "bounded", min_psnr=round(least, 6))
    assert bounded.missed is None
    assert all(candidate.psnr >= round(least, 6) for candidate in bounded.front)
    assert bounded.chosen.fingerprint == bounded.front[0].architecture.fingerprint


def test_a_psnr_that_nobody_reaches_is_told_and_the_best_kept(tmp_path: Path) -> None:
    result = run(tmp_path, min_psnr=99.0, generations=0)
    assert result.missed is not None and "no candidate reached 99.00 dB; the best, which is kept, has" in result.missed
    assert len(result.front) == 1
    assert result.front[0].psnr == pytest.approx(max(float(row["psnr_db"]) for row in rows(tmp_path)), abs=1e-4)
    assert "no candidate reached 99.00 dB" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_what_is_below_the_smallest_psnr_counts_for_nothing(tmp_path: Path) -> None:
    told = Told()
    FALSR().run(small_task(tmp_path, progress=told, min_psnr=99.0, generations=1))
    assert all("hypervolume 0.000 dB" in line for line in told.lines if "hypervolume" in line)
    free = run(tmp_path / "free", generations=1)
    highest = max(candidate.psnr for candidate in free.front)
    best = Told()
    FALSR().run(small_task(tmp_path / "best", progress=best, min_psnr=round(highest, 6) - 1e-6, generations=1))
    (only,) = [row for row in rows(tmp_path / "best") if row["front"]]
    assert f"least {format_quantity(float(only['flops']), 'MACs')} and" in best.lines[-1]


@pytest.mark.slow
def test_early_stopping_gives_up_candidates_and_says_so(tmp_path: Path) -> None:
    settings = {"evaluation": {"steps": 8, "batch": 2, "crop": 8, "learning_rate": 2e-3, "early_stop": 0.0}}
    run(tmp_path, population=6, generations=4, **settings)
    stopped = [row for row in rows(tmp_path) if row["stopped"] == "1"]
    assert stopped and all(row["steps"] == "4" for row in stopped)
    # Whoever was given up was behind somebody who cost no more.
    for row in stopped:
        assert any(
            float(other["flops"]) <= float(row["flops"])
            and float(other["params"]) <= float(row["params"])
            and float(other["psnr_db"]) > float(row["psnr_db"])
            for other in rows(tmp_path)
        )


# Killed


SCRIPT = """
import sys
from pathlib import Path
from hwnas.searches import Machines
from hwnas.searches.falsr.search import FALSR
from tests.falsr.searching import small_task
from dataclasses import replace
if __name__ == "__main__":
    task = small_task(Path(sys.argv[1]), ["{budget}"], evaluation={settings})
    FALSR().run(replace(task, machines=Machines(workers=2)))
"""
LONGER = {"steps": 12, "batch": 2, "crop": 8, "learning_rate": 2e-3}


def started(path: Path) -> subprocess.Popen[bytes]:
    script = path / "search.py"
    script.write_text(SCRIPT.format(budget=BUDGET, settings=LONGER))
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, str(script), str(path / "run")], env={**os.environ, "PYTHONPATH": str(root)}, cwd=root
    )


@pytest.mark.slow
def test_killed_at_any_time_it_goes_on_and_evaluates_nothing_twice(tmp_path: Path) -> None:
    log = tmp_path / "run" / "search" / "trials.jsonl"
    for lines in (2, 6):
        process = started(tmp_path)
        until = time.monotonic() + 120
        while not (log.exists() and log.read_bytes().count(b"\n") >= lines) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = started(tmp_path)
    assert process.wait(timeout=240) == 0
    tried = [json.loads(line)["architecture"] for line in log.read_text().splitlines() if line.strip()]
    assert len(tried) == len(set(tried)) == 12
    assert len(rows(tmp_path / "run")) == 12


@pytest.mark.slow
def test_generations_are_told_with_their_figures(tmp_path: Path) -> None:
    told = Told()
    FALSR().run(small_task(tmp_path, [BUDGET], told))
    lines = [line for line in told.lines if line.startswith("generation")]
    assert len(lines) == 3
    volumes = [float(re.search(r"hypervolume (\S+) dB", line)[1]) for line in lines]  # type: ignore[index]
    assert all(a <= b for a, b in itertools.pairwise(volumes))
    for line in lines:
        assert re.search(
            r"front \d+, hypervolume .* dB, best .* dB, least .*MACs and .*Params; [\d.]+ trials/min", line
        )


def test_measured_latency_is_an_objective(tmp_path: Path) -> None:
    task = replace(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=0), input_size=(24, 32))
    FALSR().reach_devices(task.space, task.budgets, task.settings, task.input_size)
    result = FALSR().run(task)
    for candidate in result.front:
        assert candidate.measured["latency@cpu"] > 0 and set(candidate.costs) == {"params"}
    assert all(float(row["latency@cpu_measured"]) > 0 for row in rows(tmp_path))
    log = Log(tmp_path / "search" / "trials.jsonl")
    assert len(log.ratios) >= 4 and log.speeds["latency@cpu"].yardstick > 0 and log.speeds["latency@cpu"].device
