"""Published tables by command: each row is some commands of hwnas, and what they leave is measured in the same way.

A row is kept as soon as it is there, so the same command goes on where it was interrupted, or where its time was up. A
row that was not run is absent.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import Kept, cells_of_rows, kept_rows, lines_of_runs, places_of
from drawing import Figures, draw
from making import Making
from published import QUICK, AbsentError, Published, Row, Size
from running import answer, guarded
from writing import ROOT, into_results, markdown, read_json, write_csv

from hwnas.errors import HwnasError
from hwnas.files import require_writable, write_text
from hwnas.run_directory import RunDirectory


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The script's own words, and defaults."""


def parser() -> argparse.ArgumentParser:
    """Options that all scripts have."""
    made = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__, formatter_class=_Help)
    made.add_argument("--out", type=Path, default=Path("tables"), help="folder of all runs")
    made.add_argument("--quick", action="store_true", help="a few steps of each, to see that it works")
    made.add_argument("--docs", action="store_true", help="write the table into docs/results.md")
    return made


def minutes(text: str) -> float:
    """A time that something may take."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError
    return value


def benchmark(text: str) -> Path:
    """One that figures are called after, wherever it is named from."""
    return Path(text).resolve()


def parsed(options: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for."""
    asked = options.parse_args()
    if asked.quick and asked.docs:
        options.error("figures of --quick say nothing, and are not for --docs")
    return asked


def output_folder(asked: argparse.Namespace, name: str) -> Path:
    """Where a table is kept; found out now whether it can be, before what is in it takes long.

    Raises:
        HwnasError: if it cannot.
    """
    folder: Path = asked.out / (name + "-quick" * asked.quick)
    require_writable(folder / "table.csv")
    return folder


def main(table: Published, quick: Published | None = None) -> None:
    """The command of a script.

    Args:
        table: what it makes.
        quick: what it makes with --quick, where a few steps alone are not quick enough: of the same rows, or some.
    """
    names = [row.name for row in table.rows()]
    options = parser()
    options.add_argument("--data", default="bundled", help="photographs to search and train on")
    options.add_argument("--test", type=benchmark, action="append", default=[], help="benchmark to score on; repeat")
    options.add_argument("--rows", help=f"with commas, of {', '.join(names)}; all unless told")
    options.add_argument("--seeds", type=int, default=1, help="how many runs of each row")
    options.add_argument("--minutes", type=minutes, default=600, help="after which no more is run")
    asked = parsed(options)
    made = quick if asked.quick and quick is not None else table
    rows = list(made.rows())
    names = [row.name for row in rows]
    wanted = names if asked.rows is None else asked.rows.split(",")
    if unknown := [name for name in wanted if name not in names]:
        options.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    if asked.seeds < 1:
        options.error("--seeds is 1 at least")
    require_benchmarks(options, asked.test)
    guarded(lambda: _make_table(made, rows, wanted, asked))


def require_benchmarks(options: argparse.ArgumentParser, tests: Sequence[Path]) -> None:
    """End with an error if one is not there, or two would have one column."""
    if missing := [test for test in tests if not test.is_dir()]:
        options.error(f"there is no folder {missing[0]}")
    if len({test.name for test in tests}) < len(set(tests)):
        options.error("two benchmarks have the same name; columns are called after the last part of their paths")
    if not tests:
        print("nothing is scored; name benchmarks by --test")


