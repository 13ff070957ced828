"""ESRGAN's generator (Wang et al., 2018): residual-in-residual dense blocks. The teacher of AGD and TrilevelNAS."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.nearest import Header, enlarge, factors, header_slots, leaky
from hwnas.networks.residual import ScaledResidual
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge

DENSE, CONVOLUTIONS = 3, 5
"""Dense blocks of a residual-in-residual block, and convolutions of a dense block."""

_DENSE_BRANCH = r"body\.branch\.0\.(\d+)\.branch\.(\d+)\.branch"

_PUBLISHED = (
    (r"stem", "conv_first", "conv_first"),
    (rf"{_DENSE_BRANCH}\.inner\.(\d+)\.0", "RRDB_trunk.{}.RDB{}.conv{}", "body.{}.rdb{}.conv{}"),
    (rf"{_DENSE_BRANCH}\.last", "RRDB_trunk.{}.RDB{}.conv5", "body.{}.rdb{}.conv5"),
    (r"body\.branch\.1", "trunk_conv", "conv_body"),
    (r"rest\.(\d+)\.2", "upconv{}", "conv_up{}"),
    (r"header\.hr\.0", "HRconv", "conv_hr"),
    (r"header\.tail", "conv_last", "conv_last"),
)
"""Our names, and those of the two releases."""


class DenseBranch(nn.Module):
    """Convolutions that each read the input and what all before them made, with leaky ReLUs between."""

    def __init__(self, convolutions: Sequence[nn.Module]) -> None:
        super().__init__()
        *inner, last = convolutions
        self.inner = nn.ModuleList(leaky(convolution) for convolution in inner)
        self.edges = nn.ModuleList(Edge() for _ in inner)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for convolution, edge in zip(self.inner, self.edges, strict=True):
            maps.append(edge(convolution(torch.cat(maps, 1) if len(maps) > 1 else x)))
        out: Tensor = self.last(torch.cat(maps, 1))
        return out


@WIRINGS.register("rrdb")
class RRDBWiring(Wiring):
    """A stem, blocks of three dense blocks each, a convolution with a skip around all of them, upsampling, a header.

    Attributes:
        channels: width of the network.
        blocks: residual-in-residual dense blocks.
        growth: channels that a convolution within a dense block adds.
        bicubic: add the bicubic enlargement of the input to the output (not in the paper).
    """

    kind: Literal["rrdb"] = "rrdb"
    channels: int = Field(default=64, gt=0, le=1024)
    blocks: int = Field(default=23, gt=0, le=64)
    growth: int = Field(default=32, gt=0, le=1024)
    bicubic: bool = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        c, g = self.channels, self.growth
        dense = [
            Slot(f"block.{i}.{j}.{k}", c + k * g, c if k == CONVOLUTIONS - 1 else g)
            for i in range(self.blocks)
            for j in range(DENSE)
            for k in range(CONVOLUTIONS)
        ]
        ups, resolution = [], 1
        for i, factor in enumerate(factors(self.scale)):
            resolution *= factor
            ups.append(Slot(f"up.{i}", c, c, resolution))
        slots = (Slot("stem", 3, c), *dense, Slot("trunk", c, c), *ups, *header_slots(c, self.scale))
        return detail_slots(slots, pixels="tail") if self.bicubic else slots

    def published_names(self, name: str) -> tuple[str, ...]:
        """As released with the paper, and as BasicSR has them."""
        for pattern, *published in _PUBLISHED:
            if match := re.fullmatch(rf"{pattern}\.(weight|bias)", name):
                *numbers, kind = match.groups()
                # All but the number of a block count from one there.
                counted = [int(n) + (i > 0 or len(numbers) == 1) for i, n in enumerate(numbers)]
                return tuple(f"{one.format(*counted)}.{kind}" for one in published)
        return ()

    def build(self, make: MakeOperator) -> nn.Module:
        made = {slot.name: make(slot) for slot in self.slots}

        def dense(i: int, j: int) -> nn.Module:
            return ScaledResidual(DenseBranch([made[f"block.{i}.{j}.{k}"] for k in range(CONVOLUTIONS)]))

        def block(i: int) -> nn.Module:
            return ScaledResidual(nn.Sequential(*(dense(i, j) for j in range(DENSE))))

        blocks = nn.Sequential(*(block(i) for i in range(self.blocks)))
        ups = [enlarge(factor, made[f"up.{i}"]) for i, factor in enumerate(factors(self.scale))]
        parts = {
            "stem": made["stem"],
            "body": ScaledResidual(nn.Sequential(blocks, made["trunk"]), scale=1),
            "rest": nn.Sequential(*ups),
            "header": Header(made["hr"], made["tail"]),
        }
        network = nn.Sequential(OrderedDict(parts))
        return AddBicubic(network, self.scale) if self.bicubic else network
