"""What the search presses on: the expected costs, and how heavily each weighs in the loss of the alphas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from hwnas.budget import Budget
from hwnas.cost_models import cost_model
from hwnas.operators import FLOAT_BITS
from hwnas.searches.differentiable.budget_control import budget_loss, next_multiplier
from hwnas.sizes import Size
from hwnas.spaces.space import SearchSpace

Relaxed = TypeVar("Relaxed")
"""A relaxed architecture: the probabilities that a supernet computes with."""


class ExpectedCost(ABC, Generic[Relaxed]):
    """What a relaxed architecture costs; differentiable in its probabilities.

    Attributes:
        at_uniform: the cost where the search starts, in the metric's unit.
    """

    at_uniform: float

    @abstractmethod
    def normalised(self, relaxed: Relaxed) -> Tensor:
        """The cost divided by that at the start: a scalar."""

    def value(self, relaxed: Relaxed) -> float:
        """The cost in the metric's unit."""
        return float(self.normalised(relaxed)) * self.at_uniform


@dataclass
class Pressure(Generic[Relaxed]):
    """One expected cost.

    Attributes:
        budget: the bound; its limit is infinite where the user gave none.
        cost: the expected cost.
        penalty: the user's constant weight of the normalised cost (the paper's eta), or None: the budget sets it.
        multiplier: the dual variable of the budget; see `budget_control`.
        bound: what the expected cost is held to now: it comes down to the budget, see `tighten`.
    """

    budget: Budget
    cost: ExpectedCost[Relaxed]
    penalty: float | None
    multiplier: float = 0.0
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        self.bound = self.budget.limit

    def loss(self, relaxed: Relaxed) -> Tensor:
        """The hardware term of the alphas' loss, scalar."""
        normalised = self.cost.normalised(relaxed)
        if self.penalty is not None:
            return self.penalty * normalised
        return budget_loss(normalised * (self.cost.at_uniform / self.bound) - 1, self.multiplier)

    def tighten(self, progress: float) -> None:
        """Let the bound come down, from what the space costs on average to the budget, reached half-way.

        At once, the full excess would push all costly candidates down before the task has judged any, the entropy term
        would settle that, and the search would end far below its budget; at the end, nothing moves any more.

        Args:
            progress: 0..1, the share of the alpha steps that are taken.
        """
        limit = self.budget.limit
        self.bound = limit + max(0.0, self.cost.at_uniform - limit) * max(0.0, 1 - 2 * progress)

    def update(self, relaxed: Relaxed) -> None:
        """Raise or lower the dual variable after an epoch; a constant penalty has none."""
        if self.penalty is None:
            excess = self.cost.value(relaxed) / self.bound - 1
            self.multiplier = next_multiplier(self.multiplier, excess)

    def describe(self, relaxed: Relaxed) -> str:
        """``6.1 GBitOps of 5 GBitOps``, or ``7.2 ms predicted of 8 ms``."""
        expected = self.budget.format(self.cost.value(relaxed)) + " predicted" * self.budget.model.measurable
        return (
            expected if self.budget.limit == float("inf") else f"{expected} of {self.budget.format(self.budget.limit)}"
        )


def make_pressures(
    space: SearchSpace,
    budgets: tuple[Budget, ...],
    penalty: float | None,
    input_size: Size | None,
    cost_of: Callable[[Budget], ExpectedCost[Relaxed]],
) -> list[Pressure[Relaxed]]:
    """One pressure for each budget; where there is none, on BitOps if bits are chosen and on FLOPs if not.

    Args:
        space: what is searched.
        budgets: the user's.
        penalty: the user's constant weight of each term; None lets each budget set its own.
        input_size: at which a cost without a budget is taken; None for the paper's.
        cost_of: the expected cost in a budget's metric.
    """
    if not budgets:
        model = cost_model("flops" if space.bits == (FLOAT_BITS,) else "bitops")
        budgets = (Budget(model.name, float("inf"), input_size or model.default_input_size),)
        penalty = penalty or 0.0
    return [Pressure(budget, cost_of(budget), penalty) for budget in budgets]