def _make_table(table: Published, rows: Sequence[Row], wanted: Sequence[str], asked: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * asked.minutes
    folder = output_folder(asked, table.name)
    size = QUICK if asked.quick else table.size
    _require_same(folder, table, asked.data, size)
    failed = 0
    for seed, row in itertools.product(range(asked.seeds), [row for row in rows if row.name in wanted]):
        # Points of several searches are different networks, and what a network costs has no seed.
        if seed and (row.point is not None or not row.commands):
            continue
        searched = None if row.point is None else RunDirectory(folder / f"{row.point[0]}-{seed}" / "run")
        if searched is not None and not searched.front_architecture(row.point[1]).exists():  # type: ignore[index]
            print(f"{row.name}: not run, that front has no such point", flush=True)
            continue
        try:
            if not Making(table, row, folder, size, seed, asked.data, end).make():
                print(f"{row.name}: not run, its time was up", flush=True)
        except AbsentError as absent:
            print(f"{row.name}: not run, {absent}", flush=True)
        except HwnasError as error:
            # Others do not wait for it.
            failed += 1
            print(f"error: {row.name}, seed {seed}: {error}", file=sys.stderr, flush=True)
    # All that is there, whatever was asked for now.
    for place in [place for row in rows if row.name in wanted for place in places_of(folder, row).values()]:
        try:
            _score(place, asked.test)
        except HwnasError as error:
            failed += 1
            print(f"error: {place.name}: {error}", file=sys.stderr, flush=True)
    found = {row: runs for row in rows if (runs := kept_rows(folder, row))}
    if found:
        _write(table, rows, found, folder, size, asked)
    if failed:
        raise HwnasError(f"what failed: {failed}, see above; the same command tries again")


def _write(
    table: Published,
    rows: Sequence[Row],
    found: Mapping[Row, Mapping[int, Kept]],
    folder: Path,
    size: Size,
    asked: argparse.Namespace,
) -> None:
    cells = cells_of_rows(folder, found)
    write_csv(folder / "table.csv", lines_of_runs(folder, found))
    series: dict[str, list[list[Figures]]] = {}
    for row, runs in found.items():
        name = row.series or ", ".join(row.labels.values())
        series.setdefault(name, []).append([kept["figures"] for kept in runs.values()])
    draw(folder / "table.png", table.title, table.x, series)
    print(markdown(cells))
    if asked.docs:
        commands = {command[0] for row in found for command in row.commands}
        how = [f"Searched by {' '.join(size.search)}; the rest as in the preset tiny."] * ("search" in commands)
        how += [f"Trained by {' '.join(size.train)}; the rest as in the preset tiny."] * bool(commands)
        how += [table.note] * bool(table.note) + ["What was not run is absent."] * (len(found) < len(rows))
        kept = [one for runs in found.values() for one in runs.values()]
        where = [", ".join(sorted({name for one in kept for name in one[what]})) for what in ("commits", "machines")]
        into_results(table.name, table.title, _command(rows, found, asked.data), cells, " ".join(how), "; ".join(where))


def _require_same(folder: Path, table: Published, data: str, size: Size) -> None:
    """Rows of one folder are of the same photographs and settings."""
    path, photographs = folder / "made-with.json", Path(data)
    source = str(photographs.resolve()) if photographs.is_dir() else data
    now: dict[str, Any] = {"title": table.title, "data": source, "search": list(size.search), "train": list(size.train)}
    if table.rates:
        now["rates"] = list(table.rates)
    if path.exists() and any(folder.glob("*/*/config.yaml")) and read_json(path) != now:
        raise HwnasError(f"{folder} holds rows of other photographs or settings, see {path}; give another --out")
    write_text(path, json.dumps(now, indent=1))


def _score(place: Path, tests: Sequence[Path]) -> None:
    """Score a run on the benchmarks that it lacks, or has from other folders."""
    kept = read_json(place / "row.json")
    figures, scored_on = kept["figures"], kept.setdefault("scored on", {})
    for test in tests:
        if kept["run"] is not None and (f"{test.name} dB" not in figures or scored_on.get(test.name) != str(test)):
            scored = answer("evaluate", place / kept["run"], "--data", test)
            figures[f"{test.name} dB"], figures[f"{test.name} bicubic"] = scored["psnr"], scored["bicubic_psnr"]
            scored_on[test.name] = str(test)
            write_text(place / "row.json", json.dumps(kept, indent=1))


def _command(rows: Sequence[Row], found: Mapping[Row, Mapping[int, Kept]], data: str) -> str:
    """What makes the rows that there are, without the places of one machine."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    name = Path(data).name if Path(data).is_dir() else data
    columns = dict.fromkeys(column for runs in found.values() for kept in runs.values() for column in kept["figures"])
    tests = "".join(f" --test {column.removesuffix(' dB')}" for column in columns if column.endswith(" dB"))
    seeds = max(len(runs) for runs in found.values())
    there = "" if len(found) == len(rows) else f" --rows {','.join(row.name for row in found)}"
    return f"python {script} --data {name}{tests}{f' --seeds {seeds}' if seeds > 1 else ''}{there}"
