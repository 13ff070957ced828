"""Published tables by command: each row is some commands of hwnas, and what they leave is measured in the same way.

A row is kept as soon as it is there, so the same command goes on where it was interrupted, or where its time was up. A
row that was not run is absent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawing import Figures, draw
from running import answer, guarded, run_until
from writing import ROOT, commit, into_results, markdown, mean_and_spread, write_csv

from hwnas.architecture import Architecture, load_architecture
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError
from hwnas.files import write_text
from hwnas.run_directory import RunDirectory

RUN, ARCHITECTURE, SEARCHED = "RUN", "ARCH.json", "SEARCHED"
"""Stand for a row's run, for its architecture, and for the run that it is a point of, in its commands."""

COSTS = {"GBitOps 32x32": ("bitops", 1e9), "GMACs 256x256": ("flops", 1e9), "K parameters": ("params", 1e3)}
"""What all rows cost: column to metric, and its unit."""

STARTS = ("search", "train", "run")
"""Commands that take settings and data, and go on by --resume."""


class AbsentError(HwnasError):
    """A row that there cannot be, and why."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: of its folder.
        labels: its first columns.
        commands: of hwnas, in their order, without settings and data; the last leaves a trained network in `RUN`.
        published: figures of the paper, by the columns that they stand beside; it trained on DIV2K.
        architecture: makes what its commands are about, where that is not one that hwnas knows by name; called once,
            and again where it raises `AbsentError`.
        point: name of the row whose search found it, and which point of that front it is; not run if there is none, and
            of the first seed alone, since points of several searches are different networks.
        series: what it is drawn with; None for itself.
    """

    name: str
    labels: Mapping[str, str]
    commands: tuple[tuple[str, ...], ...]
    published: Mapping[str, float] = field(default_factory=dict)
    architecture: Callable[[], Architecture] | None = None
    point: tuple[str, int] | None = None
    series: str | None = None


@dataclass(frozen=True)
class Size:
    """How long rows are searched and trained.

    Attributes:
        search: settings of searches.
        train: settings of trainings.
    """

    search: tuple[str, ...]
    train: tuple[str, ...]

    @property
    def train_steps(self) -> int:
        """Steps of a training."""
        values = dict(setting.split("=") for setting in self.train)
        return int(values["train.epochs"]) * int(values["train.steps_per_epoch"])


QUICK = Size(
    (
        *("search.epochs=2", "search.warmup_epochs=1", "search.steps_per_epoch=2", "search.batch=2", "search.crop=12"),
        *("search.front_points=2",),
    ),
    ("train.epochs=2", "train.steps_per_epoch=2", "train.batch=2", "train.crop=12", "train.collect_steps=2"),
)
"""Shows that a table regenerates, in minutes; its figures say nothing."""

SMALL = Size(
    (
        *("search.epochs=6", "search.warmup_epochs=2", "search.steps_per_epoch=40", "search.batch=8", "search.crop=24"),
        *("search.front_points=8",),
    ),
    ("train.epochs=6", "train.steps_per_epoch=200", "train.batch=8", "train.crop=24", "train.collect_steps=30"),
)
"""For two cores."""


