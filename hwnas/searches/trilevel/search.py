"""The TrilevelNAS search: alternate alpha and weight steps while the tree becomes sparse, then derive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from hwnas.budget import Budget
from hwnas.errors import UsageError
from hwnas.searches.base import SearchTask
from hwnas.searches.differentiable.pressure import make_pressures
from hwnas.searches.differentiable.search import DifferentiableSearch
from hwnas.searches.differentiable.session import Session
from hwnas.searches.feasibility import CostRange
from hwnas.searches.trilevel.choices import Scores, TrilevelChoices
from hwnas.searches.trilevel.cost import CostTables, TrilevelCost
from hwnas.searches.trilevel.feasibility import cost_range, require_feasible
from hwnas.searches.trilevel.relaxation import ORDERING_WEIGHT, PathRelaxation, RelaxedPaths, mean_largest
from hwnas.searches.trilevel.settings import TrilevelSettings
from hwnas.searches.trilevel.supernet import TrilevelSupernet, Widths
from hwnas.sizes import Size
from hwnas.spaces.space import SearchSpace
from hwnas.spaces.trilevel import TrilevelSpace
from hwnas.training.common import cosine, seed_epoch
from hwnas.training.distance import Distance
from hwnas.training.teacher import Teacher

TRACE = 1e-6
"""Share of softmax in the probabilities that a choice is made by: tells those apart that have none at all."""


class Trilevel(DifferentiableSearch):
    """Differentiable search over paths, operators and widths; AGD and AutoDeepLab are two of its spaces."""

    Settings = TrilevelSettings
    default_space = "trilevel-a"
    # Of paths it is one; of operators and widths it is relative to the likeliest of each layer: see `scores_of`.
    columns = ("relative_log_probability", "supernet_psnr_db")

    def check(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        checked, searched = TrilevelSettings.model_validate(settings), _trilevel(space)
        Distance(checked.distance, checked.crop * space.scale)
        if checked.teacher is not None:
            Teacher(checked.teacher, space.scale)
        self.reach_devices(space, budgets, settings, input_size)
        require_feasible(searched, budgets)

    def cost_range(self, space: SearchSpace, budget: Budget) -> CostRange:
        return cost_range(_trilevel(space), budget)

    def begin(self, task: SearchTask) -> TrilevelSession:
        require_feasible(_trilevel(task.space), task.budgets)
        return TrilevelSession(task, TrilevelSettings.model_validate(task.settings))

    def choices(self, session: Session[Any, Any, Any]) -> TrilevelChoices:
        assert isinstance(session, TrilevelSession)
        return TrilevelChoices(session.task.space, scores_of(session.supernet))


def _trilevel(space: SearchSpace) -> TrilevelSpace:
    if not isinstance(space, TrilevelSpace):
        raise UsageError(
            "algorithm trilevel searches the spaces trilevel-a, trilevel-b, agd and autodeeplab, "
            f"not {space.name}; leave --space out"
        )
    return space


class TrilevelSession(Session[TrilevelSpace, TrilevelSettings, RelaxedPaths]):
    """Its own are the radius that grows, the ordering, widths drawn in each step, and the teacher."""

    supernet: TrilevelSupernet

    def __init__(self, task: SearchTask[TrilevelSpace], settings: TrilevelSettings) -> None:
        weight = settings.ordering_weight
        weight = ORDERING_WEIGHT[settings.ordering] if weight is None else weight
        paths = PathRelaxation(task.space.graph, settings.relaxation, settings.ordering, weight)
        seed_epoch(task.seed, "supernet", 0)
        supernet = TrilevelSupernet(task.space, settings.relaxation, paths)
        with torch.no_grad():
            uniform = supernet.relaxed()

        def cost_of(budget: Budget) -> TrilevelCost:
            return TrilevelCost(CostTables(task.space, budget), uniform)

        pressures = make_pressures(task.space, task.budgets, settings.penalty, task.input_size, cost_of)
        self._teacher = None if settings.teacher is None else Teacher(settings.teacher, task.space.scale)
        if self._teacher is not None:
            task = replace(task, data=self._teacher.prepared(task.data, task.progress))
        super().__init__(task, settings, supernet, pressures)
        self._distance = Distance(settings.distance, settings.crop * task.space.scale, self.fabric.device)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.supernet.weights(), self.settings.learning_rate)

    def learning_rate(self, epoch: int, step: int) -> float:
        settings = self.settings
        if epoch < settings.warmup_epochs:
            return settings.warmup_learning_rate
        begun, last = settings.warmup_epochs * settings.steps_per_epoch, settings.epochs * settings.steps_per_epoch
        return settings.learning_rate * cosine(step - begun, last - begun)

    def begin_step(self, progress: float) -> None:
        self.supernet.progress = progress

    def alpha_losses(self, lr: Tensor, hr: Tensor) -> Iterator[Tensor]:
        yield from self._losses(lr, hr, self._after_warmup)

    def weight_losses(self, lr: Tensor, hr: Tensor) -> Iterator[Tensor]:
        warming = self.epoch < self.settings.warmup_epochs
        yield from self._losses(lr, hr, ("max", "min", "random", "random") if warming else self._after_warmup)

    @property
    def _after_warmup(self) -> tuple[Widths, ...]:
        return ("gumbel", "max", "min") if self.settings.sandwich else ("gumbel",)

    def _losses(self, lr: Tensor, hr: Tensor, modes: tuple[Widths, ...]) -> Iterator[Tensor]:
        target = hr if self._teacher is None else self._teacher.target(lr, hr)
        for mode in modes:
            self.supernet.mode = mode
            yield self._distance(self.network(lr), target)

    def regulariser(self, relaxed: RelaxedPaths, epoch: int) -> Tensor:
        return self.supernet.paths.penalty(relaxed.paths)

    def scalars(self, relaxed: RelaxedPaths) -> dict[str, float]:
        return {
            "paths": float((relaxed.paths > 0).sum()),
            "modules": float((relaxed.modules > 0).sum()),
            "largest_path": float(relaxed.paths.max()),
            "mean_largest_operator": mean_largest(relaxed.operators),
            "ordered_pairs": self.supernet.paths.ordered_share(relaxed.paths),
        }

    def figures(self, relaxed: RelaxedPaths) -> dict[str, str]:
        return {"paths": f"{int((relaxed.paths > 0).sum())}", "operators": f"{mean_largest(relaxed.operators):.2f}"}


def scores_of(supernet: TrilevelSupernet) -> Scores:
    """Log-probabilities of all that can be chosen, finite.

    Those of operators and widths are relative to the likeliest of their layer: what is not decided within a cell must
    not count against paths that have more cells. So without a budget the likeliest path is chosen, as published.
    """
    with torch.no_grad():
        relaxed = supernet.relaxed()
        network, operators, widths = supernet.alphas
        if supernet.graph.is_trellis:
            paths = relaxed.paths
        else:
            paths = (1 - TRACE) * relaxed.paths + TRACE * network.softmax(-1)
        mixed = (1 - TRACE) * relaxed.operators + TRACE * operators.softmax(-1)

        def log(p: Tensor) -> Tensor:
            return p.double().log().clamp_min(-1e4).cpu()

        inside = [log(p) - log(p).amax(-1, keepdim=True) for p in (mixed, widths.softmax(-1))]
        return Scores(log(paths).numpy(), *(part.numpy() for part in inside))
