"""How hard the search presses on the hardware: a published constant, or whatever it takes to meet the budget.

Users of the published method try penalties until one happens to give the size they need. Under a budget the penalty is
a dual variable instead: after each epoch it grows in proportion to how far the expected cost is above the budget, and
shrinks where it is below.
"""

from __future__ import annotations

import math

INITIAL_PENALTY = 1e-3
SMALLEST_PENALTY, LARGEST_PENALTY = 1e-6, 10.0
GAIN = 4.0
LARGEST_STEP = math.log(4.0)


def next_penalty(penalty: float, expected: float, limit: float) -> float:
    """The penalty of the next epoch, by a multiplicative ascent of the dual.

    Args:
        penalty: the present one, > 0.
        expected: expected cost.
        limit: the budget, in the same unit.
    """
    step = max(-LARGEST_STEP, min(LARGEST_STEP, GAIN * (expected / limit - 1)))
    return max(SMALLEST_PENALTY, min(LARGEST_PENALTY, penalty * math.exp(step)))
