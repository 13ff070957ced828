"""What long work tells while it runs. The work knows this interface; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, units: int = 1, /, **figures: str) -> None:
        """Some units of work are done; ``figures`` are shown beside the bar."""
        ...


class Progress(Protocol):
    """Bars and lines for a person."""

    def task(self, description: str, total: int, done: int = 0) -> Task:
        """A new bar of ``total`` units, ``done`` of which an earlier run did."""
        ...

    def say(self, line: str) -> None:
        """A line that stays on the screen."""
        ...


class _SilentTask:
    def advance(self, units: int = 1, /, **figures: str) -> None:
        pass


class Silent:
    """Tells nothing: for tests and library use."""

    def task(self, description: str, total: int, done: int = 0) -> Task:
        return _SilentTask()

    def say(self, line: str) -> None:
        pass
