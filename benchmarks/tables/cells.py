"""What kept rows say: a line of each run for programs, a line of each row for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from published import Row
from writing import mean_and_spread, read_json

from hwnas.architecture import load_architecture

Kept = Mapping[str, Any]
"""What a row.json holds."""


def places_of(folder: Path, row: Row) -> dict[int, Path]:
    """The folders of a row's runs that are done, by seed."""
    places = [path.parent for path in folder.glob(f"{row.name}-[0-9]*/row.json")]
    return dict(sorted((int(place.name.rpartition("-")[2]), place) for place in places))


def kept_rows(folder: Path, row: Row) -> dict[int, Kept]:
    """What is there of a row, by seed."""
    return {seed: read_json(place / "row.json") for seed, place in places_of(folder, row).items()}


def lines_of_runs(folder: Path, found: Mapping[Row, Mapping[int, Kept]]) -> list[dict[str, Any]]:
    """One for each run, with all digits."""
    lines = []
    for row, runs in found.items():
        for seed, kept in runs.items():
            last = {
                "seed": seed,
                "steps": kept["steps"],
                "seconds": kept["seconds"],
                "commits": " ".join(kept["commits"]),
            }
            published = {f"published, DIV2K: {name}": value for name, value in row.published.items()}
            lines.append(_labels(folder, row) | kept["figures"] | published | last)
    return lines


def cells_of_rows(folder: Path, found: Mapping[Row, Mapping[int, Kept]]) -> list[list[str]]:
    """One line for each row, with the mean of its runs; a figure that not all of them have is left out."""
    columns = list(dict.fromkeys(name for runs in found.values() for kept in runs.values() for name in kept["figures"]))
    labels = list(dict.fromkeys(name for row in found for name in row.labels))
    published = list(dict.fromkeys(name for row in found for name in row.published))
    # A published PSNR stands beside ours on the same benchmark, or not at all.
    published = [name for name in published if not name.endswith(" dB") or name in columns]
    cells = [[*labels, *columns, *(f"published, DIV2K: {name}" for name in published), "runs", "steps", "minutes"]]
    for row, runs in found.items():
        own = _labels(folder, row)
        figures = [kept["figures"] for kept in runs.values()]
        cells.append(
            [
                *(own.get(name, "") for name in labels),
                *(_mean(figures, column) for column in columns),
                *(_published(name, row) for name in published),
                str(len(runs)),
                str(next(iter(runs.values()))["steps"]),
                f"{sum(kept['seconds'] for kept in runs.values()) / 60:.1f}",
            ]
        )
    return cells


def _published(name: str, row: Row) -> str:
    if name not in row.published:
        return ""
    return f"{row.published[name]:.2f}" if name.endswith(" dB") else f"{row.published[name]:g}"


def _mean(figures: Sequence[Mapping[str, float]], column: str) -> str:
    there = [own[column] for own in figures if column in own]
    return mean_and_spread(there) if len(there) == len(figures) else ""


def _labels(folder: Path, row: Row) -> dict[str, str]:
    """A network that was made for the table has a name of its own, which tells its width."""
    made = folder / f"{row.name}.json"
    if row.architecture is None or not made.exists() or "network" not in row.labels:
        return dict(row.labels)
    return {**row.labels, "network": load_architecture(made).name}
