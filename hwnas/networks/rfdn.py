"""RFDN (Liu et al., "Residual feature distillation network", AIM 2020), without its attention and with ReLUs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from hwnas.networks.adadm import Add
from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge

REFINEMENTS = 3
"""Shallow residuals of a block, beside each of which a 1x1 convolution keeps half of the channels."""


def rectified(module: nn.Module) -> nn.Sequential:
    """With a ReLU after it, whose map is added, concatenated, or read more than once."""
    return nn.Sequential(module, nn.ReLU(), Edge(signed=False))


class DistillationBlock(nn.Module):
    """``fuse(concat(kept_1, kept_2, kept_3, last))``: what is kept before each refinement, and what is left of all.

    Args:
        keep: 1x1 convolutions to half of the channels.
        refine: 3x3 convolutions, each with a sum around it.
        last: 3x3 convolution to half of the channels, of what is refined.
        fuse: 1x1 convolution of all that is kept.
    """

    def __init__(
        self, keep: Sequence[nn.Module], refine: Sequence[nn.Module], last: nn.Module, fuse: nn.Module
    ) -> None:
        super().__init__()
        self.keep = nn.ModuleList(rectified(convolution) for convolution in keep)
        self.refine = nn.ModuleList(
            nn.Sequential(Add(nn.Sequential(convolution, Edge()), is_output=True), nn.ReLU(), Edge(signed=False))
            for convolution in refine
        )
        self.last = rectified(last)
        self.fuse = nn.Sequential(fuse, Edge())

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for keep, refine in zip(self.keep, self.refine, strict=True):
            kept.append(keep(x))
            x = refine(x)
        out: Tensor = self.fuse(torch.cat([*kept, self.last(x)], 1))
        return out


class _Trunk(nn.Module):
    """``convolution(fuse(concat of what all blocks make))``."""

    def __init__(self, blocks: Sequence[nn.Module], fuse: nn.Module, convolution: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.fuse = fuse
        self.convolution = convolution
        self.edge = Edge()

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        out: Tensor = self.edge(self.convolution(self.fuse(torch.cat(maps, 1))))
        return out


@WIRINGS.register("rfdn")
class RFDNWiring(Wiring):
    """A head, blocks of feature distillation, a convolution of all they make with a skip around, sub-pixels.

    Attributes:
        channels: width of the network; even.
        blocks: number of blocks.
        bicubic: add the bicubic enlargement of the input to the output (not in the paper).
    """

    kind: Literal["rfdn"] = "rfdn"
    channels: int = Field(default=50, gt=1, le=1024)
    blocks: int = Field(default=4, gt=0, le=64)
    bicubic: bool = False

    @field_validator("channels")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd; half of the channels are kept, so take an even number")
        return value

    @property
    def slots(self) -> tuple[Slot, ...]:
        c, half = self.channels, self.channels // 2
        blocks = []
        for i in range(self.blocks):
            for j in range(REFINEMENTS):
                blocks += [Slot(f"block.{i}.keep.{j}", c, half), Slot(f"block.{i}.refine.{j}", c, c)]
            blocks += [Slot(f"block.{i}.last", c, half), Slot(f"block.{i}.fuse", (REFINEMENTS + 1) * half, c)]
        ends = Slot("fuse", self.blocks * c, c), Slot("trunk", c, c), Slot("pixels", c, 3 * self.scale**2)
        slots = (Slot("head", 3, c), *blocks, *ends)
        branches = [f"block.{i}.refine.{j}" for i in range(self.blocks) for j in range(REFINEMENTS)]
        return detail_slots(slots, pixels="pixels", branches=branches) if self.bicubic else slots

    def build(self, make: MakeOperator) -> nn.Module:
        made = {slot.name: make(slot) for slot in self.slots}

        def block(i: int) -> nn.Module:
            keep, refine = ([made[f"block.{i}.{part}.{j}"] for j in range(REFINEMENTS)] for part in ("keep", "refine"))
            return DistillationBlock(keep, refine, made[f"block.{i}.last"], made[f"block.{i}.fuse"])

        trunk = _Trunk([block(i) for i in range(self.blocks)], made["fuse"], made["trunk"])
        parts = {
            "head": nn.Sequential(made["head"], Edge()),
            "trunk": Add(trunk, is_output=True),
            "pixels": nn.Sequential(made["pixels"], Edge()),
            "shuffle": nn.PixelShuffle(self.scale),
        }
        network = nn.Sequential(OrderedDict(parts))
        return AddBicubic(network, self.scale) if self.bicubic else network
