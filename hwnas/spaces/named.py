"""Published architectures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from hwnas.architecture import Architecture
from hwnas.errors import UsageError, first_problem
from hwnas.networks.quantnas import QuantNASWiring
from hwnas.operators import OperatorSpec
from hwnas.registry import Registry

NAMED: Registry[Callable[[int | None, bool], Architecture]] = Registry("architecture", "hwnas.architectures")
"""Functions of the scale, None for that of the paper, and of whether the bicubic enlargement is added."""


@NAMED.register("quantnas-body3")
def quantnas_body3(scale: int | None, bicubic: bool) -> Architecture:
    """The quantised network of QuantNAS, Table 1, "Our (body 3)": 4.6 GBitOps, Set14 27.814 dB. Bits as published."""
    wiring = QuantNASWiring.model_validate({"scale": scale or 4, "residual": "adadm", "bicubic": bicubic})

    def spec(layer: str) -> OperatorSpec:
        slot = next(slot for slot in wiring.slots if slot.name == layer)
        kinds: dict[str, dict[str, Any]] = {
            "head.0": {"kind": "conv", "groups": 3},
            "body.1": {"kind": "separable_conv", "hidden": wiring.channels},
            "skip": {"kind": "conv", "kernel": 1},
            "upsample": {"kind": "separable_conv", "hidden": wiring.channels},
        }
        bits = 4 if layer.startswith("body") else 8
        sizes = {"in_channels": slot.in_channels, "out_channels": slot.out_channels}
        return OperatorSpec(**({"kind": "conv"} | kinds.get(layer, {}) | sizes)).with_bits(bits)

    return Architecture(
        name="quantnas-body3", wiring=wiring, operators={slot.name: spec(slot.name) for slot in wiring.slots}
    )


def named_architecture(
    name: str, scale: int | None = None, bits: int | None = None, bicubic: bool = False
) -> Architecture:
    """A published architecture.

    Args:
        name: ``quantnas-body3``, ``srresnet``, ``espcn``, ``falsr-a``, ..., or one that a plugin brings.
        scale: enlargement; None for the published one: 2 of the FALSR networks, 4 of the others.
        bits: the same width for every layer, 2..8 or 32; None for the published ones.
        bicubic: add the bicubic enlargement of the input to the output (none of the papers does).

    Raises:
        UsageError: for an unknown name, scale or width.
    """
    build = NAMED[name]
    try:
        architecture = build(scale, bicubic)
        return architecture if bits is None else architecture.with_bits(bits)
    except ValidationError as error:
        raise UsageError(f"{name}: {first_problem(error)}") from error
