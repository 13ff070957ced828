"""What trilevel networks can cost at all, said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hwnas.budget import Budget
from hwnas.searches.feasibility import CostRange, require_within_reach
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
    """Refuse budgets that no network of the space meets; errors as `require_within_reach`."""
    require_within_reach(
        space,
        budgets,
        lambda budget: cost_range(space, budget),
        lambda bounds: len(bounds) < 2 or _any(space).best(bounds) is not None,
        "fewer cells, fewer channels or narrower widths",
    )


def _any(space: TrilevelSpace) -> TrilevelChoices:
    """Choices that are all alike."""
    cells = len(space.graph.cells)
    operators = np.zeros((cells, space.layers, len(space.operators)))
    widths = np.zeros((cells, space.layers - 1, len(space.widths)))
    return TrilevelChoices(space, Scores(np.zeros(len(space.graph.paths)), operators, widths))
