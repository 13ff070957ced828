"""The FALSR network (sections III and IV, figures 1 and 3): cells that read the concatenation of earlier ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.luma import Luma, ReplaceLuma
from hwnas.networks.shuffle import DepthToSpace
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge

STEM = 32
"""Channels of the feature extractor, and of what is shuffled at scale 2."""

PIXELS = 8
"""Channels at high resolution, before the last convolution."""

Bit = Annotated[int, Field(ge=0, le=1)]


class _FALSR(nn.Module):
    def __init__(self, parts: dict[str, nn.Module], cells: list[nn.Module], inputs: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.fea = parts["fea"]
        self.cells = nn.ModuleList(cells)
        self.fuse = parts["fuse"]
        self.upsample = parts.get("upsample", nn.Identity())
        self.shuffle = parts["shuffle"]
        self.yout = parts["yout"]
        self.inputs = inputs
        # What is part of a concatenation, or added; a lone reader's own activation is enough.
        joined = {0}.union(*(sources for sources in inputs if len(sources) > 1))
        signed = [False, *(not getattr(cell, "rectified", False) for cell in cells)]
        self.edges = nn.ModuleDict({str(k): Edge(signed[k]) for k in sorted(joined)})
        self.rectify = nn.ReLU()
        self.fused, self.sum = Edge(signed=False), Edge(signed=False)
        self.out = parts["out"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectify(self.fea(x))
        nodes: list[Tensor] = []
        for k, (reader, sources) in enumerate(zip((*self.cells, self.fuse), self.inputs, strict=True)):
            nodes.append(self.edges[str(k)](x) if str(k) in self.edges else x)
            x = reader(torch.cat([nodes[i] for i in sources], 1) if len(sources) > 1 else nodes[k])
        x = self.sum(self.fused(self.rectify(x)) + nodes[0])
        out: Tensor = self.out(self.yout(self.shuffle(self.upsample(x))))
        return out


@WIRINGS.register("falsr")
class FALSRWiring(Wiring):
    """Node 0 is ``ReLU(fea(x))``, node k the output of cell k - 1; the last node is ``ReLU(fuse(.)) + node 0``.

    A cell, and ``fuse``, reads the channels of its nodes in ascending order, the one before it always among them. What
    follows is a depth-to-space and ``yout``. At scales other than 2, whose sub-pixels the 32 channels cannot hold, a
    convolution ``upsample`` makes more of them first (not in the paper).

    Attributes:
        filters: channels that each cell writes.
        macro: ``macro[i - 1][j - i]`` is ``c_i^j``, 1 where node i - 1 is read by destination j + 1 (destination d is
            cell d - 1, and the one after the last cell is ``fuse``), besides the node before it.
        colour: ``luma``: as published; colours are enlarged by interpolation. ``rgb``: all three go through.
        bicubic: add the bicubic enlargement to the output (not in the paper).
    """

    kind: Literal["falsr"] = "falsr"
    scale: Literal[2, 3, 4] = 2
    filters: tuple[Annotated[int, Field(gt=0, le=1024)], ...] = Field(min_length=1, max_length=32)
    macro: tuple[tuple[Bit, ...], ...]
    colour: Literal["luma", "rgb"] = "luma"
    bicubic: bool = False

    @model_validator(mode="after")
    def _one_bit_for_each_later_destination(self) -> FALSRWiring:
        wanted, found = [*range(len(self.filters), 0, -1)], [len(row) for row in self.macro]
        if found != wanted:
            raise ValueError(f"macro has rows of {found} bits; {len(wanted)} cells need rows of {wanted}")
        return self

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """The nodes that each cell reads, and last ``fuse``."""
        rows, n = self.macro, len(self.filters)
        return [(*(i for i in range(d) if rows[i][d - 1 - i]), d) for d in range(n + 1)]

    @property
    def slots(self) -> tuple[Slot, ...]:
        colours = 1 if self.colour == "luma" else 3
        widths = (STEM, *self.filters)
        read = [sum(widths[i] for i in sources) for sources in self.inputs]
        slots = [
            Slot("fea", colours, STEM),
            *(Slot(f"cells.{i}", read[i], f) for i, f in enumerate(self.filters)),
            Slot("fuse", read[-1], STEM),
            Slot("yout", PIXELS, colours, resolution=self.scale),
        ]
        if self.scale != 2:
            slots.insert(-1, Slot("upsample", STEM, PIXELS * self.scale**2))
        if self.bicubic:
            return detail_slots(slots, pixels="yout")
        return tuple(replace(slot, start="normal") for slot in slots)

    def build(self, make: MakeOperator) -> nn.Module:
        made = {slot.name: make(slot) for slot in self.slots}
        cells = [made[f"cells.{i}"] for i in range(len(self.filters))]
        # Pixels are not negative, detail may be.
        parts = made | {"shuffle": DepthToSpace(self.scale), "out": Edge(signed=self.bicubic)}
        network: nn.Module = _FALSR(parts, cells, self.inputs)
        if self.bicubic:
            return AddBicubic(nn.Sequential(Luma(), network) if self.colour == "luma" else network, self.scale)
        return ReplaceLuma(network, self.scale) if self.colour == "luma" else network
