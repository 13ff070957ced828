"""Hand-made networks that the papers compare with, wired so that their layers can be quantised and costed alike."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from hwnas.networks.adadm import Add
from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.nearest import factors
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge


@WIRINGS.register("chain")
class ChainWiring(Wiring):
    """Convolutions in a row, the last to the sub-pixels, and a pixel shuffle: ESPCN, FSRCNN, ECBSR as it is deployed.

    Attributes:
        channels: widths of the hidden maps.
        bicubic: add the bicubic enlargement of the input to the output (not in the papers).
    """

    kind: Literal["chain"] = "chain"
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1, max_length=64)
    bicubic: bool = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        widths = (3, *self.channels, 3 * self.scale**2)
        slots = tuple(Slot(f"conv.{i}", *pair) for i, pair in enumerate(itertools.pairwise(widths)))
        return detail_slots(slots, pixels=slots[-1].name) if self.bicubic else slots

    def build(self, make: MakeOperator) -> nn.Module:
        network = nn.Sequential(*(make(slot) for slot in self.slots), Edge(), nn.PixelShuffle(self.scale))
        return AddBicubic(network, self.scale) if self.bicubic else network


class _SRResNet(nn.Module):
    def __init__(self, head: nn.Module, blocks: nn.Module, upsample: nn.Module, hr: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.rectify = nn.Sequential(nn.ReLU(), Edge(signed=False))
        self.blocks = blocks
        self.upsample = upsample
        self.hr = hr
        self.tail = tail
        self.edge = Edge()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.edge(self.tail(self.hr(self.upsample(self.blocks(self.rectify(self.head(x)))))))
        return out


@WIRINGS.register("srresnet")
class SRResNetWiring(Wiring):
    """SRResNet (Ledig et al., 2017) as quoted by AGD, TrilevelNAS and QuantNAS: no batch norm, no long skip, ReLU.

    A 3x3 head, ``blocks`` residual blocks of two convolutions, a x2 shuffle for each factor of two (one x3 shuffle at
    scale 3), one convolution at high resolution and the tail.

    Attributes:
        channels: width of the network.
        blocks: number of residual blocks.
        bicubic: add the bicubic enlargement of the input to the output.
    """

    kind: Literal["srresnet"] = "srresnet"
    channels: int = Field(default=64, gt=0)
    blocks: int = Field(default=16, gt=0)
    bicubic: bool = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        c = self.channels
        blocks = [Slot(f"block.{i}.{j}", c, c) for i in range(self.blocks) for j in range(2)]
        ups, resolution = [], 1
        for i, factor in enumerate(factors(self.scale)):
            ups.append(Slot(f"upsample.{i}", c, c * factor**2, resolution))
            resolution *= factor
        ends = [Slot("hr", c, c, resolution), Slot("tail", c, 3, resolution)]
        slots = (Slot("head", 3, c), *blocks, *ups, *ends)
        branches = [f"block.{i}.1" for i in range(self.blocks)]
        return detail_slots(slots, pixels="tail", branches=branches) if self.bicubic else slots

    def build(self, make: MakeOperator) -> nn.Module:
        slots = {slot.name: slot for slot in self.slots}

        def block(i: int) -> nn.Module:
            branch = nn.Sequential(make(slots[f"block.{i}.0"]), make(slots[f"block.{i}.1"]), Edge())
            return Add(branch)

        blocks = nn.Sequential(*(block(i) for i in range(self.blocks)))
        ups = [
            nn.Sequential(make(slots[f"upsample.{i}"]), nn.PixelShuffle(factor))
            for i, factor in enumerate(factors(self.scale))
        ]
        network = _SRResNet(make(slots["head"]), blocks, nn.Sequential(*ups), make(slots["hr"]), make(slots["tail"]))
        return AddBicubic(network, self.scale) if self.bicubic else network
