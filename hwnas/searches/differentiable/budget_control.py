"""How hard the search presses on the hardware to meet a budget.

Users of the published method try penalties until one happens to give the size they need. Under a budget the penalty is
a dual variable instead, by the augmented Lagrangian of an inequality (Nocedal & Wright, *Numerical Optimization*,
section 17.4): it presses while the expected cost is above the budget, lets go below, and after each epoch remembers how
hard it had to press to hold it there.
"""

from __future__ import annotations

from torch import Tensor

STIFFNESS = 1.0
"""Penalty per unit of relative excess. The published penalties, 1e-4 to 1e-3, are an excess of 0.01 to 0.1 %: the
expected cost follows its bound closely, and a choice that the entropy has settled still gives way to it.
"""


def budget_loss(excess: Tensor, multiplier: float) -> Tensor:
    """Term of the alphas' loss whose gradient is ``max(0, multiplier + STIFFNESS * excess)`` times that of ``excess``.

    Args:
        excess: scalar, expected cost / budget - 1.
        multiplier: the dual variable, >= 0.
    """
    return (multiplier + STIFFNESS * excess).clamp_min(0).square() / (2 * STIFFNESS)


def next_multiplier(multiplier: float, excess: float) -> float:
    """The dual variable of the next epoch."""
    return max(0.0, multiplier + STIFFNESS * excess)
