"""Deriving under a budget in time: predictions propose, and the device decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hwnas.budget import Budget
from hwnas.errors import HwnasError
from hwnas.searches.base import SearchTask
from hwnas.searches.derivation import CostLimit, derive

AROUND = (1.05, 1.0, 0.97, 0.94, 0.9)
"""Shares of the limit that networks are proposed at: predictions err to both sides."""

ATTEMPTS = 3
"""Rounds of proposing and measuring at most."""

Choice = tuple[int, ...]


@dataclass(frozen=True)
class Derived:
    """What was derived.

    Attributes:
        chosen: the candidate of each layer; None if there is none within the budgets.
        measured: metric to value, of all choices that were measured, by candidates in the order of the layers.
    """

    chosen: dict[str, int] | None
    measured: dict[Choice, dict[str, float]] = field(default_factory=dict)


def limit_of(task: SearchTask, budget: Budget) -> CostLimit:
    """A budget as a constraint on what is chosen."""
    model = budget.model
    constant = model.space_constant(task.space, budget.input_size)
    return CostLimit(model.table(task.space, budget.input_size), budget.limit - constant)


def derive_measured(task: SearchTask, log_probabilities: Mapping[str, Sequence[float]]) -> Derived:
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
    for _ in range(ATTEMPTS):
        proposed = [choice for choice in _proposals(task, timed, log_probabilities) if choice not in measured]
        if not proposed:
            break
        architectures = [task.space.architecture(_named(task, choice)) for choice in proposed]
        measured |= {choice: {} for choice in proposed}
        for budget in timed:
            values = budget.model.measure(architectures, budget.input_size, task.progress)
            for choice, value in zip(proposed, values, strict=True):
                measured[choice][budget.metric] = value
        within = [c for c, costs in measured.items() if all(costs[b.metric] <= b.limit for b in timed)]
        for budget in timed if not within else ():
            least = min(costs[budget.metric] for costs in measured.values())
            task.progress.say(
                f"of {len(measured)} networks that were measured none takes {budget} or less, the fastest "
                f"{budget.format(least)}; predictions are corrected by that, to derive again"
            )
    if within:
        best = max(within, key=lambda c: math.fsum(log_probabilities[n][i] for n, i in zip(names, c, strict=True)))
        return Derived(_named(task, best), measured)
    raise HwnasError(
        f"no network of space {task.space.name} was measured within {' and '.join(map(str, timed))}; raise the budget, "
        "or run the same command with --resume when the device is less busy"
    )


def _proposals(
    task: SearchTask, timed: Sequence[Budget], log_probabilities: Mapping[str, Sequence[float]]
) -> list[Choice]:
    found: dict[Choice, None] = {}
    for share in AROUND:
        budgets = [replace(b, limit=b.limit * share) if b in timed else b for b in task.budgets]
        choice = derive(log_probabilities, [limit_of(task, budget) for budget in budgets])
        if choice is not None:
            found[tuple(choice[layer] for layer in task.space.choices)] = None
    if not found:  # a device that was slow when it was predicted may be faster now: the fastest one tells
        limits = [limit_of(task, budget) for budget in task.budgets if budget not in timed]
        table = limit_of(task, timed[0]).table
        fastest = derive({layer: [-ms for ms in row] for layer, row in table.items()}, limits)
        assert fastest is not None, "the other budgets were found feasible before the search"
        found[tuple(fastest[layer] for layer in task.space.choices)] = None
    return list(found)


def _named(task: SearchTask, choice: Choice) -> dict[str, int]:
    return dict(zip(task.space.choices, choice, strict=True))
