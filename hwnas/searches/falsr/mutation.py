"""Mutations that explore (section IV-E): at random, or by a roulette that favours cheap cells."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from hwnas.spaces.falsr import CANONICAL, CELLS, DISTINCT, Genotype


def random_mutation(genotype: Genotype, rng: random.Random) -> Genotype:
    """Another cell at one place; and one connection switched, or one row of them drawn anew."""
    cells, macro = list(genotype.cells), [list(row) for row in genotype.macro]
    place = rng.randrange(len(cells))
    cells[place] = rng.choice([cell for cell in DISTINCT if cell != CANONICAL[cells[place]]])
    row = macro[rng.randrange(len(macro))]
    if rng.random() < 0.5:
        bit = rng.randrange(len(row))
        row[bit] = 1 - row[bit]
    else:
        row[:] = (rng.randrange(2) for _ in row)
    return Genotype(tuple(cells), tuple(map(tuple, macro)))


class Roulette:
    """Draws all cells anew, each with a probability that falls with the logarithm of what it costs.

    The dearest of the 192 cells has weight 1, and one that costs e times less has 1 more. Connections are kept: a
    roulette over whole networks would have 192^n sectors (section IV-E).

    Args:
        costs: of each of the 192 cells.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        positive = [max(cost, 1e-9) for cost in costs]  # there is no logarithm of nothing
        self.weights = [1 + math.log(max(positive) / cost) for cost in positive]

    def __call__(self, genotype: Genotype, rng: random.Random) -> Genotype:
        return genotype._replace(cells=tuple(rng.choices(range(len(CELLS)), self.weights, k=len(genotype.cells))))
