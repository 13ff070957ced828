"""What the search presses on: the expected costs, and how heavily each weighs in the loss of the alphas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hwnas.budget import Budget
from hwnas.cost_models import cost_model
from hwnas.searches.quantnas.budget_control import budget_loss, next_multiplier
from hwnas.searches.quantnas.objective import ExpectedCost
from hwnas.sizes import Size
from hwnas.spaces.space import LayerwiseSpace


@dataclass
class Pressure:
    """One expected cost.

    Attributes:
        budget: the bound; its limit is infinite where the user gave none.
        cost: the expected cost.
        penalty: the user's constant weight of the normalised cost (the paper's eta), or None: the budget sets it.
        multiplier: the dual variable of the budget; see `budget_control`.
        bound: what the expected cost is held to now: it comes down to the budget, see `tighten`.
    """

    budget: Budget
    cost: ExpectedCost
    penalty: float | None
    multiplier: float = 0.0
    bound: float = field(init=False)

    def __post_init__(self) -> None:
        self.bound = self.budget.limit

    def loss(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """The hardware term of the alphas' loss, scalar."""
        normalised = self.cost.normalised(probabilities)
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

    def update(self, probabilities: Mapping[str, Tensor]) -> None:
        """Raise or lower the dual variable after an epoch; a constant penalty has none."""
        if self.penalty is None:
            excess = self.cost.value(probabilities) / self.bound - 1
            self.multiplier = next_multiplier(self.multiplier, excess)

    def describe(self, probabilities: Mapping[str, Tensor]) -> str:
        """``6.1 GBitOps of 5 GBitOps``, or ``7.2 ms predicted of 8 ms``."""
        expected = self.budget.format(self.cost.value(probabilities)) + " predicted" * self.budget.model.measurable
        return (
            expected if self.budget.limit == float("inf") else f"{expected} of {self.budget.format(self.budget.limit)}"
        )


def unlimited_budget(space: LayerwiseSpace, input_size: Size | None = None) -> Budget:
    """No limit on the metric of the paper for this space: BitOps where bits are chosen, FLOPs where not."""
    quantised = any(spec.is_quantised for candidates in space.choices.values() for spec in candidates)
    model = cost_model("bitops" if quantised else "flops")
    return Budget(model.name, float("inf"), input_size or model.default_input_size)


def make_pressures(
    space: LayerwiseSpace, budgets: tuple[Budget, ...], penalty: float | None, input_size: Size | None = None
) -> list[Pressure]:
    """One pressure for each budget, or on the metric of the paper where there is none.

    Args:
        space: what is searched.
        budgets: the user's.
        penalty: the user's constant weight of each term; None lets each budget set its own.
        input_size: at which the metric of the paper is taken; None for the paper's.
    """
    if not budgets:
        budgets, penalty = (unlimited_budget(space, input_size),), penalty or 0.0
    made = []
    for budget in budgets:
        model = budget.model
        cost = ExpectedCost(model.table(space, budget.input_size), model.space_constant(space, budget.input_size))
        made.append(Pressure(budget, cost, penalty))
    return made
