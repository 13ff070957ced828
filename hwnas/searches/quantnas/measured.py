"""Deriving under a budget in time: predictions propose, and the device decides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.errors import HwnasError
from hwnas.searches.base import SearchTask
from hwnas.searches.derivation import CostLimit, derive
from hwnas.spaces.space import LayerwiseSpace

MORE, STEPS = 1.05, (0.97, 0.999)
"""Shares of the limit that networks are proposed at: first a little more, since predictions err to both sides, then the
limit, then ever less, each time so much less than what the last one takes; in smaller steps where the space ends before
there are enough."""

TOGETHER = 5
"""Networks that are proposed at once: the best of the front."""

ATTEMPTS = 3
"""Rounds of proposing and measuring at most."""

Choice = tuple[int, ...]


@dataclass(frozen=True)
class Derived:
    """What was derived.

    Attributes:
        chosen: the candidate of each layer; None if there is none within the budgets.
        measured: metric to value, of all choices that were measured, by candidates in the order of the layers; all at
            the speed that the device had in the last session.
    """

    chosen: dict[str, int] | None
    measured: dict[Choice, dict[str, float]] = field(default_factory=dict)


def limit_of(task: SearchTask[LayerwiseSpace], budget: Budget) -> CostLimit:
    """A budget as a constraint on what is chosen."""
    model = budget.model
    constant = model.space_constant(task.space, budget.input_size)
    return CostLimit(model.table(task.space, budget.input_size), budget.limit - constant)


def derive_measured(task: SearchTask[LayerwiseSpace], log_probabilities: Mapping[str, Sequence[float]]) -> Derived:
    """The most probable choice within the budgets; of those that can be measured, by measurement.

    The networks that the predictions propose around the limit are measured in turn. The predictions are corrected by
    what was found and propose again, until they propose nothing new.

    Raises:
        HwnasError: if no network is found within a budget in time, or the device cannot measure.
    """
    timed = [budget for budget in task.budgets if budget.model.measurable]
    if not timed:
        return Derived(derive(log_probabilities, [limit_of(task, budget) for budget in task.budgets]))
    names = list(task.space.choices)
    measured: dict[Choice, dict[str, float]] = {}
    within: list[Choice] = []
    corrections = dict.fromkeys((budget.metric for budget in timed), 1.0)
    for attempt in range(1, ATTEMPTS + 1):
        proposed = [c for c in _proposals(task, timed, log_probabilities, corrections) if c not in measured]
        if not within and (not proposed or attempt == ATTEMPTS):
            fastest = _fastest(task, timed)
            proposed += [fastest] if fastest not in (*measured, *proposed) else []
        if not proposed:
            break
        architectures = {choice: task.space.architecture(_named(task, choice)) for choice in proposed}
        measured |= {choice: {} for choice in proposed}
        for budget in timed:
            before = budget.model.yardstick
            found = budget.model.measure(list(architectures.values()), budget.input_size, task.progress)
            for costs in measured.values():
                if budget.metric in costs:
                    costs[budget.metric] *= budget.model.yardstick / before
            errors = []
            for (choice, architecture), ms in zip(architectures.items(), found, strict=True):
                measured[choice][budget.metric] = ms
                # The predictions know of these measurements already; what is left is what they cannot express.
                errors.append(_predicted(budget, architecture) / ms)
            corrections[budget.metric] = statistics.median(errors)
        within = [c for c, costs in measured.items() if all(costs[b.metric] <= b.limit for b in timed)]
        for budget in timed if not within else ():
            least = min(costs[budget.metric] for costs in measured.values())
            task.progress.say(
                f"of {len(measured)} networks, {budget.model.how_measured}, none takes {budget} or less, the fastest "
                f"{budget.format(least)}; predictions are corrected by that, to derive again"
            )
    if within:
        best = max(within, key=lambda c: math.fsum(log_probabilities[n][i] for n, i in zip(names, c, strict=True)))
        return Derived(_named(task, best), measured)
    raise HwnasError(
        f"no network of space {task.space.name} was found within {' and '.join(map(str, timed))}; raise the budget, "
        "or run the same command with --resume when the device is less busy"
    )


def _proposals(
    task: SearchTask[LayerwiseSpace],
    timed: Sequence[Budget],
    log_probabilities: Mapping[str, Sequence[float]],
    corrections: Mapping[str, float],
) -> list[Choice]:
    """The best of the front, by what is predicted times the corrections."""
    found: dict[Choice, None] = {}
    for step in STEPS:
        share, last = MORE, None
        while len(found) < TOGETHER:
            limits = [
                limit_of(task, replace(b, limit=b.limit * share * corrections[b.metric]) if b in timed else b)
                for b in task.budgets
            ]
            choice = derive(log_probabilities, limits)
            # Networks of microseconds may be predicted to take none at all, and then there is no end of less.
            if choice is None or (choice == last and share < 1):
                break
            last = choice
            found[tuple(choice[layer] for layer in task.space.choices)] = None
            # The next one is to take less than this one does, which may be much less than it is allowed.
            architecture = task.space.architecture(choice)
            taken = max(_predicted(b, architecture) / (b.limit * corrections[b.metric]) for b in timed)
            share = 1.0 if share > 1 else step * min(share, taken)
    return list(found)


def _predicted(budget: Budget, architecture: Architecture) -> float:
    return budget.model.architecture_cost(architecture, budget.input_size).value


def _fastest(task: SearchTask[LayerwiseSpace], timed: Sequence[Budget]) -> Choice:
    """What is predicted to be fastest: a device that was slow when the table was built may be faster now."""
    limits = [limit_of(task, budget) for budget in task.budgets if budget not in timed]
    table = limit_of(task, timed[0]).table
    fastest = derive({layer: [-ms for ms in row] for layer, row in table.items()}, limits)
    assert fastest is not None, "the other budgets were found feasible before the search"
    return tuple(fastest[layer] for layer in task.space.choices)


def _named(task: SearchTask[LayerwiseSpace], choice: Choice) -> dict[str, int]:
    return dict(zip(task.space.choices, choice, strict=True))
