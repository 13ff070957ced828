"""The FALSR search: NSGA-II with a learned mutation, over candidates that are each trained for a short time."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from decimal import ROUND_CEILING
from pathlib import Path

from pydantic import BaseModel

from hwnas.budget import Budget, format_quantity
from hwnas.errors import HwnasError, UsageError
from hwnas.inference import Validation
from hwnas.operators import SUPPORTED_BITS
from hwnas.searches.base import Search, SearchResult, SearchTask
from hwnas.searches.falsr import feasibility
from hwnas.searches.falsr.chronicle import Chronicle
from hwnas.searches.falsr.costs import CandidateCosts
from hwnas.searches.falsr.evolution import Evolution
from hwnas.searches.falsr.feasibility import cheapest_chains
from hwnas.searches.falsr.judge import TrialJudge, open_workers
from hwnas.searches.falsr.log import Log
from hwnas.searches.falsr.problem import Problem, Term, require_counted_or_measured
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.searches.falsr.trial import TrialData
from hwnas.searches.feasibility import UNKNOWN, CostRange
from hwnas.sizes import Size
from hwnas.spaces.falsr import FALSRSpace
from hwnas.spaces.space import SearchSpace

_SAMPLES = 1000
"""Random networks whose mean is the centre of a space."""


class FALSR(Search):
    """Multi-objective evolution of cells and connections."""

    Settings = FALSRSettings
    default_space = "falsr"
    takes_machines = True
    columns = ("crowding_distance", "psnr_db")

    def check(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        falsr = _falsr(space)
        require_counted_or_measured(budgets)
        self.reach_devices(falsr, budgets, settings, input_size)
        _require_feasible(falsr, budgets)

    def reach_devices(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        problem = Problem(_falsr(space), FALSRSettings.model_validate(settings).objectives, budgets, input_size)
        for i in problem.measured:
            problem.terms[i].model.require(space, problem.terms[i].size)

    def cost_range(self, space: SearchSpace, budget: Budget) -> CostRange:
        if budget.model.measurable:
            return CostRange(budget.model.yardstick, None, None)
        term = Term(budget.model, budget.input_size)
        costs, rng = CandidateCosts(_falsr(space), [(term.model, term.size)]), random.Random(0)
        sampled = [costs(costs.space.sample_genotype(rng))[0] for _ in range(_SAMPLES)]
        least, most = feasibility.cost_range(costs.space, term)
        return CostRange(least, math.fsum(sampled) / _SAMPLES, most)

    def run(self, task: SearchTask) -> SearchResult:
        space, settings = _falsr(task.space), FALSRSettings.model_validate(task.settings)
        folder = task.run.path / "search"
        if not (folder / "trials.jsonl").exists():  # a device may be slower now than when it was found feasible
            _require_feasible(space, task.budgets)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _evolve(task, space, settings, folder / "trials.jsonl")
        finally:
            # Where nothing was tried there is nothing to go on with: the command may be corrected.
            if not (folder / "trials.jsonl").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _falsr(space: SearchSpace) -> FALSRSpace:
    if not isinstance(space, FALSRSpace):
        raise UsageError(
            f"algorithm falsr searches the spaces falsr and falsr-rgb, not {space.name}; leave --space out"
        )
    return space


def _require_feasible(space: FALSRSpace, budgets: Sequence[Budget]) -> None:
    """Refuse budgets that no network of the space meets, with the nearest that one does."""
    for budget in budgets:
        if budget.model.measurable and budget.model.yardstick > budget.limit * (1 + UNKNOWN):
            raise UsageError(
                f"the smallest network of space {space.name} takes {budget.format(budget.model.yardstick)}, which is "
                f"over {budget}; raise the budget, or use fewer cells"
            )
    counted = [budget for budget in budgets if not budget.model.measurable]
    if not counted:
        return
    chains = cheapest_chains(Problem(space, (), counted).candidate_costs)
    within = [[cost <= b.limit for cost, b in zip(costs, counted, strict=True)] for costs, _ in chains]
    if any(map(all, within)):
        return
    for i, budget in enumerate(counted):
        least = min(costs[i] for costs, _ in chains)
        if least > budget.limit:
            raise UsageError(
                f"no architecture of space {space.name} meets {budget}: its minimum is "
                f"{budget.format(least, ROUND_CEILING)}; raise the budget{_smaller(space, budget)}"
            )
    nearest = []
    for i, budget in enumerate(counted):
        others = [costs[i] for (costs, _), met in zip(chains, within, strict=True) if all(met[:i] + met[i + 1 :])]
        if others:
            nearest.append(f"{budget.format(min(others), ROUND_CEILING)} in the place of {budget}")
    raise UsageError(
        f"each of {' and '.join(map(str, counted))} can be met in space {space.name}, but not all together; "
        f"the nearest is {' or '.join(nearest) or 'to raise two of them'}"
    )


def _smaller(space: FALSRSpace, budget: Budget) -> str:
    """What else there is to do where a budget is below the least of the space."""
    bits = budget.metric == "bitops" and space.width > min(SUPPORTED_BITS)
    ways = ["fewer cells"] * (space.cells > 1) + ["narrower bits"] * bits
    return f", or use {' or '.join(ways)}" if ways else ""


def _evolve(task: SearchTask[FALSRSpace], space: FALSRSpace, settings: FALSRSettings, path: Path) -> SearchResult:
    log = Log(path)
    for line in log.broken:
        task.progress.say(f"{log.path}: {line} is broken and skipped; what was there is done again")
    problem = Problem(space, settings.objectives, task.budgets, task.input_size)
    evolution = Evolution(space, problem, settings, task.seed)
    images = task.data.train.room_for(settings.evaluation.crop, task.progress.say)
    data = TrialData.of(task.data, space.scale, settings.evaluation.validation_crop)
    chronicle = Chronicle(task, evolution, Validation(data.validation, space.scale).bicubic_psnr())
    total = settings.population * (settings.generations + 1)
    bar = task.progress.task("search", total, min(total, len(log.trials)))
    with open_workers(task, data) as workers:
        judge = TrialJudge(task, problem, settings.evaluation, log, workers, tuple(images), bar)
        for generation in evolution.generations(judge):
            chronicle.note(generation, judge)
    if not evolution.everyone:
        raise HwnasError(_nobody(task, problem, judge))
    if len(judge.tried) < total:
        task.progress.say(f"{len(judge.tried)} candidates of {total}: no more were found that are within the budgets")
    return chronicle.result(judge)


def _nobody(task: SearchTask[FALSRSpace], problem: Problem, judge: TrialJudge) -> str:
    """Why nothing was found, with the nearest that there is."""
    if judge.tried:
        return f"none of {len(judge.tried)} candidates could be trained to the end; {judge.log.path} says why"
    nearest = []
    for i in problem.measured:
        model, limit = problem.terms[i].model, problem.terms[i].limit
        found = [ratio for (_, metric), ratio in judge.log.ratios.items() if metric == model.name]
        if found and math.isfinite(limit):
            least = format_quantity(min(found) * judge.log.speeds[model.name].yardstick, model.unit)
            nearest.append(f"{least} {model.how_measured} of {format_quantity(limit, model.unit)}")
    return (
        f"no network of space {task.space.name} was found within {' and '.join(map(str, task.budgets))}"
        f"{'; the nearest has ' if nearest else ''}{' and '.join(nearest)}; raise the budget"
    )
