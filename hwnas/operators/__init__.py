"""Operators: their specs, and the kinds that can be built."""

import hwnas.operators.chains as _chains  # noqa: F401  registers the built-in kinds
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
