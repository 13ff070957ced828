"""What is best within 2.5 GBitOps at 32x32: our found network against networks made by hand, as wide as there is room.

    python benchmarks/tables/comparison_bitops.py --data t91-bsd200 --test Set5 --test Set14 --seeds 3 --docs

All are trained on the same photographs for as many steps with the same quantisers, and add a bicubic enlargement. Those
made by hand are of 8 bits, ours of 4 and 8 as the search decides; its steps come on top. Seeds are of the search too.
FSRCNN's deconvolution is charged as runtimes compute it, as a convolution with taps of zero: as one of its own there
would be room for 78 channels.
"""

from __future__ import annotations

import hand_made
from driver import main
from published import RUN, Published, Row

from hwnas.architecture import Architecture
from hwnas.budget import parse_budget

BUDGET = "2.5GBitOps@32x32"


def fits(architecture: Architecture) -> bool:
    budget = parse_budget(BUDGET)
    return not budget.is_missed(budget.model.architecture_cost(architecture, budget.input_size).value)


def rows() -> list[Row]:
    search = ("search", "--bits", "4,8", "--bicubic", "--budget", BUDGET)
    return [Row("ours", {"network": "ours (quantnas)"}, (search, ("train", RUN))), *hand_made.rows(fits)]


if __name__ == "__main__":
    title = f"Within {BUDGET}: found, and made by hand"
    main(Published("comparison-bitops", title, rows, note=hand_made.NOTE, rates=hand_made.RATES))
