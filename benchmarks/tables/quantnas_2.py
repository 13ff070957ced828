"""QuantNAS, table 2: what residuals are, in two networks at random.

    python benchmarks/tables/quantnas_2.py --data t91-bsd200 --test Set14 --docs

Both are of the space of appendix D.2 with 4 and 8 bits, the first draws of seeds 1 and 2; the paper does not tell its
own. AdaDM takes the statistics of each image to the end, as published.
"""

from __future__ import annotations

import random

from driver import main
from published import ARCHITECTURE, Published, Row

from hwnas.spaces import SPACES, SpaceOptions

PSNRS = {
    "add": (27.55, 28.00),
    "batch-norm": (27.00, 27.16),
    "original-adadm": (27.33, 27.84),
    "adadm": (27.68, 28.046),
}
"""On Set14 of both networks, by what residuals are."""

COMMAND = ("train", ARCHITECTURE, "--set", "train.freeze=0")


def _row(network: int, residual: str) -> Row:
    space = SPACES["quantnas"](SpaceOptions(residual=residual, bicubic=True))
    return Row(
        f"{network}-{residual}",
        {"network": f"M{network}", "residual": residual},
        (COMMAND,),
        {"Set14 dB": PSNRS[residual][network - 1]},
        architecture=lambda: space.sample(random.Random(network)).model_copy(update={"name": f"M{network}"}),
    )


def rows() -> list[Row]:
    return [_row(network, residual) for network in (1, 2) for residual in PSNRS]


if __name__ == "__main__":
    note = (
        "M1 and M2 are drawn at random here, and are not the paper's, which it does not tell. AdaDM takes the "
        "statistics of each image to the end (train.freeze=0)."
    )
    main(Published("quantnas-2", "QuantNAS, table 2: residuals with and without batch norm", rows, note=note))
