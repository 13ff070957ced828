"""What a searched trilevel supernet can be cut down to: a path, and what its cells are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.budget import Budget
from hwnas.searches.derivation import SAME_SCORE, sweep
from hwnas.searches.differentiable.choices import Choices
from hwnas.searches.trilevel.chains import Chains, Picks, best_chains
from hwnas.searches.trilevel.cost import CellTable, CostTables
from hwnas.spaces.space import Choice
from hwnas.spaces.trilevel import CellChoice, TrilevelSpace, pack, unpack

Floats = NDArray[np.float64]

_SLACK = 1e-9
"""Share of a limit by which what is kept of cells may be over it: what is left of a limit is rounded."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities, finite.

    Attributes:
        paths: [P].
        operators: [C, layers, operators], of each cell of the supernet.
        widths: [C, layers - 1, widths].
    """

    paths: Floats
    operators: Floats
    widths: Floats


class TrilevelChoices(Choices):
    """Paths, and in each cell the operators and widths.

    What is best within limits is exact; see `hwnas.searches.trilevel.chains`.
    """

    space: TrilevelSpace

    def __init__(self, space: TrilevelSpace, scores: Scores) -> None:
        self.space = space
        self.scores = scores
        graph = space.graph
        self._numbers = graph.cells
        self._cells = [[i for i in members if i in self._numbers] for members in graph.members]
        # What a path can score at best, whatever it costs.
        inside = scores.operators.max(-1).sum(-1) + scores.widths.max(-1).sum(-1)
        self._bounds = [
            float(score + sum(inside[self._numbers[i]] for i in cells))
            for score, cells in zip(scores.paths, self._cells, strict=True)
        ]

    def best(self, budgets: Sequence[Budget]) -> Choice | None:
        limits = [budget.limit for budget in budgets]
        return self._best(self._fronts(self._gains, budgets, limits), limits)

    def cheapest(self, budget: Budget, others: Sequence[Budget]) -> Choice | None:
        tables, limits = self._tables_of(budget), [other.limit for other in others]
        resolutions = {n: self.space.graph.modules[i].resolution for i, n in self._numbers.items()}

        def cheapness(number: int) -> list[Floats]:
            return [-part for part in _by_layer(tables.cells[resolutions[number]], self.space.layers)]

        fronts = self._fronts(cheapness, others, limits)
        found = [fronts.best(path, limits) for path in range(len(self._cells))]
        return min((choice for choice in found if choice is not None), key=self.price(budget), default=None)

    def front(self, budget: Budget, others: Sequence[Budget], points: int) -> list[Choice]:
        limits = [other.limit for other in others]
        likeliest = self.best(others)
        if likeliest is None:
            return []
        price, cheapest = self.price(budget), self.cheapest(budget, ())
        assert cheapest is not None, "any network is within no limits"
        most = price(likeliest)
        fronts = self._fronts(self._gains, (budget, *others), [most, *limits])

        def within(limit: float) -> Choice | None:
            return self._best(fronts, [limit, *limits])

        return sweep(within, self.score, price(cheapest), most, points)

    def score(self, choice: Choice) -> float:
        path, cells = unpack(choice, self.space)
        parts = [float(self.scores.paths[path])]
        for i, cell in zip(self._cells[path], cells, strict=True):
            number = self._numbers[i]
            parts += [float(self.scores.operators[number, layer, o]) for layer, o in enumerate(cell.operators)]
            parts += [float(self.scores.widths[number, layer, w]) for layer, w in enumerate(cell.widths)]
        return math.fsum(parts)

    def price(self, budget: Budget) -> Callable[[Choice], float]:
        tables = self._tables_of(budget)
        return lambda choice: self._cost(choice, tables)

    def _tables_of(self, budget: Budget) -> CostTables:
        return CostTables(self.space, budget)

    def _cost(self, choice: Choice, tables: CostTables) -> float:
        # Added up in the order in which chains and paths are, so that sums are the same to the last bit.
        path, cells = unpack(choice, self.space)
        total = 0.0
        for i, (operators, widths) in zip(self._cells[path], cells, strict=True):
            table = tables.cells[self.space.graph.modules[i].resolution]
            cell = 0.0 + float(table.first[operators[0], widths[0]])
            for o, j, k in zip(operators[1:-1], widths[:-1], widths[1:], strict=True):
                cell += float(table.middle[o, j, k])
            total += cell + float(table.last[operators[-1], widths[-1]])
        return total + tables.besides(path)

    def _fronts(
        self, gains: Callable[[int], list[Floats]], budgets: Sequence[Budget], limits: Sequence[float]
    ) -> _Fronts:
        return _Fronts(self.space, self._numbers, gains, [self._tables_of(budget) for budget in budgets], limits)

    def _best(self, fronts: _Fronts, limits: Sequence[float]) -> Choice | None:
        """Paths in the order of what they can score at best, until none can be better than what was found."""
        best, found = -math.inf, None
        for path in np.argsort(-np.array(self._bounds), kind="stable").tolist():
            if self._bounds[path] <= best + SAME_SCORE:
                break
            choice = fronts.best(path, limits)
            if choice is not None and (score := self.score(choice)) > best + SAME_SCORE:
                best, found = score, choice
        return found

    def _gains(self, number: int) -> list[Floats]:
        """Log-probabilities of each layer of a cell; a width counts where it is written."""
        operators, widths = self.scores.operators[number], self.scores.widths[number]
        count = widths.shape[-1]
        layers = [operators[0][:, None, None] + widths[0]]
        layers += [
            np.broadcast_to(operators[i][:, None, None] + widths[i], (len(operators[i]), count, count))
            for i in range(1, self.space.layers - 1)
        ]
        return [*layers, np.broadcast_to(operators[-1][:, None, None], (operators.shape[-1], count, 1))]


class _Fronts:
    """What can be picked of the cells of each path, found once.

    Args:
        space: whose paths.
        numbers: of cells, by those of modules.
        gains: scores of the layers of a cell, by its number; see `best_chains`.
        tables: of the costs that matter.
        limits: the largest of each that will be asked for.
    """

    def __init__(
        self,
        space: TrilevelSpace,
        numbers: Mapping[int, int],
        gains: Callable[[int], list[Floats]],
        tables: Sequence[CostTables],
        limits: Sequence[float],
    ) -> None:
        self._space, self._numbers, self._gains, self._tables = space, numbers, gains, tables
        # What no path can be within; a trace more, since what is left of a limit is rounded.
        self._limits = (np.array(limits) - [one.constant for one in tables]) * (1 + _SLACK)
        self._chains: dict[int, Chains] = {}
        self._picks: dict[tuple[int, ...], Picks] = {(): Picks.nothing(len(tables))}

    def best(self, path: int, limits: Sequence[float]) -> Choice | None:
        """The choice of a path with the largest score within limits; None if there is none."""
        members = self._space.graph.members[path]
        cells = tuple(i for i in members if i in self._numbers)
        besides = [one.besides(path) for one in self._tables]
        picks = self._of(cells)
        within = np.all(picks.costs + besides <= limits, axis=1) if self._tables else np.ones(len(picks.scores), bool)
        if not within.any():
            return None
        row = picks.chains[np.flatnonzero(within)[np.argmax(picks.scores[within])]]
        parts = [(self._of_cell(i), chain) for i, chain in zip(cells, row.tolist(), strict=True)]
        return pack(
            path, [CellChoice(tuple(c.operators[n].tolist()), tuple(c.widths[n, :-1].tolist())) for c, n in parts]
        )

    def _of(self, cells: tuple[int, ...]) -> Picks:
        if cells not in self._picks:
            self._picks[cells] = self._of(cells[:-1]).and_one(self._of_cell(cells[-1]), self._limits)
        return self._picks[cells]

    def _of_cell(self, module: int) -> Chains:
        if module not in self._chains:
            resolution = self._space.graph.modules[module].resolution
            costs = [_by_layer(one.cells[resolution], self._space.layers) for one in self._tables]
            self._chains[module] = best_chains(self._gains(self._numbers[module]), costs)
        return self._chains[module]


def _by_layer(table: CellTable, layers: int) -> list[Floats]:
    """[operators, widths that are read, widths that are written] of each layer."""
    return [table.first[:, None], *[table.middle] * (layers - 2), table.last[..., None]]