@dataclass(frozen=True)
class Published:
    """A table of a paper.

    Attributes:
        name: of its folder, and of its place in docs/results.md.
        title: of it.
        rows: of a seed.
        x: the column that figures are drawn over.
        measure: what else is measured of a row, from its run: by column.
        size: of searches and trainings.
    """

    name: str
    title: str
    rows: Callable[[], Sequence[Row]]
    x: str = "GBitOps 32x32"
    measure: Callable[[Path], Mapping[str, float]] | None = None
    size: Size = SMALL


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
        quick: what it makes with --quick, where a few steps alone are not quick enough; of the same rows.
    """
    names = [row.name for row in table.rows()]
    options = parser()
    options.add_argument("--data", default="bundled", help="photographs to search and train on")
    options.add_argument("--test", type=Path, action="append", default=[], help="benchmark to score on; repeat")
    options.add_argument("--rows", help=f"with commas, of {', '.join(names)}; all unless told")
    options.add_argument("--seeds", type=int, default=1, help="how many runs of each row")
    options.add_argument("--minutes", type=float, default=600, help="after which no more is run")
    asked = parsed(options)
    wanted = names if asked.rows is None else asked.rows.split(",")
    if unknown := [name for name in wanted if name not in names]:
        options.error(f"there is no row {unknown[0]}; there are {', '.join(names)}")
    if asked.seeds < 1:
        options.error("--seeds is 1 at least")
    if missing := [test for test in asked.test if not test.is_dir()]:
        options.error(f"there is no folder {missing[0]}")
    made = quick if asked.quick and quick is not None else table
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
            place = folder / f"{row.name}-{seed}"
            searched = None if row.point is None else RunDirectory(folder / f"{row.point[0]}-{seed}" / "run")
            if searched is not None and not searched.front_architecture(row.point[1]).exists():  # type: ignore[index]
                print(f"{row.name}: not run, that front has no such point", flush=True)
                continue
            try:
                if not (place / "row.json").exists() and not _make(table, row, place, size, seed, asked.data, end):
                    print(f"{row.name}: not run, its time was up", flush=True)
                    continue
            except AbsentError as absent:
                print(f"{row.name}: not run, {absent}", flush=True)
                continue
            _score(place, asked.test)
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
    now = {"title": table.title, "data": source, "search": list(size.search), "train": list(size.train)}
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(now, indent=1))
    elif json.loads(path.read_text()) != now:
        raise HwnasError(f"{folder} holds rows of other photographs or settings, see {path}; give another --out")


def _make(table: Published, row: Row, place: Path, size: Size, seed: int, data: str, end: float) -> bool:
    """Run what a row lacks; whether it is there in the end."""
    place.mkdir(parents=True, exist_ok=True)
    run, spent = place / "run", place / "seconds.json"
    # Of all seeds the same.
    architecture = place.parent / f"{row.name}.json"
    if row.architecture is not None and not architecture.exists():
        row.architecture().save(architecture)
    stands_for = {RUN: str(run), ARCHITECTURE: str(architecture)}
    if row.point is not None:
        stands_for[SEARCHED] = str(place.parent / f"{row.point[0]}-{seed}" / "run")
    for i, command in enumerate(row.commands):
        done = place / f"{i}.done"
        if done.exists():
            continue
        words = [stands_for.get(word, word) for word in command]
        if command[0] in STARTS:
            settings = [*size.search, *size.train] if command[0] != "train" else size.train
            words += ["--data", data, "--seed", str(seed)]
            words += [part for setting in settings for part in ("--set", setting)]
            words += ["--out", str(run)] if RUN not in command else []
            if (run / "config.yaml").exists() and RUN not in command:
                words.append("--resume")
        if command[0] == "train" and RUN in command:
            # It has the settings of its search.
            words = ["train", str(run), *(["--resume"] if (run / "train").exists() else [])]
        print(f"{row.name}, seed {seed}: hwnas {' '.join(words)}", flush=True)
        started = time.monotonic()
        try:
            if not run_until(words, end):
                return False
        finally:
            before = json.loads(spent.read_text()) if spent.exists() else 0.0
            write_text(spent, json.dumps(before + time.monotonic() - started))
        done.touch()
    found = load_architecture(RunDirectory(run).architecture)
    figures: dict[str, float] = {}
    for label, (metric, unit) in COSTS.items():
        figures[label] = cost_model(metric).architecture_cost(found).value / unit
    if table.measure is not None:
        figures |= table.measure(run)
    seconds = json.loads(spent.read_text())
    kept = {"figures": figures, "seconds": seconds, "commit": commit(), "steps": size.train_steps}
    write_text(place / "row.json", json.dumps(kept, indent=1))
    return True


def _score(place: Path, tests: Sequence[Path]) -> None:
    """Score a row on the benchmarks that it lacks."""
    kept = json.loads((place / "row.json").read_text())
    figures = kept["figures"]
    for test in tests:
        if f"{test.name} dB" not in figures:
            scored = answer("evaluate", place / "run", "--data", test)
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
