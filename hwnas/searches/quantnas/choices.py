"""The choices of a space whose layers are chosen one by one: a candidate of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hwnas.budget import Budget
from hwnas.searches.derivation import CostLimit, derive, derive_front
from hwnas.searches.differentiable.choices import Choices
from hwnas.spaces.space import Choice, LayerwiseSpace


class LayerwiseChoices(Choices):
    """The candidate of each layer, in the order of the space.

    Args:
        space: what is chosen in.
        log_probabilities: ``[layer][candidate]``, finite.
    """

    space: LayerwiseSpace

    def __init__(self, space: LayerwiseSpace, log_probabilities: Mapping[str, Sequence[float]]) -> None:
        self.space = space
        self.log_probabilities = log_probabilities

    def named(self, choice: Choice) -> dict[str, int]:
        """The candidate of each layer by its name."""
        return dict(zip(self.space.choices, choice, strict=True))

    def best(self, budgets: Sequence[Budget]) -> Choice | None:
        return self._numbers(derive(self.log_probabilities, self._limits(budgets)))

    def cheapest(self, budget: Budget, others: Sequence[Budget]) -> Choice | None:
        less = {layer: [-cost for cost in row] for layer, row in self._limit(budget).table.items()}
        return self._numbers(derive(less, self._limits(others)))

    def front(self, budget: Budget, others: Sequence[Budget], points: int) -> list[Choice]:
        table = self._limit(budget).table
        found = derive_front(self.log_probabilities, table, self._limits(others), points)
        return [tuple(choice[layer] for layer in self.space.choices) for choice in found]

    def score(self, choice: Choice) -> float:
        return math.fsum(self.log_probabilities[layer][i] for layer, i in self.named(choice).items())

    def price(self, budget: Budget) -> Callable[[Choice], float]:
        # The whole cost, of a limit of zero that what all networks take was subtracted from.
        of_none = self._limit(replace(budget, limit=0.0))
        return lambda choice: of_none.cost(self.named(choice)) - of_none.limit

    def _limits(self, budgets: Sequence[Budget]) -> list[CostLimit]:
        return [self._limit(budget) for budget in budgets]

    def _limit(self, budget: Budget) -> CostLimit:
        model, size = budget.model, budget.input_size
        return CostLimit(model.table(self.space, size), budget.limit - model.space_constant(self.space, size))

    def _numbers(self, choice: Mapping[str, int] | None) -> Choice | None:
        return None if choice is None else tuple(choice[layer] for layer in self.space.choices)
