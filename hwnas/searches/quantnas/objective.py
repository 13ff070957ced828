"""The loss of the architecture parameters: hardware and entropy terms (QuantNAS, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hwnas.budget import Budget
from hwnas.searches.differentiable.pressure import ExpectedCost
from hwnas.spaces.space import LayerwiseSpace

Probabilities = Mapping[str, Tensor]
"""Of each layer, by its name: those of its candidates."""


class LayerwiseCost(ExpectedCost[Probabilities]):
    """Expected cost of the network the alphas describe: a dot product with a table (eq. 2).

    Args:
        table: cost of every candidate, ``[layer][candidate]``, copies included.
        constant: what every architecture costs besides.
    """

    def __init__(self, table: Mapping[str, list[float]], constant: float = 0.0) -> None:
        self.constant = constant
        self.at_uniform = sum(sum(costs) / len(costs) for costs in table.values()) + constant
        # Kept normalised: raw costs are some 1e10, where float32 gradients lose their small parts.
        self._table = {layer: torch.tensor(costs) / self.at_uniform for layer, costs in table.items()}

    @classmethod
    def of(cls, space: LayerwiseSpace, budget: Budget) -> LayerwiseCost:
        """In a budget's metric, over a space."""
        model, size = budget.model, budget.input_size
        return cls(model.table(space, size), model.space_constant(space, size))

    def normalised(self, relaxed: Probabilities) -> Tensor:
        for layer, p in relaxed.items():
            self._table[layer] = self._table[layer].to(p.device)
        parts = [p @ self._table[layer] for layer, p in relaxed.items()]
        return torch.stack(parts).sum() + self.constant / self.at_uniform


def entropy(probabilities: Probabilities) -> Tensor:
    """Sum over the layers of the entropy of their probabilities, in nats (eq. 3)."""
    return torch.stack([torch.special.entr(p).sum() for p in probabilities.values()]).sum()


def entropy_weight(epoch: int, epochs: int, coefficient: float) -> float:
    """Weight of the entropy term: zero for the first quarter, then linear times logarithm (appendix A.1, figure 9).

    With W = epochs // 4: ``coefficient * e / (E - 1) * log(e - W + 2) / log(E - W + 1)``, ending at ``coefficient``.

    Args:
        epoch: 0..epochs-1.
        epochs: E.
        coefficient: the published ones are 1e-3 (float) and 1e-4 (quantised).
    """
    warm_up = epochs // 4
    if epoch < warm_up or epochs < 2:
        return 0.0
    return coefficient * epoch / (epochs - 1) * math.log(epoch - warm_up + 2) / math.log(epochs - warm_up + 1)
