"""What every search is: a task in, a Pareto front of candidates out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.data.sources import TrainingData
from hwnas.progress import Progress
from hwnas.registry import Registry
from hwnas.run_directory import RunDirectory
from hwnas.searches import feasibility
from hwnas.searches.feasibility import CostRange
from hwnas.sizes import Size
from hwnas.spaces.space import SearchSpace, layerwise


@dataclass(frozen=True)
class Machines:
    """Where networks are tried out. What a search finds does not depend on it, but for rounding: a worker has its share
    of the processors, and sums are added up in another order by other numbers of threads.

    Attributes:
        workers: processes of this machine at once.
        ray: address of a cluster to use instead.
        cpus: processors of the cluster for each network.
        gpus: GPUs of the cluster for each network; 0.5 for two that share one.
    """

    workers: int = 1
    ray: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


Space = TypeVar("Space", bound=SearchSpace)


@dataclass(frozen=True)
class SearchTask(Generic[Space]):
    """What a search is asked for.

    Attributes:
        space: where to search.
        budgets: upper bounds; all have to be met. The first, or the search's own metric, orders the front.
        input_size: low-resolution height and width at which costs without a budget are taken; None for each one's own.
        data: training images and the validation images it may select on.
        settings: an instance of the search's ``Settings``.
        target: name of the device it is for.
        seed: the same seed gives the same result on a CPU.
        run: where results and resume states go; if a state of an unfinished search is there, it goes on from it.
        progress: whom to tell.
        machines: where networks are tried out, for a search that tries out several at once.
    """

    space: Space
    budgets: tuple[Budget, ...]
    data: TrainingData
    settings: BaseModel
    target: str
    seed: int
    run: RunDirectory
    progress: Progress
    machines: Machines = Machines()
    input_size: Size | None = None


@dataclass(frozen=True)
class Candidate:
    """A point of the front.

    Attributes:
        architecture: the network.
        costs: metric name to value, at the task's input sizes; predicted, of what can be measured, if it is there.
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
        missed: what was asked for and not found, if so; an error, after the result is kept.
    """

    chosen: Architecture
    front: tuple[Candidate, ...]
    missed: str | None = None


class Search(ABC):
    """A search algorithm; registered under its name, with its settings as a pydantic model.

    ``default_space`` names the space it searches unless told. What a space can cost is known of those whose layers are
    chosen one by one; a search of others says it of them, by `cost_range` and `require_feasible`.
    """

    Settings: ClassVar[type[BaseModel]]
    default_space: ClassVar[str] = "quantnas"
    takes_machines: ClassVar[bool] = False
    """Whether it tries out several networks at once."""

    columns: ClassVar[tuple[str, str]] = ("log_probability", "supernet_psnr_db")
    """What a candidate's ``score`` and ``psnr`` are called in tables."""

    def check(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        """Find out, before anything is loaded or written, whether devices can be reached and budgets be met.

        Args:
            space: where to search.
            budgets: to be met.
            settings: an instance of ``Settings``.
            input_size: as of `SearchTask`.

        Raises:
            UsageError: if a budget cannot be met, with the least that can, or the space is not one for this search.
            HwnasError: if a device that is to be asked cannot be reached.
        """
        self.reach_devices(space, budgets, settings, input_size)
        feasibility.require_feasible(layerwise(space, "this search"), budgets)

    def reach_devices(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        """Find out whether costs can be told, and at which speed, where that is for a device to say; see `check`.

        Raises:
            HwnasError: if they cannot.
        """
        for budget in budgets:
            budget.model.require(space, budget.input_size)

    def cost_range(self, space: SearchSpace, budget: Budget) -> CostRange:
        """What networks of the space cost, in the metric of the budget."""
        return feasibility.cost_range(layerwise(space, "this search"), budget)

    @abstractmethod
    def run(self, task: SearchTask) -> SearchResult:
        """Search.

        Raises:
            UsageError: before any training, if the budgets cannot be met.
            HwnasError: if training diverges, data are unusable, or nothing can be written.
        """


SEARCHES: Registry[Search] = Registry("algorithm", "hwnas.searches")
