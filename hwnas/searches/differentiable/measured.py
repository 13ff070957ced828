"""Deriving under a budget in time: predictions propose, and the device decides."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hwnas.budget import Budget
from hwnas.errors import HwnasError
from hwnas.searches.base import SearchTask
from hwnas.searches.differentiable.choices import Choices
from hwnas.spaces.space import Choice

MORE, STEPS = 1.05, (0.97, 0.999)
"""Shares of the limit that networks are proposed at: first a little more, since predictions err to both sides, then the
limit, then ever less, each time so much less than what the last one takes; in smaller steps where the space ends before
there are enough."""

TOGETHER = 5
"""Networks that are proposed at once: the best of the front."""

ATTEMPTS = 3
"""Rounds of proposing and measuring at most."""


@dataclass(frozen=True)
class Derived:
    """What was derived.

    Attributes:
        chosen: None if there is none within the budgets.
        measured: metric to value, of all choices that were measured; all at the speed that the device had in the last
            session.
    """

    chosen: Choice | None
    measured: dict[Choice, dict[str, float]] = field(default_factory=dict)


def derive_measured(task: SearchTask, choices: Choices) -> Derived:
    """The most probable choice within the budgets; of those that can be measured, by measurement.

    The networks that the predictions propose around the limit are measured in turn. The predictions are corrected by
    what was found and propose again, until they propose nothing new.

    Raises:
        HwnasError: if no network is found within a budget in time, or the device cannot measure.
    """
    timed = [budget for budget in task.budgets if budget.model.measurable]
    if not timed:
        return Derived(choices.best(task.budgets))
    measured: dict[Choice, dict[str, float]] = {}
    within: list[Choice] = []
    corrections = dict.fromkeys((budget.metric for budget in timed), 1.0)
    for attempt in range(1, ATTEMPTS + 1):
        proposed = [c for c in _proposals(task, timed, choices, corrections) if c not in measured]
        if not within and (not proposed or attempt == ATTEMPTS):
            # What is predicted to be fastest: a device that was slow when the table was built may be faster now.
            fastest = choices.cheapest(timed[0], [budget for budget in task.budgets if budget not in timed])
            assert fastest is not None, "the other budgets were found feasible before the search"
            proposed += [fastest] if fastest not in (*measured, *proposed) else []
        if not proposed:
            break
        architectures = {choice: choices.space.chosen(choice) for choice in proposed}
        measured |= {choice: {} for choice in proposed}
        for budget in timed:
            before = budget.model.yardstick
            found = budget.model.measure(list(architectures.values()), budget.input_size, task.progress)
            for costs in measured.values():
                if budget.metric in costs:
                    costs[budget.metric] *= budget.model.yardstick / before
            errors, predicted = [], choices.price(budget)
            for choice, ms in zip(architectures, found, strict=True):
                measured[choice][budget.metric] = ms
                # The predictions know of these measurements already; what is left is what they cannot express.
                errors.append(predicted(choice) / ms)
            corrections[budget.metric] = statistics.median(errors)
        within = [c for c, costs in measured.items() if all(costs[b.metric] <= b.limit for b in timed)]
        for budget in timed if not within else ():
            least = min(costs[budget.metric] for costs in measured.values())
            task.progress.say(
                f"of {len(measured)} networks, {budget.model.how_measured}, none takes {budget} or less, the fastest "
                f"{budget.format(least)}; predictions are corrected by that, to derive again"
            )
    if within:
        return Derived(max(within, key=choices.score), measured)
    raise HwnasError(
        f"no network of space {task.space.name} was found within {' and '.join(map(str, timed))}; raise the budget, "
        "or run the same command with --resume when the device is less busy"
    )


def _proposals(
    task: SearchTask, timed: Sequence[Budget], choices: Choices, corrections: Mapping[str, float]
) -> list[Choice]:
    """The best of the front, by what is predicted times the corrections."""
    found: dict[Choice, None] = {}
    prices = [(b.limit * corrections[b.metric], choices.price(b)) for b in timed]
    for step in STEPS:
        share, last = MORE, None
        while len(found) < TOGETHER:
            limits = [
                replace(b, limit=b.limit * share * corrections[b.metric]) if b in timed else b for b in task.budgets
            ]
            choice = choices.best(limits)
            # Networks of microseconds may be predicted to take none at all, and then there is no end of less.
            if choice is None or (choice == last and share < 1):
                break
            last = choice
            found[choice] = None
            # The next one is to take less than this one does, which may be much less than it is allowed.
            taken = max(predicted(choice) / limit for limit, predicted in prices)
            share = 1.0 if share > 1 else step * min(share, taken)
    return list(found)
