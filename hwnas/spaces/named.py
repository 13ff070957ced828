"""Published architectures by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from hwnas.architecture import Architecture
from hwnas.errors import UsageError, first_problem
from hwnas.networks.baselines import ESPCNWiring, SRResNetWiring
from hwnas.networks.quantnas import QuantNASWiring
from hwnas.networks.rrdb import RRDBWiring
from hwnas.networks.wiring import Wiring
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


def _convolutions(name: str, wiring: Wiring, **special: dict[str, Any]) -> Architecture:
    """Every slot a biased 3x3 convolution but for what ``special`` says of it."""
    operators = {}
    for slot in wiring.slots:
        fields: dict[str, Any] = {
            "kind": "conv",
            "bias": True,
            **special.get(slot.name.replace(".", "_"), {}),
        }
        operators[slot.name] = OperatorSpec(in_channels=slot.in_channels, out_channels=slot.out_channels, **fields)
    return Architecture(name=name, wiring=wiring, operators=operators)


@NAMED.register("espcn")
def espcn(scale: int | None, bicubic: bool) -> Architecture:
    """ESPCN 64-5x5, 32-3x3, 3x3 (Shi et al., 2016) on RGB, with ReLU."""
    wiring = ESPCNWiring.model_validate({"scale": scale or 4, "bicubic": bicubic})
    return _convolutions("espcn", wiring, conv_0={"kernel": 5})


@NAMED.register("srresnet")
def srresnet(scale: int | None, bicubic: bool) -> Architecture:
    """SRResNet of 64 channels and 16 blocks: 1.5176 M parameters, 166.207 GMACs at 256x256 (x4)."""
    wiring = SRResNetWiring.model_validate({"scale": scale or 4, "bicubic": bicubic})
    # Inside the trunk maps may be negative; only the second convolution of a block reads a ReLU.
    signed = {f"block_{i}_0": {"activation": "none"} for i in range(1, wiring.blocks)}
    return _convolutions("srresnet", wiring, upsample_0={"activation": "none"}, **signed)


@NAMED.register("esrgan")
def esrgan(scale: int | None, bicubic: bool) -> Architecture:
    """ESRGAN's generator (Wang et al., 2018), 23 blocks of 64 channels: 16.698 M, 1174.85 GMACs at 256x256 (x4)."""
    wiring = RRDBWiring.model_validate({"scale": scale or 4, "bicubic": bicubic})
    # Leaky ReLUs leave maps signed.
    signed = {slot.name.replace(".", "_"): {"activation": "none"} for slot in wiring.slots[1:]}
    return _convolutions("esrgan", wiring, **signed)


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
