"""How tables are kept: as CSV, and between marks in docs/results.md."""

from __future__ import annotations

import csv
import io
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hwnas.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results.md"

Cells = Sequence[Sequence[str]]
"""Lines of a table, the first of which is its head."""


def commit() -> str:
    """Which code was run."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean of some runs, and how far from it they are at most."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    spread = max(abs(value - mean) for value in values)
    return f"{mean:#.4g}" + (f" ± {spread:.2g}" if spread > 1e-9 else "")


def markdown(cells: Cells) -> str:
    """The table for people."""
    head, *lines = cells
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def write_csv(path: Path, cells: Cells) -> None:
    """The table for programs."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(cells)
    write_text(path, text.getvalue())


def into_results(name: str, title: str, command: str, cells: Cells, how: str, code: str | None = None) -> None:
    """Put a table between its marks in docs/results.md, or at the end.

    Args:
        name: of the marks.
        title: of the section.
        command: that makes it.
        cells: the table.
        how: what else is to be known of it; the machine is said besides.
        code: the commits that it was made at; None for the present one.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    where = f"{code or commit()}, {platform.machine()}, Python {platform.python_version()}"
    said = f"{begin}\n### {title}\n\n    {command}\n\n{markdown(cells)}\n\n{how} {where}.\n{end}\n"
    text = RESULTS.read_text(encoding="utf-8")
    if begin in text:
        before, _, rest = text.partition(begin)
        text = before + said + rest.partition(f"{end}\n")[2]
    else:
        text = f"{text.rstrip()}\n\n{said}"
    write_text(RESULTS, text)
