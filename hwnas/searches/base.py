"""What every search is: a task in, a Pareto front of candidates out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.data.sources import TrainingData
from hwnas.progress import Progress
from hwnas.registry import Registry
from hwnas.run_directory import RunDirectory
from hwnas.spaces.space import SearchSpace


@dataclass(frozen=True)
class SearchTask:
    """What a search is asked for.

    Attributes:
        space: where to search.
        budgets: upper bounds; all have to be met. The first, or the search's own metric, orders the front.
        data: training images and the validation images it may select on.
        settings: an instance of the search's ``Settings``.
        target: name of the device it is for.
        seed: the same seed gives the same result on a CPU.
        run: where results and resume states go; if a state of an unfinished search is there, it goes on from it.
        progress: whom to tell.
    """

    space: SearchSpace
    budgets: tuple[Budget, ...]
    data: TrainingData
    settings: BaseModel
    target: str
    seed: int
    run: RunDirectory
    progress: Progress


@dataclass(frozen=True)
class Candidate:
    """A point of the front.

    Attributes:
        architecture: the network.
        costs: metric name to value, at the task's input sizes; predicted, of what can be measured.
        score: the search's own preference, larger is better.
        measured: metric name to value, of those that were measured on the device.
        psnr: validation PSNR of the search's estimate of it, in dB: for comparing points, not a trained network's.
    """

    architecture: Architecture
    costs: Mapping[str, float]
    score: float
    psnr: float
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        chosen: the architecture; it meets every budget.
        front: candidates in ascending order of the first metric; ``chosen`` is among them.
    """

    chosen: Architecture
    front: tuple[Candidate, ...]


class Search(ABC):
    """A search algorithm; registered under its name, with its settings as a pydantic model."""

    Settings: ClassVar[type[BaseModel]]

    @abstractmethod
    def run(self, task: SearchTask) -> SearchResult:
        """Search.

        Raises:
            UsageError: before any training, if the budgets cannot be met.
            HwnasError: if training diverges, data are unusable, or nothing can be written.
        """


SEARCHES: Registry[Search] = Registry("algorithm", "hwnas.searches")
