"""What a published table is: its rows, how long they are trained, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwnas.architecture import Architecture
from hwnas.errors import HwnasError

RUN, ARCHITECTURE, SEARCHED = "RUN", "ARCH.json", "SEARCHED"
"""Stand for a row's run, for its architecture, and for the run that it is a point of, in its commands."""


class AbsentError(HwnasError):
    """A row that there cannot be, and why."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row.

    Attributes:
        name: of its folder.
        labels: its first columns.
        commands: of hwnas, in their order, without settings and data; the last leaves a trained network in `RUN`. None
            of them where what is counted of an architecture is all.
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
        note: what else readers are to know of its rows, in whole sentences.
        rates: learning rates that each row is trained with in the first of its runs; the best by held-out photographs
            is that of all others. Networks differ by more in the rate that suits them than in what they are worth.
            None of them: that of the preset.
    """

    name: str
    title: str
    rows: Callable[[], Sequence[Row]]
    x: str = "GBitOps 32x32"
    measure: Callable[[Path], Mapping[str, float]] | None = None
    size: Size = SMALL
    note: str = ""
    rates: tuple[float, ...] = ()
