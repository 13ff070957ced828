"""Networks made by hand at the largest width that a budget has room for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from published import ARCHITECTURE, AbsentError, Row

from hwnas.architecture import Architecture
from hwnas.errors import HwnasError
from hwnas.spaces.baselines import ecbsr, espcn, fsrcnn, rfdn, srresnet

FAMILIES = {"espcn": espcn, "fsrcnn": fsrcnn, "ecbsr": ecbsr, "rfdn": rfdn, "srresnet": srresnet}

STEPS = {"rfdn": 2}
"""Between widths that there are, where not all are."""

NARROW, WIDEST = 16, 512
"""Widths that are tried first, and last."""

RATES = (2e-3, 5e-4)
"""Learning rates to train each network with, ours too: in the wide ones of few layers the higher kills channels."""

NOTE = (
    "Enlargement x4. The number behind a network made by hand is its width, the largest within the budget at 8 bits. "
    "All have ReLUs, RFDN no attention, and ECBSR no anchor but the enlargement. "
    "Each has the learning rate of 0.002 and 0.0005 that was better on held-out photographs in the first run."
)
"""What readers of both tables are to know."""

SCALE = 4


def widest(family: str, fits: Callable[[Architecture], bool], multiple: int = 1) -> Architecture:
    """The widest network of a family that fits, at 8 bits, with a multiple of so many channels."""
    step = math.lcm(STEPS.get(family, 1), multiple)

    def at(width: int) -> Architecture:
        made: Architecture = FAMILIES[family](SCALE, True, width)
        return made.with_bits(8).model_copy(update={"name": f"{family}-{width}"})

    # What is known to fit, and not to; doubled, since to measure far too wide a network takes minutes.
    low, high = 0, NARROW // step
    while fits(at(high * step)):
        low, high = high, 2 * high
        if high * step > WIDEST:
            raise HwnasError(f"{family} fits with {low * step} channels, and is not tried with more than {WIDEST}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(at(middle * step)) else (low, middle)
    if not low:
        raise AbsentError(f"no {family} fits, however narrow")
    return at(low * step)


def rows(fits: Callable[[Architecture], bool], multiple: int = 1) -> list[Row]:
    """One of each family; arguments as of `widest`."""

    def row(name: str) -> Row:
        made = partial(widest, name, fits, multiple)
        return Row(name, {"network": name}, (("train", ARCHITECTURE),), architecture=made)

    return [row(name) for name in FAMILIES]
