"""What is sought: costs to minimise beside the quality, and limits on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwnas.budget import Budget
from hwnas.cost_models import CostModel, cost_model
from hwnas.errors import UsageError
from hwnas.searches.falsr.costs import CandidateCosts, Costs
from hwnas.sizes import Size
from hwnas.spaces.falsr import CANONICAL, CELLS, DISTINCT, FALSRSpace, Genotype

UNMEASURED = math.nan
"""A cost that is measured, before it is."""


@dataclass(frozen=True, slots=True)
class Term:
    """A cost that the search looks at.

    Attributes:
        model: the cost model.
        size: low-resolution height and width at which it is taken.
        limit: of a budget; infinite without one.
        is_objective: to be minimised, too.
    """

    model: CostModel
    size: Size
    limit: float = math.inf
    is_objective: bool = True


class Problem:
    """Objectives and budgets of a search.

    Args:
        space: where it searches.
        objectives: names of cost models.
        budgets: upper bounds.
        input_size: of objectives that have no budget; None for each one's own.

    Raises:
        UsageError: if there is no cost model of a name.
    """

    def __init__(
        self, space: FALSRSpace, objectives: Sequence[str], budgets: Sequence[Budget], input_size: Size | None = None
    ) -> None:
        of_budgets = {b.metric: Term(b.model, b.input_size, b.limit, is_objective=False) for b in budgets}
        terms: dict[str, Term] = {}
        for name in objectives:
            model = cost_model(name)
            unbounded = Term(model, input_size or model.default_input_size)
            terms[name] = replace(of_budgets.get(name, unbounded), is_objective=True)
        self.terms = tuple((terms | {name: term for name, term in of_budgets.items() if name not in terms}).values())
        self.space = space
        self.measured = tuple(i for i, term in enumerate(self.terms) if term.model.measurable)
        self._counted = tuple(i for i in range(len(self.terms)) if i not in self.measured)
        self.candidate_costs = CandidateCosts(space, [(self.terms[i].model, self.terms[i].size) for i in self._counted])

    @property
    def objectives(self) -> tuple[int, ...]:
        """Which terms are to be minimised."""
        return tuple(i for i, term in enumerate(self.terms) if term.is_objective)

    def counted(self, genotype: Genotype) -> Costs:
        """Costs of a network; those that are measured are unknown."""
        found = dict(zip(self._counted, self.candidate_costs(genotype), strict=True))
        return tuple(found.get(i, UNMEASURED) for i in range(len(self.terms)))

    def is_over(self, costs: Costs) -> bool:
        """Whether a network is over a budget, as far as is known."""
        return any(cost > term.limit for cost, term in zip(costs, self.terms, strict=True))

    def prices_of_cells(self, place: int, otherwise: str) -> list[float]:
        """What each of the 192 cells costs by itself, in the objective at a place among them.

        Args:
            place: 0 for the first.
            otherwise: the cost model to take if there is no such objective, or it does not add up over cells.
        """
        terms = [self.terms[i] for i in self.objectives]
        term = terms[place] if place < len(terms) else None
        if term is None or not term.model.additive or term.model.measurable:
            model = cost_model(otherwise)
            term = Term(model, model.default_input_size)
        costs = CandidateCosts(self.space, [(term.model, term.size)])
        alone = {cell: costs.asked(cell, CELLS[cell].filters, 0) for cell in DISTINCT}
        return [alone[CANONICAL[cell]] for cell in range(len(CELLS))]


def require_counted_or_measured(budgets: Sequence[Budget]) -> None:
    """Refuse budgets that can be neither counted nor measured.

    Raises:
        UsageError: if there is one.
    """
    for budget in budgets:
        if not (budget.model.additive or budget.model.measurable):
            raise UsageError(f"{budget.metric} does not add up over operators, so a search cannot be held to it")
