"""Networks: wirings that put operators together."""

import hwnas.networks.baselines
import hwnas.networks.falsr
import hwnas.networks.quantnas
import hwnas.networks.rfdn
import hwnas.networks.rrdb
import hwnas.networks.trilevel  # noqa: F401  all of them register their wirings
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, parse_wiring

__all__ = ["WIRINGS", "MakeOperator", "Slot", "Wiring", "parse_wiring"]
