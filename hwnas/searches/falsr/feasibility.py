"""Which costs networks of the space can have at all, exactly and before anything is trained.

Every cost that adds up grows with the channels that a cell reads, so that the cheapest networks have no connections
beyond the chain, and the dearest have them all. The next cell needs to know one number of those before it then: the
channels that it reads. That makes both a shortest path.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.networks.falsr import STEM
from hwnas.searches.falsr.costs import FUSE, CandidateCosts, Costs
from hwnas.searches.falsr.problem import Term
from hwnas.spaces.falsr import CELLS, DISTINCT, FALSRSpace, Genotype, unconnected

_Chain = tuple[Costs, tuple[int, ...]]


def cheapest_chains(costs: CandidateCosts) -> list[tuple[Costs, Genotype]]:
    """The Pareto front of the cheapest networks: for all combinations of limits, one of them is within if any is."""
    space, terms = costs.space, range(len(costs.terms))
    reached: dict[int, list[_Chain]] = {STEM: [(tuple(costs.ends(t) for t in terms), ())]}
    for _ in range(space.cells):
        after: dict[int, list[_Chain]] = {}
        for read, chains in reached.items():
            for cell in DISTINCT:
                price = [costs.cell(cell, read, t) for t in terms]
                extended = [
                    (tuple(a + b for a, b in zip(so_far, price, strict=True)), (*cells, cell))
                    for so_far, cells in chains
                ]
                after.setdefault(CELLS[cell].filters, []).extend(extended)
        reached = {filters: _pareto(chains) for filters, chains in after.items()}
    complete = [
        (tuple(a + costs.cell(FUSE, read, t) for t, a in zip(terms, so_far, strict=True)), cells)
        for read, chains in reached.items()
        for so_far, cells in chains
    ]
    connections = unconnected(space.cells)
    return [(price, Genotype(cells, connections)) for price, cells in _pareto(complete)]


def cost_range(space: FALSRSpace, term: Term) -> tuple[float, float]:
    """The least and the most that a network of the space costs; of a cost that adds up over cells."""
    costs = CandidateCosts(space, [(term.model, term.size)])
    return min(price[0] for price, _ in cheapest_chains(costs)), dearest(costs, 0)


def _pareto(chains: Sequence[_Chain]) -> list[_Chain]:
    """Those that no other is at most as dear as in all costs; one of equals."""
    kept: list[_Chain] = []
    for chain in sorted(chains):
        if not any(all(a <= b for a, b in zip(other, chain[0], strict=True)) for other, _ in kept):
            kept.append(chain)
    return kept


def dearest(costs: CandidateCosts, term: int) -> float:
    """The most that a network of the space costs: every cell reads all before it."""
    best = {STEM: costs.ends(term)}
    for _ in range(costs.space.cells):
        after: dict[int, float] = {}
        for read, so_far in best.items():
            for cell in DISTINCT:
                width, price = read + CELLS[cell].filters, so_far + costs.cell(cell, read, term)
                after[width] = max(price, after.get(width, 0.0))
        best = after
    return max(so_far + costs.cell(FUSE, read, term) for read, so_far in best.items())
