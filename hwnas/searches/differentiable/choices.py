"""What a searched supernet can be cut down to: a great many networks, each with a probability and costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from hwnas.budget import Budget
from hwnas.spaces.space import Choice, ChoiceSpace


class Choices(ABC):
    """The choices of a space, with the probabilities that a search has found.

    Costs are those that the cost models predict now: measuring corrects predictions.

    Attributes:
        space: whose choices they are.
    """

    space: ChoiceSpace

    @abstractmethod
    def best(self, budgets: Sequence[Budget]) -> Choice | None:
        """The most probable choice within all budgets; None if there is none."""

    @abstractmethod
    def cheapest(self, budget: Budget, others: Sequence[Budget]) -> Choice | None:
        """The choice that costs least in the budget's metric, within the others; None if there is none."""

    @abstractmethod
    def front(self, budget: Budget, others: Sequence[Budget], points: int) -> list[Choice]:
        """The most probable choices as a limit on the budget's metric falls to the least that there is.

        Args:
            budget: whose metric is swept; its own limit does not matter.
            others: budgets that every point has to meet besides.
            points: number of limits, spaced geometrically.

        Returns:
            In ascending order of cost and of probability.
        """

    @abstractmethod
    def score(self, choice: Choice) -> float:
        """Log-probability."""

    @abstractmethod
    def price(self, budget: Budget) -> Callable[[Choice], float]:
        """What choices cost in the budget's metric, as it is predicted now, whatever is measured later."""
