"""Selection of NSGA-II (Deb et al., 2002; section IV-C): ranks, crowding, tournaments, and who survives.

Constrained domination: who violates no constraint is before all who do, and these are ranked by how much.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """How a population stands.

    Attributes:
        ranks: number of each one's front; 0 is the best.
        crowding: of each within its front: larger is lonelier, infinite at the ends.
    """

    ranks: NDArray[np.int64]
    crowding: Floats

    def best(self, count: int) -> list[int]:
        """Indices of the ``count`` best: by rank, then the lonelier."""
        order = np.lexsort((-self.crowding, self.ranks))
        return [int(i) for i in order[:count]]

    def tournament(self, rng: random.Random, size: int = 2) -> int:
        """The best of ``size`` drawn at random: k = 2 in the paper."""
        drawn = [rng.randrange(len(self.ranks)) for _ in range(size)]
        return min(drawn, key=lambda i: (self.ranks[i], -self.crowding[i]))


def rank(values: Floats, violations: Floats) -> Ranking:
    """Rank a population.

    Args:
        values: objectives to minimise, [N, M].
        violations: sum of constraint violations of each, [N]; 0 where there is none.
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

    ranks = np.zeros(len(values), np.int64)
    crowding = np.zeros(len(values))
    front = -1
    feasible = np.flatnonzero(violations <= 0)
    for front, members in enumerate(fronts(values[feasible])):
        of_all = feasible[members]
        ranks[of_all] = front
        crowding[of_all] = calc_crowding_distance(values[of_all])
    others = np.flatnonzero(violations > 0)
    _, order = np.unique(violations[others], return_inverse=True)
    ranks[others] = front + 1 + order
    return Ranking(ranks, crowding)


def fronts(values: Floats) -> list[NDArray[np.int64]]:
    """Indices of the first front, the second, ...; of objectives to minimise, [N, M]."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    return [np.asarray(front) for front in NonDominatedSorting().do(values)] if len(values) else []


def hypervolume(values: Floats, reference: Floats) -> float:
    """What a set dominates of the space before ``reference``, [M]; of objectives to minimise, [N, M]."""
    from pymoo.indicators.hv import HV

    inside = values[(values < reference).all(1)]
    return float(HV(ref_point=reference)(inside)) if len(inside) else 0.0
