"""What people see: bars with the time that remains on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from hwnas.cli.interrupts import raise_if_interrupted
from hwnas.progress import Progress, Task

# What users name may look like markup: a folder may be called "[bold]".
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)
# Nor are tables cut where nobody looks: a pipe has no width.
stdout = Console(
    highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
)


class _Lines:
    """Says a line once: the stages of a command may find the same thing."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            stderr.print(line, soft_wrap=True)


class _Bar:
    def __init__(self, progress: RichProgress, identity: TaskID) -> None:
        self._progress = progress
        self._identity = identity

    def advance(self, units: int = 1, /, **figures: str) -> None:
        raise_if_interrupted()
        # Figures stay until there are others.
        if figures:
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            self._progress.update(self._identity, figures=shown)
        self._progress.update(self._identity, advance=units)


class _Terminal(_Lines):
    def __init__(self, progress: RichProgress) -> None:
        super().__init__()
        self._progress = progress

    def task(self, description: str, total: int, done: int = 0) -> Task:
        raise_if_interrupted()
        return _Bar(self._progress, self._progress.add_task(description, total=total, completed=done, figures=""))


class _Unseen:
    def advance(self, units: int = 1, /, **figures: str) -> None:
        raise_if_interrupted()


class _Plain(_Lines):
    def task(self, description: str, total: int, done: int = 0) -> Task:
        raise_if_interrupted()
        return _Unseen()


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress for the length of a command."""
    if not stderr.is_terminal:
        yield _Plain()
        return
    # On a narrow terminal the figures are cut, not the times.
    figures = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=9)),
        BarColumn(bar_width=12, table_column=Column(min_width=12)),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("ETA", table_column=Column(no_wrap=True, min_width=3)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[figures]}", style="dim", table_column=figures),
    )
    with RichProgress(*columns, console=stderr, expand=True) as bars:
        yield _Terminal(bars)
