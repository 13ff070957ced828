"""How tables are kept: as CSV, and between marks in docs/results.md."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hwnas.devices import open_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.files import write_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results.md"

Cells = Sequence[Sequence[str]]
"""Lines of a table, the first of which is its head."""


def commit() -> str:
    """Which code is run."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


@cache
def machine() -> str:
    """What it is run on."""
    with open_device(load_target("cpu")) as device:
        found = [str(device.probe().fingerprint), f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        found.append(torch.cuda.get_device_name())
    return ", ".join(found)


def read_json(path: Path) -> Any:
    """What was kept in a file.

    Raises:
        HwnasError: if it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise HwnasError(f"{path} cannot be read; remove it, and the same command makes it again") from error


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean of some runs to four digits, and how far from it they are at most."""
    if not values:
        return ""
    mean = statistics.fmean(values)
    spread = max(abs(value - mean) for value in values)
    digits = 4 if abs(mean) < 1 else max(0, 3 - math.floor(math.log10(abs(mean))))
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread > 1e-9 * abs(mean) else "")


def markdown(cells: Cells) -> str:
    """The table for people."""
    head, *lines = cells
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """The table for programs; what a line lacks is empty."""
    text = io.StringIO()
    head = dict.fromkeys(column for line in lines for column in line)
    writer = csv.DictWriter(text, list(head), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def into_results(name: str, title: str, command: str, cells: Cells, how: str, where: str) -> None:
    """Put a table between its marks in docs/results.md, or at the end.

    Args:
        name: of the marks.
        title: of the section.
        command: that makes it.
        cells: the table.
        how: what else is to be known of it.
        where: commits and machines that it was made at.

    Raises:
        HwnasError: if the file has the first mark alone.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    said = f"{begin}\n### {title}\n\n    {command}\n\n{markdown(cells)}\n\n{how} {where}.\n{end}\n"
    text = RESULTS.read_text(encoding="utf-8")
    if begin in text:
        before, _, rest = text.partition(begin)
        _, mark, after = rest.partition(f"{end}\n")
        if not mark:
            raise HwnasError(f"{RESULTS} has no line {end} after {begin}; put it where the table ends")
        text = before + said + after
    else:
        text = f"{text.rstrip()}\n\n{said}"
    write_text(RESULTS, text)
