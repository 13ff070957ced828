"""What a space can cost at all, said before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING

from hwnas.budget import Budget
from hwnas.errors import UsageError
from hwnas.searches.derivation import CostLimit, derive
from hwnas.spaces.space import LayerwiseSpace, SearchSpace

UNKNOWN = 0.1
"""Share by which predictions are taken to be off that do not say."""


@dataclass(frozen=True, slots=True)
class CostRange:
    """Cheapest, mean and dearest architecture of a space, in the metric's unit; None for what is not known."""

    minimum: float
    centre: float | None
    maximum: float | None

    def beyond(self, budget: Budget) -> str:
        """The rest of a sentence that says the minimum."""
        known = {"centre": self.centre, "maximum": self.maximum}
        return "".join(f", {name} {budget.format(value)}" for name, value in known.items() if value is not None)


def cost_range(space: LayerwiseSpace, budget: Budget) -> CostRange:
    """The range of the budget's metric over ``space`` at the budget's input size."""
    table = budget.model.table(space, budget.input_size)
    constant = budget.model.space_constant(space, budget.input_size)
    rows = list(table.values())
    return CostRange(
        constant + sum(map(min, rows)),
        constant + sum(sum(row) / len(row) for row in rows),
        constant + sum(map(max, rows)),
    )


def require_feasible(space: LayerwiseSpace, budgets: Sequence[Budget]) -> None:
    """Refuse budgets that no architecture of the space meets; errors as `require_within_reach`."""

    def can_meet(bounds: Sequence[Budget]) -> bool:
        limits = [
            CostLimit(bound.model.table(space, size), bound.limit - bound.model.space_constant(space, size))
            for bound, size in ((bound, bound.input_size) for bound in bounds)
        ]
        zeros = {layer: [0.0] * len(candidates) for layer, candidates in space.choices.items()}
        return derive(zeros, limits) is not None

    cheaper = "fewer cells, fewer channels or narrower bits" if space.fixed is None else "narrower bits"
    require_within_reach(space, budgets, lambda budget: cost_range(space, budget), can_meet, cheaper)


def require_within_reach(
    space: SearchSpace,
    budgets: Sequence[Budget],
    range_of: Callable[[Budget], CostRange],
    can_meet: Callable[[Sequence[Budget]], bool],
    cheaper: str,
) -> None:
    """Refuse budgets that no architecture of any space meets.

    Args:
        space: the space.
        budgets: to be met.
        range_of: what its architectures cost.
        can_meet: whether one of them meets several budgets together.
        cheaper: what to use for cheaper ones.

    Raises:
        UsageError: with the minimum, centre and maximum of the space; or if only the combination cannot be met.
    """
    bounds = []
    for budget in budgets:
        if not budget.model.additive:
            raise UsageError(f"{budget.metric} does not add up over operators, so a search cannot be held to it")
        reach, prediction = range_of(budget), budget.model.prediction(space.first, budget.input_size)
        # What a prediction may be off by is for the device to decide.
        limit = budget.limit if prediction is None else budget.limit * (1 + (prediction.uncertainty or UNKNOWN))
        if limit < reach.minimum:
            # Rounded up, so that the number shown is a budget that can be met.
            least = budget.format(reach.minimum, ROUND_CEILING)
            if reach.minimum == reach.maximum:
                raise UsageError(
                    f"no architecture of space {space.name} meets {budget}: all have {least}; raise the budget"
                )
            raise UsageError(
                f"no architecture of space {space.name} meets {budget}: "
                f"its {'predicted ' * (prediction is not None)}minimum is {least}{reach.beyond(budget)}; "
                f"raise the budget, or use {cheaper}"
            )
        bounds.append(replace(budget, limit=limit))
    if not can_meet(bounds):
        raise UsageError(
            f"each of {' and '.join(map(str, budgets))} can be met in space {space.name}, "
            "but not all together; raise one of them"
        )
