"""All that a cell, and all that a path, can be, as far as it matters: what nothing else beats in costs and in score.

What a layer costs depends on the widths before and behind it, so layers cannot be chosen one by one. But of the chains
of layers that end at the same width only those count than which no other is as cheap and as good: some hundred of a
cell's 640,000. Of these, paths are put together, cell by cell, in the same way. So what is best within limits is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TOGETHER = 512
"""Chains that are compared with all others at a time."""


class Chains(NamedTuple):
    """Chains of layers.

    Attributes:
        costs: [N, metrics].
        scores: [N].
        operators: [N, layers], indices.
        widths: [N, layers], indices of what each layer writes.
    """

    costs: Floats
    scores: Floats
    operators: NDArray[np.int16]
    widths: NDArray[np.int16]

    def keep(self, which: NDArray[np.int64]) -> Chains:
        """Some of them."""
        costs, scores, operators, widths = self
        return Chains(costs[which], scores[which], operators[which], widths[which])


def best_chains(scores: Sequence[Floats], costs: Sequence[Sequence[Floats]]) -> Chains:
    """The chains that none other beats; of equals one.

    Args:
        scores: of each layer, [operators, widths that are read, widths that are written]; what is read is what the
            layer before writes, the first reads one width, and the last writes one.
        costs: of each metric the same.
    """
    nothing = np.zeros((1, 0), np.int16)
    ends = [Chains(np.zeros((1, len(costs))), np.zeros(1), nothing, nothing)]
    for layer, gain in enumerate(scores):
        price = np.stack([metric[layer] for metric in costs], -1) if costs else np.zeros((*gain.shape, 0))
        operators, reads, writes = gain.shape
        longer = []
        for k in range(writes):
            parts = [
                _longer(ends[j], gain[o, j, k], price[o, j, k], o, k) for j in range(reads) for o in range(operators)
            ]
            together = Chains(*(np.concatenate(part) for part in zip(*parts, strict=True)))
            longer.append(together.keep(_undominated(together.costs, together.scores)))
        ends = longer
    return ends[0]


def _longer(chains: Chains, gain: float, price: Floats, operator: int, width: int) -> Chains:
    """Chains with one layer more."""

    def with_one(numbers: NDArray[np.int16], one: int) -> NDArray[np.int16]:
        return np.column_stack([numbers, np.full(len(numbers), one, np.int16)])

    return Chains(
        chains.costs + price,
        chains.scores + gain,
        with_one(chains.operators, operator),
        with_one(chains.widths, width),
    )


class Picks(NamedTuple):
    """What can be picked of several cells together.

    Attributes:
        costs: [N, metrics].
        scores: [N].
        chains: [N, cells], the number of each cell's chain.
    """

    costs: Floats
    scores: Floats
    chains: NDArray[np.int32]

    @classmethod
    def nothing(cls, metrics: int) -> Picks:
        """Of no cells."""
        return cls(np.zeros((1, metrics)), np.zeros(1), np.zeros((1, 0), np.int32))

    def and_one(self, chains: Chains, limits: Floats) -> Picks:
        """With a cell more; what is over a limit, [metrics], is left out."""
        scores = (self.scores[:, None] + chains.scores[None]).ravel()
        costs = (self.costs[:, None] + chains.costs[None]).reshape(len(scores), self.costs.shape[1])
        within = np.flatnonzero(np.all(costs <= limits, axis=1))
        kept = within[_undominated(costs[within], scores[within])]
        before, last = np.divmod(kept, len(chains.scores))
        return Picks(costs[kept], scores[kept], np.column_stack([self.chains[before], last.astype(np.int32)]))


def _undominated(costs: Floats, scores: Floats) -> NDArray[np.int64]:
    """Indices of those than which none other costs no more in anything and scores as much."""
    # Cheap before dear, and of equals the best first: whoever beats another comes before it.
    if not costs.shape[1]:
        return np.argsort(-scores, kind="stable")[:1]
    order = np.lexsort((-scores, *costs.T[::-1]))
    if costs.shape[1] == 1:
        ascending = scores[order]
        before = np.concatenate([[-np.inf], np.maximum.accumulate(ascending)[:-1]])[: len(order)]
        return order[ascending > before]
    kept: NDArray[np.int64] = np.zeros(0, np.int64)
    for start in range(0, len(order), _TOGETHER):
        new = order[start : start + _TOGETHER]
        new = new[~_beaten(costs[new], scores[new], costs[kept], scores[kept])]
        earlier = np.tril(np.ones((len(new), len(new)), bool), -1)
        within = np.all(costs[new][None] <= costs[new][:, None], -1) & (scores[new][None] >= scores[new][:, None])
        kept = np.concatenate([kept, new[~(within & earlier).any(1)]])
    return kept


def _beaten(costs: Floats, scores: Floats, by_costs: Floats, by_scores: Floats) -> Any:
    beaten: NDArray[np.bool_] = np.all(by_costs[None] <= costs[:, None], -1) & (by_scores[None] >= scores[:, None])
    return beaten.any(1)
