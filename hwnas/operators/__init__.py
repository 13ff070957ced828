"""Operators: their specs, and the kinds that can be built."""

import hwnas.operators.blocks as _blocks  # noqa: F401  all of them register their kinds
import hwnas.operators.cells as _cells  # noqa: F401
import hwnas.operators.chains as _chains  # noqa: F401
import hwnas.operators.edge_oriented as _edge_oriented  # noqa: F401
from hwnas.operators.spec import (
    FLOAT_BITS,
    OPERATORS,
    SUPPORTED_BITS,
    ConvShape,
    LayerFactory,
    OperatorSpec,
    build_operator,
    register_operator,
)

__all__ = [
    "FLOAT_BITS",
    "OPERATORS",
    "SUPPORTED_BITS",
    "ConvShape",
    "LayerFactory",
    "OperatorSpec",
    "build_operator",
    "register_operator",
]
