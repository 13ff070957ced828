"""From probabilities to an architecture: the most probable one that meets every budget, exactly.

The published derivation takes the most probable candidate of each layer and hopes that the sum of their costs is
acceptable. Choosing one candidate per layer to maximise the sum of log-probabilities under cost limits is a
multiple-choice knapsack, small enough to be solved to optimality in milliseconds; solved for a sweep of limits it
gives a whole Pareto front from one search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

RESOLUTION = 1_000_000
"""Steps into which a limit is divided where costs have no common divisor (latencies)."""


@dataclass(frozen=True, slots=True)
class CostLimit:
    """One constraint of a derivation.

    Attributes:
        table: cost of every candidate, ``[layer][candidate]``.
        limit: upper bound of the sum over the chosen ones, in the table's unit.
    """

    table: Mapping[str, Sequence[float]]
    limit: float

    def cost(self, chosen: Mapping[str, int]) -> float:
        """Sum of the chosen candidates' costs."""
        return sum(costs[chosen[layer]] for layer, costs in self.table.items())


def _in_whole_units(limit: CostLimit) -> tuple[list[float], float]:
    """Costs and limit as whole numbers, so that the solver's tolerance cannot let an over-budget choice through."""
    flat = [cost for costs in limit.table.values() for cost in costs]
    if all(float(cost).is_integer() for cost in flat):
        unit = math.gcd(*(int(cost) for cost in flat)) or 1
        if max(flat) / unit <= 10 * RESOLUTION:
            # Half a unit above a whole number: far from any attainable sum on either side.
            return [cost // unit for cost in flat], limit.limit // unit + 0.5
    unit_size = limit.limit / RESOLUTION
    return [float(math.ceil(cost / unit_size)) for cost in flat], RESOLUTION + 0.5


def derive(log_probabilities: Mapping[str, Sequence[float]], limits: Sequence[CostLimit] = ()) -> dict[str, int] | None:
    """The choice with the largest sum of log-probabilities among those within all limits.

    Args:
        log_probabilities: ``[layer][candidate]``, finite.
        limits: constraints; without any the result is the argmax of each layer.

    Returns:
        The candidate chosen for each layer, or None if no choice is within the limits.
    """
    layers = list(log_probabilities)
    sizes = [len(log_probabilities[layer]) for layer in layers]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    one_each = csr_array(
        (np.ones(starts[-1]), (np.repeat(np.arange(len(layers)), sizes), np.arange(starts[-1]))),
        shape=(len(layers), starts[-1]),
    )
    constraints = [LinearConstraint(one_each, 1, 1)]
    for limit in limits:
        if limit.limit <= 0:
            return None
        ordered = CostLimit({layer: limit.table[layer] for layer in layers}, limit.limit)
        costs, bound = _in_whole_units(ordered)
        constraints.append(LinearConstraint(np.array([costs]), -np.inf, bound))
    gains = np.concatenate([np.asarray(log_probabilities[layer], dtype=float) for layer in layers])
    # HiGHS stops within 1e-4 of the optimum unless told not to.
    solution = milp(
        -gains,
        constraints=constraints,
        integrality=np.ones(len(gains), dtype=int),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    if solution.x is None:
        return None
    return {layer: int(np.argmax(solution.x[starts[i] : starts[i + 1]])) for i, layer in enumerate(layers)}


def derive_front(
    log_probabilities: Mapping[str, Sequence[float]],
    table: Mapping[str, Sequence[float]],
    others: Sequence[CostLimit] = (),
    points: int = 12,
) -> list[dict[str, int]]:
    """The distinct choices that `derive` makes as the limit on one cost goes from the space's least to its most.

    Args:
        log_probabilities: ``[layer][candidate]``.
        table: the cost that is swept.
        others: limits that every point has to meet besides.
        points: number of limits, spaced geometrically.

    Returns:
        Choices in ascending order of cost.
    """
    least = sum(min(costs) for costs in table.values())
    most = sum(max(costs) for costs in table.values())
    front: list[dict[str, int]] = []
    for limit in np.geomspace(least, most, points):
        # Rounded outwards: the first limit is attained by the cheapest architecture alone.
        chosen = derive(log_probabilities, [CostLimit(table, math.ceil(limit)), *others])
        if chosen is not None and chosen not in front:
            front.append(chosen)
    return front
