"""What trilevel networks cost: of each choice, at least and at most, and expected; in any metric that adds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.budget import Budget
from hwnas.networks.trilevel import CELL
from hwnas.networks.wiring import Slot
from hwnas.searches.differentiable.pressure import ExpectedCost
from hwnas.searches.trilevel.relaxation import RelaxedPaths
from hwnas.spaces.trilevel import TrilevelSpace
from hwnas.spaces.trilevel_networks import end_spec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellTable:
    """What the layers of a cell cost at one resolution.

    Attributes:
        first: [operators, widths]: of the first layer, by what it writes.
        middle: [operators, widths, widths]: of those between, by what they read and write.
        last: [operators, widths]: of the last layer, by what it reads.
    """

    first: Floats
    middle: Floats
    last: Floats

    def extreme(self, layers: int, better: Callable[..., Floats]) -> float:
        """The least (``np.min``) or the most (``np.max``) that a cell of so many layers can cost."""
        so_far = better(self.first, axis=0)
        for _ in range(layers - 2):
            so_far = better(so_far[:, None] + better(self.middle, axis=0), axis=0)
        return float(better(so_far + better(self.last, axis=0)))


class CostTables:
    """The costs of a space in a budget's metric, at its input size.

    Attributes:
        constant: what all networks cost besides the modules of their paths.
    """

    def __init__(self, space: TrilevelSpace, budget: Budget) -> None:
        self.space = space
        self._price = budget.model.prices(space, budget.input_size)
        self.constant = sum(map(self._end, space.ends)) + budget.model.space_constant(space, budget.input_size)

    @cached_property
    def cells(self) -> dict[int, CellTable]:
        """By resolution."""
        return {r: self._table(r) for r in {m.resolution for m in self.space.graph.modules if m.kind == CELL}}

    @cached_property
    def upsamplings(self) -> dict[int, float]:
        """Of each module that is none, by its number."""
        channels = self.space.channels
        return {
            i: self._end(Slot("up", channels, channels, module.resolution))
            for i, module in enumerate(self.space.graph.modules)
            if module.kind != CELL
        }

    def extreme(self, better: Callable[..., Floats]) -> float:
        """The least (``np.min``) or the most (``np.max``) that a network of the space can cost."""
        modules = self.space.graph.modules
        cells = {r: table.extreme(self.space.layers, better) for r, table in self.cells.items()}
        each = [self.upsamplings[i] if i in self.upsamplings else cells[m.resolution] for i, m in enumerate(modules)]
        paths = [sum(each[i] for i in members) for members in self.space.graph.members]
        return self.constant + float(better(np.array(paths)))

    def besides(self, path: int) -> float:
        """What networks of a path cost besides its cells."""
        members = self.space.graph.members[path]
        return self.constant + sum(self.upsamplings[i] for i in members if i in self.upsamplings)

    def _end(self, slot: Slot) -> float:
        spec = end_spec(slot.name, slot.in_channels, slot.out_channels, self.space.width)
        return self._price(spec, slot.resolution)

    def _table(self, resolution: int) -> CellTable:
        space = self.space
        operators, widths = range(len(space.operators)), range(len(space.widths))

        def cost(operator: int, read: int | None, written: int | None, first: bool = False) -> float:
            return float(self._price(space.layer(operator, read, written, first), resolution))

        shape = len(operators), len(widths)
        return CellTable(
            np.array([cost(o, None, k, first=True) for o, k in product(operators, widths)]).reshape(shape),
            np.array([cost(*choice) for choice in product(operators, widths, widths)]).reshape(*shape, len(widths)),
            np.array([cost(o, k, None) for o, k in product(operators, widths)]).reshape(shape),
        )


class TrilevelCost(ExpectedCost[RelaxedPaths]):
    """Sum over modules of the probability that they are on the path, times what they cost.

    A cell's cost is that of its operators and widths, drawn independently: the sum over nodes of a tree of their weight
    times the cost of all from the root to them.

    Args:
        tables: of the metric.
        uniform: the relaxed architecture that a search starts from, but for its noise.
    """

    def __init__(self, tables: CostTables, uniform: RelaxedPaths) -> None:
        modules = tables.space.graph.modules
        numbers = list(tables.space.graph.cells)
        self._tables = tables
        self._cells = {
            r: ([n for n, i in enumerate(numbers) if modules[i].resolution == r], table)
            for r, table in tables.cells.items()
        }
        self._numbers = numbers
        self.at_uniform = 1.0
        self.at_uniform = float(self.normalised(uniform))

    def normalised(self, relaxed: RelaxedPaths) -> Tensor:
        # In double precision: raw costs are some 1e12.
        operators, widths, used = relaxed.operators.double(), relaxed.widths.double(), relaxed.modules.double()
        total = torch.as_tensor(self._tables.constant, dtype=torch.float64, device=used.device)
        for cells, table in self._cells.values():
            a, p = operators[cells], widths[cells]
            first, middle, last = (torch.from_numpy(t).to(a.device) for t in (table.first, table.middle, table.last))
            cost = torch.einsum("no,nk,ok->n", a[:, 0], p[:, 0], first)
            cost = cost + torch.einsum("nlo,nlj,nlk,ojk->n", a[:, 1:-1], p[:, :-1], p[:, 1:], middle)
            cost = cost + torch.einsum("no,nk,ok->n", a[:, -1], p[:, -1], last)
            total = total + used[[self._numbers[n] for n in cells]] @ cost
        for i, cost_of_one in self._tables.upsamplings.items():
            total = total + used[i] * cost_of_one
        return (total / self.at_uniform).to(relaxed.modules.dtype)
