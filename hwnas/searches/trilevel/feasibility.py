"""What trilevel networks can cost at all, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING

import numpy as np
import torch

from hwnas.budget import Budget
from hwnas.errors import UsageError
from hwnas.searches.feasibility import CostRange
from hwnas.searches.trilevel.choices import Scores, TrilevelChoices
from hwnas.searches.trilevel.cost import CostTables, TrilevelCost
from hwnas.searches.trilevel.relaxation import PathRelaxation, RelaxedPaths
from hwnas.spaces.trilevel import TrilevelSpace


def cost_range(space: TrilevelSpace, budget: Budget) -> CostRange:
    """The least and the most, exactly, and the mean over paths of what they cost on average."""
    tables = CostTables(space, budget)
    paths = PathRelaxation(space.graph, "softmax", "none", 0.0)
    cells = len(space.graph.cells)
    operators = torch.ones(cells, space.layers, len(space.operators)) / len(space.operators)
    widths = torch.ones(cells, space.layers - 1, len(space.widths)) / len(space.widths)
    uniform = RelaxedPaths(*paths(torch.zeros(paths.size), 0.0), operators, widths)
    return CostRange(tables.extreme(np.min), TrilevelCost(tables, uniform).at_uniform, tables.extreme(np.max))


def require_feasible(space: TrilevelSpace, budgets: Sequence[Budget]) -> None:
    """Refuse budgets that no network of the space meets.

    Raises:
        UsageError: with the least, the mean and the most of the space; or if only the combination cannot be met.
    """
    for budget in budgets:
        if budget.model.measurable:
            raise UsageError(f"trilevel cannot be held to {budget}: there are no latency tables of its spaces yet")
        if not budget.model.additive:
            raise UsageError(f"{budget.metric} does not add up over operators, so a search cannot be held to it")
        reach = cost_range(space, budget)
        if budget.limit < reach.minimum:
            # Rounded up, so that the number shown is a budget that can be met.
            raise UsageError(
                f"no path of space {space.name} meets {budget}: the shortest one, at its narrowest, takes "
                f"{budget.format(reach.minimum, ROUND_CEILING)}{reach.beyond(budget)}; raise the budget, or use fewer "
                "channels or narrower widths"
            )
    if len(budgets) > 1 and _any(space).best(budgets) is None:
        raise UsageError(
            f"each of {' and '.join(map(str, budgets))} can be met in space {space.name}, "
            "but not all together; raise one of them"
        )


def _any(space: TrilevelSpace) -> TrilevelChoices:
    """Choices that are all alike."""
    cells = len(space.graph.cells)
    operators = np.zeros((cells, space.layers, len(space.operators)))
    widths = np.zeros((cells, space.layers - 1, len(space.widths)))
    return TrilevelChoices(space, Scores(np.zeros(len(space.graph.paths)), operators, widths))
