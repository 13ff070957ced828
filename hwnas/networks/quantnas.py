"""The QuantNAS network (section 3.1, figure 3): head, repeated cells, upsampling, and a tail at high resolution."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from hwnas.networks.adadm import Residual, residual
from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge


class Cell(nn.Module):
    """The branch of one cell: ``skip(x) + body(x)``; the residual around it is the caller's."""

    def __init__(self, body: nn.Module, skip: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.skip = skip
        self.added = nn.ModuleList([Edge(), Edge()])
        self.sum = Edge()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sum(self.added[0](self.skip(x)) + self.added[1](self.body(x)))
        return out


@WIRINGS.register("quantnas")
class QuantNASWiring(Wiring):
    """``h = head(x)``; ``z = h (+) cells(h)``; ``y = shuffle(upsample(z))``; ``out = y (+) tail(y)``.

    Attributes:
        channels: width of the network.
        cells: how often the cell is repeated (published: 1, 3, 6). Cells share operators, not weights.
        residual: what ``(+)`` is: a plain add, or ``adadm``, the paper's choice for quantised networks.
        bicubic: add the bicubic enlargement of the input to the output. Not in the paper; it makes short trainings
            useful.
    """

    kind: Literal["quantnas"] = "quantnas"
    channels: int = Field(default=36, gt=0)
    cells: int = Field(default=3, gt=0)
    residual: Residual = "add"
    bicubic: bool = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        c = self.channels
        slots = (
            Slot("head.0", 3, c),
            Slot("head.1", c, c),
            Slot("body.0", c, c, count=self.cells),
            Slot("body.1", c, c, count=self.cells),
            Slot("skip", c, c, count=self.cells),
            Slot("upsample", c, 3 * self.scale**2),
            Slot("tail.0", 3, c, resolution=self.scale),
            Slot("tail.1", c, 3, resolution=self.scale),
        )
        return detail_slots(slots, pixels="upsample", branches=["body.1", "skip"]) if self.bicubic else slots

    def build(self, make: MakeOperator) -> nn.Module:
        slots = {slot.name: slot for slot in self.slots}

        def cell() -> nn.Module:
            body = nn.Sequential(make(slots["body.0"]), make(slots["body.1"]))
            return residual(self.channels, Cell(body, make(slots["skip"])), self.residual)

        network = nn.Sequential()
        network.add_module("head", nn.Sequential(make(slots["head.0"]), make(slots["head.1"]), Edge()))
        # What is normalised is added in the first cell.
        normalised = [] if self.residual == "add" else [Edge()]
        cells = nn.Sequential(*normalised, *(cell() for _ in range(self.cells)))
        network.add_module("cells", residual(self.channels, cells, self.residual))
        network.add_module("upsample", make(slots["upsample"]))
        network.add_module("edge", Edge())
        network.add_module("shuffle", nn.PixelShuffle(self.scale))
        tail = nn.Sequential(make(slots["tail.0"]), make(slots["tail.1"]), Edge())
        network.add_module("tail", residual(3, tail, self.residual, is_output=True))
        return AddBicubic(network, self.scale) if self.bicubic else network
