"""Published tables by command: each row is some commands of hwnas, and what they leave is measured in the same way.

A row is kept as soon as it is there, so the same command goes on where it was interrupted, or where its time was up. A
row that was not run is absent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drawing import Figures, draw
from making import Making
from published import QUICK, AbsentError, Published, Row, Size
from running import answer, guarded
from writing import ROOT, into_results, markdown, mean_and_spread, write_csv

from hwnas.architecture import load_architecture
from hwnas.errors import HwnasError
from hwnas.files import write_text
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


def parsed(options: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for."""
    asked = options.parse_args()
    if asked.quick and asked.docs:
        options.error("figures of --quick say nothing, and are not for --docs")
    return asked


def main(table: Published, quick: Published | None = None) -> None:
    """The command of a script.

    Args:
        table: what it makes.
        quick: what it makes with --quick, where a few steps alone are not quick enough: of the same rows, or some.
    """
    names = [row.name for row in table.rows()]
    options = parser()
    options.add_argument("--data", default="bundled", help="photographs to search and train on")
    options.add_argument("--test", type=Path, action="append", default=[], help="benchmark to score on; repeat")
    options.add_argument("--rows", help=f"with commas, of {', '.join(names)}; all unless told")
    options.add_argument("--seeds", type=int, default=1, help="how many runs of each row")
    options.add_argument("--minutes", type=float, default=600, help="after which no more is run")
    asked = parsed(options)
    made = quick if asked.quick and quick is not None else table
    names = [row.name for row in made.rows()]
    wanted = names if asked.rows is None else asked.rows.split(",")
    if unknown := [name for name in wanted if name not in names]:
        options.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    if asked.seeds < 1:
        options.error("--seeds is 1 at least")
    if missing := [test for test in asked.test if not test.is_dir()]:
        options.error(f"there is no folder {missing[0]}")
    guarded(lambda: _make_table(made, [row for row in made.rows() if row.name in wanted], asked))


def _make_table(table: Published, rows: Sequence[Row], asked: Any) -> None:
    end = time.monotonic() + 60 * asked.minutes
    folder = asked.out / (table.name + "-quick" * asked.quick)
    size = QUICK if asked.quick else table.size
    _require_same(folder, table, asked.data, size)
    for seed in range(asked.seeds):
        for row in rows:
            if seed and row.point is not None:
                continue
            searched = None if row.point is None else RunDirectory(folder / f"{row.point[0]}-{seed}" / "run")
            if searched is not None and not searched.front_architecture(row.point[1]).exists():  # type: ignore[index]
                print(f"{row.name}: not run, that front has no such point", flush=True)
                continue
            making = Making(table, row, folder, size, seed, asked.data, end)
            try:
                if not making.make():
                    print(f"{row.name}: not run, its time was up", flush=True)
                    continue
            except AbsentError as absent:
                print(f"{row.name}: not run, {absent}", flush=True)
                continue
            _score(making.place, asked.test)
    # All that is there, whatever was asked for now.
    found = {row.name: _kept(folder, row) for row in table.rows()}
    made = [row for row in table.rows() if found[row.name]]
    if not made:
        return
    if not asked.test:
        print("nothing is scored; name benchmarks by --test")
    cells = _cells(folder, made, found)
    write_csv(folder / "table.csv", cells)
    series: dict[str, list[list[Figures]]] = {}
    for row in made:
        name = row.series or ", ".join(row.labels.values())
        series.setdefault(name, []).append([kept["figures"] for kept in found[row.name]])
    draw(folder / "table.png", table.title, table.x, series)
    print(markdown(cells))
    if asked.docs:
        how = (
            f"Searched by {' '.join(size.search)}; trained by {' '.join(size.train)}; the rest as in the preset tiny. "
            "What was not run is absent."
        )
        code = ", ".join(sorted({kept["commit"] for row in made for kept in found[row.name]}))
        into_results(table.name, table.title, _command(asked), cells, how, code)


def _require_same(folder: Path, table: Published, data: str, size: Size) -> None:
    """Rows of one folder are of the same photographs and settings."""
    path, photographs = folder / "made-with.json", Path(data)
    source = str(photographs.resolve()) if photographs.is_dir() else data
    now: dict[str, Any] = {"title": table.title, "data": source, "search": list(size.search), "train": list(size.train)}
    if table.rates:
        now["rates"] = list(table.rates)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(now, indent=1))
    elif json.loads(path.read_text()) != now:
        raise HwnasError(f"{folder} holds rows of other photographs or settings, see {path}; give another --out")


def _score(place: Path, tests: Sequence[Path]) -> None:
    """Score a row on the benchmarks that it lacks."""
    kept = json.loads((place / "row.json").read_text())
    figures = kept["figures"]
    for test in tests:
        if f"{test.name} dB" not in figures:
            scored = answer("evaluate", place / kept["run"], "--data", test)
            figures[f"{test.name} dB"], figures[f"{test.name} bicubic"] = scored["psnr"], scored["bicubic_psnr"]
            write_text(place / "row.json", json.dumps(kept, indent=1))


def _kept(folder: Path, row: Row) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{row.name}-[0-9]*/row.json"))]


def _figures(kept: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    return [one["figures"][column] for one in kept if column in one["figures"]]


def _label(folder: Path, row: Row, name: str) -> str:
    """A network that was made for the table has a name of its own, which tells its width."""
    made = folder / f"{row.name}.json"
    if name == "network" and row.architecture is not None and made.exists():
        return load_architecture(made).name
    return row.labels.get(name, "")


def _cells(folder: Path, rows: Sequence[Row], found: Mapping[str, list[dict[str, Any]]]) -> list[list[str]]:
    columns = list(dict.fromkeys(name for row in rows for kept in found[row.name] for name in kept["figures"]))
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    # A published PSNR stands beside ours on the same benchmark, or not at all.
    published = [name for name in published if not name.endswith(" dB") or name in columns]
    head = [*labels, *columns, *(f"published, DIV2K: {name}" for name in published), "runs", "steps", "minutes"]
    lines = [head]
    for row in rows:
        kept = found[row.name]
        lines.append(
            [
                *(_label(folder, row, name) for name in labels),
                *(mean_and_spread(_figures(kept, column)) for column in columns),
                *(f"{row.published[name]:g}" if name in row.published else "" for name in published),
                str(len(kept)),
                str(kept[0]["steps"]),
                f"{sum(one['seconds'] for one in kept) / 60:.1f}",
            ]
        )
    return lines


def _command(asked: Any) -> str:
    """What was asked for, without the places of one machine."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    data = Path(asked.data).name if Path(asked.data).is_dir() else asked.data
    tests = "".join(f" --test {test.name}" for test in asked.test)
    seeds = f" --seeds {asked.seeds}" if asked.seeds > 1 else ""
    return f"python {script} --data {data}{tests}{seeds}{' --quick' * asked.quick}"
