"""From probabilities to an architecture: the most probable one that meets every budget, exactly.

The published derivation takes the most probable candidate of each layer and hopes that the sum of their costs is
acceptable. Choosing one candidate per layer to maximise the sum of log-probabilities under cost limits is a
multiple-choice knapsack, small enough to be solved to optimality in milliseconds; solved for a sweep of limits it
gives a whole Pareto front from one search.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

_SCALE = 1e6
"""What a limit is scaled to: the solver's absolute tolerance of 1e-6 is then 1e-12 of the limit."""

_SLACK = 1e-12
"""Relative slack given to the solver, so that rounding does not exclude a choice that just attains its limit."""

_MOST_CUTS = 20
_TIGHTER = 2e-6
"""Thousands of choices can cost the same, a trace more than a limit. After that many have been cut off one by one, the
limits are lowered by this share, which the solver can tell: the answer is then the best within the lowered limits."""

SAME_SCORE = 1e-6
"""Sums of log-probabilities that differ by less are equal to the solver."""


@contextmanager
def _silent_solver() -> Iterator[None]:
    """HiGHS prints a stray line for some problems (its issue 2783), where a script may expect one JSON object."""
    stdout = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(nothing)
        os.close(stdout)


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


def _at_most(costs: np.ndarray, limit: float) -> LinearConstraint:
    """``costs @ x <= limit`` in numbers that the solver can tell apart."""
    if not np.any(costs % 1):
        # Counted costs are multiples of some number; in units of that one they are small integers, and exact.
        unit = max(1, math.gcd(*(int(cost) for cost in costs)))
        most = math.floor(limit) // unit
        return LinearConstraint(np.minimum(costs // unit, most + 1)[None], -np.inf, most + 0.5)
    # Costs beyond twice the limit are excluded as well as larger ones, and do not spoil the conditioning.
    scaled = np.minimum(costs / limit, 2.0) * _SCALE if limit > 0 else (costs > limit) * _SCALE
    return LinearConstraint(scaled[None], -np.inf, _SCALE * (1 + _SLACK) if limit > 0 else 0.5)


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
        costs = np.concatenate([np.asarray(limit.table[layer], dtype=float) for layer in layers])
        if math.isfinite(limit.limit):
            constraints.append(_at_most(costs, limit.limit))
    gains = np.concatenate([np.asarray(log_probabilities[layer], dtype=float) for layer in layers])
    for _ in range(_MOST_CUTS):
        # HiGHS stops within 1e-4 of the optimum unless told not to.
        with _silent_solver():
            solution = milp(
                -gains,
                constraints=constraints,
                integrality=np.ones(len(gains), dtype=int),
                bounds=Bounds(0, 1),
                options={"mip_rel_gap": 0},
            )
        if solution.x is None:
            return None
        chosen = {layer: int(np.argmax(solution.x[starts[i] : starts[i + 1]])) for i, layer in enumerate(layers)}
        if all(limit.cost(chosen) <= limit.limit for limit in limits):
            return chosen
        # Over a limit by less than the solver can tell: exclude this very choice.
        taken = np.zeros((1, len(gains)))
        taken[0, [starts[i] + chosen[layer] for i, layer in enumerate(layers)]] = 1
        constraints.append(LinearConstraint(taken, -np.inf, len(layers) - 1))
    return derive(log_probabilities, [CostLimit(limit.table, limit.limit * (1 - _TIGHTER)) for limit in limits])


def derive_front(
    log_probabilities: Mapping[str, Sequence[float]],
    table: Mapping[str, Sequence[float]],
    others: Sequence[CostLimit] = (),
    points: int = 12,
) -> list[dict[str, int]]:
    """The choices that `derive` makes as the limit on one cost falls to the least the space has.

    The largest limit is what the most probable choice of all costs: beyond, every limit gives that one again.

    Of choices that are equally probable, the one of the smallest limit.

    Args:
        log_probabilities: ``[layer][candidate]``.
        table: the cost that is swept.
        others: limits that every point has to meet besides.
        points: number of limits, spaced geometrically.

    Returns:
        Choices in ascending order of cost and of probability.
    """
    unlimited = derive(log_probabilities, others)
    if unlimited is None:
        return []

    def within(limit: float) -> dict[str, int] | None:
        return derive(log_probabilities, [CostLimit(table, limit), *others])

    def score(chosen: Mapping[str, int]) -> float:
        return math.fsum(log_probabilities[layer][i] for layer, i in chosen.items())

    least = sum(min(costs) for costs in table.values())
    return sweep(within, score, least, CostLimit(table, math.inf).cost(unlimited), points)


Chosen = TypeVar("Chosen")


def sweep(
    within: Callable[[float], Chosen | None],
    score: Callable[[Chosen], float],
    least: float,
    most: float,
    points: int,
) -> list[Chosen]:
    """What is best as a limit rises.

    Args:
        within: the best choice within a limit.
        score: of a choice.
        least: what the cheapest choice costs.
        most: what the best one costs.
        points: number of limits, spaced geometrically.

    Returns:
        In ascending order of cost and of score; of equal scores, the one of the smallest limit.
    """
    # The first limit is attained by the cheapest architecture alone (which may cost nothing), the last by the most
    # probable one; between the two, rounding does not matter.
    limits = [least, *np.geomspace(max(least, most * 1e-6), most, points)[1:-1], most] if most > least else [least]
    front: list[Chosen] = []
    best = -math.inf
    for limit in limits:
        chosen = within(float(limit))
        if chosen is not None and score(chosen) > best + SAME_SCORE:
            front.append(chosen)
            best = score(chosen)
    return front
