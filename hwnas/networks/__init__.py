"""Networks: wirings that put operators together."""

import hwnas.networks.baselines
import hwnas.networks.falsr
import hwnas.networks.quantnas  # noqa: F401  all three register their wirings
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, parse_wiring

__all__ = ["WIRINGS", "MakeOperator", "Slot", "Wiring", "parse_wiring"]
