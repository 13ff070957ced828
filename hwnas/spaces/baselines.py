"""Hand-made networks by name, at their published widths or slimmed; all with ReLUs, on RGB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.architecture import Architecture
from hwnas.networks.baselines import ChainWiring, SRResNetWiring
from hwnas.networks.rfdn import RFDNWiring
from hwnas.networks.rrdb import RRDBWiring
from hwnas.networks.wiring import Wiring
from hwnas.operators import OperatorSpec
from hwnas.spaces.named import NAMED

SIGNED = {"activation": "none"}
"""Of what reads maps that may be negative."""


def _convolutions(name: str, wiring: Wiring, special: Mapping[str, Mapping[str, Any]]) -> Architecture:
    """Every slot a biased 3x3 convolution but for what ``special`` says of it."""
    operators = {}
    for slot in wiring.slots:
        fields: dict[str, Any] = {"kind": "conv", "bias": True, **special.get(slot.name, {})}
        operators[slot.name] = OperatorSpec(in_channels=slot.in_channels, out_channels=slot.out_channels, **fields)
    return Architecture(name=name, wiring=wiring, operators=operators)


def _chain(
    name: str, scale: int | None, bicubic: bool, channels: tuple[int, ...], special: Sequence[Mapping[str, Any]]
) -> Architecture:
    wiring = ChainWiring.model_validate({"scale": scale or 4, "bicubic": bicubic, "channels": channels})
    return _convolutions(name, wiring, {f"conv.{i}": fields for i, fields in enumerate(special)})


@NAMED.register("espcn")
def espcn(scale: int | None, bicubic: bool, width: int = 64) -> Architecture:
    """ESPCN 64-5x5, 32-3x3, 3x3 (Shi et al., 2016)."""
    return _chain("espcn", scale, bicubic, (width, -(-width // 2)), [{"kernel": 5}])


@NAMED.register("fsrcnn")
def fsrcnn(scale: int | None, bicubic: bool, width: int = 56) -> Architecture:
    """FSRCNN(56, 12, 4) (Dong et al., 2016), its 9x9 deconvolution as a convolution to the sub-pixels.

    That computes what it does (at x3 with one pixel less of padding), since no sub-pixel sees more than 3x3 pixels, 5x5
    at x2; and as a runtime computes it, taps of zero besides: FSRCNN has 24,336 of 34,920 products a pixel at x4.
    """
    inner = max(1, round(12 * width / 56))
    last = 5 if scale == 2 else 3
    kernels = [{"kernel": kernel} for kernel in (5, 1, 3, 3, 3, 3, 1, last)]
    return _chain("fsrcnn", scale, bicubic, (width, *[inner] * 5, width), kernels)


@NAMED.register("ecbsr")
def ecbsr(scale: int | None, bicubic: bool, width: int = 16) -> Architecture:
    """ECBSR-M4C16 (Zhang et al., 2021): six blocks of its kind. Its anchor, the repeated pixels, it has not; add the
    bicubic enlargement for one."""
    return _chain("ecbsr", scale, bicubic, (width,) * 5, [{"kind": "edge_oriented"}] * 6)


@NAMED.register("rfdn")
def rfdn(scale: int | None, bicubic: bool, width: int = 50, blocks: int = 4) -> Architecture:
    """RFDN of 50 channels and 4 blocks (Liu et al., 2020) without its attention."""
    fields = {"scale": scale or 4, "bicubic": bicubic, "channels": width, "blocks": blocks}
    wiring = RFDNWiring.model_validate(fields)
    pointwise = {slot.name: {"kernel": 1} for slot in wiring.slots if {"keep", "fuse"} & set(slot.name.split("."))}
    signed = [f"block.{i}.{part}.0" for i in range(wiring.blocks) for part in ("keep", "refine")] + ["fuse", "pixels"]
    return _convolutions("rfdn", wiring, pointwise | {name: SIGNED | pointwise.get(name, {}) for name in signed})


@NAMED.register("srresnet")
def srresnet(scale: int | None, bicubic: bool, width: int = 64) -> Architecture:
    """SRResNet of 64 channels and 16 blocks: 1.5176 M parameters, 166.207 GMACs at 256x256 (x4)."""
    wiring = SRResNetWiring.model_validate({"scale": scale or 4, "bicubic": bicubic, "channels": width})
    # Inside the trunk maps may be negative; only the second convolution of a block reads a ReLU.
    signed = ["upsample.0", *(f"block.{i}.0" for i in range(1, wiring.blocks))]
    return _convolutions("srresnet", wiring, dict.fromkeys(signed, SIGNED))


@NAMED.register("esrgan")
def esrgan(scale: int | None, bicubic: bool) -> Architecture:
    """ESRGAN's generator (Wang et al., 2018), 23 blocks of 64 channels: 16.698 M, 1174.85 GMACs at 256x256 (x4)."""
    wiring = RRDBWiring.model_validate({"scale": scale or 4, "bicubic": bicubic})
    # Leaky ReLUs leave maps signed.
    return _convolutions("esrgan", wiring, {slot.name: SIGNED for slot in wiring.slots[1:]})
