"""The networks of AGD and TrilevelNAS (section 2, figure 3): residuals in residuals, and upsampling anywhere."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor, nn

from hwnas.networks.bicubic import AddBicubic
from hwnas.networks.nearest import Header, enlarge, factors, header_slots
from hwnas.networks.residual import ScaledResidual
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring, detail_slots
from hwnas.operators.edge import Edge

Backbone = Literal["a", "b"]
Step = Annotated[int, Field(ge=0, le=1)]
Width = Annotated[int, Field(gt=0, le=1024)]

CELL, UPSAMPLE = 0, 1
"""What a path consists of, in the paper's notation."""

_NAMES = ("cell", "up")


class PathStep(NamedTuple):
    """A step of a path.

    Attributes:
        name: of its slot, or the beginning of its layers' names: ``up.0``, ``cell.2``.
        kind: `CELL` or `UPSAMPLE`.
        factor: by which it enlarges.
        resolution: side of the maps that it computes, as a multiple of the low-resolution input's.
    """

    name: str
    kind: int
    factor: int
    resolution: int


def rir_cell(layers: Iterable[nn.Module]) -> ScaledResidual:
    """``0.2 * layers(x) + x``: a residual in residuals, whose last layer writes nothing negative."""
    return ScaledResidual(nn.Sequential(*layers), signed=False)


class ShuffleHeader(nn.Module):
    """A convolution to the sub-pixels, and a pixel shuffle: the header of TrilevelNAS-B."""

    def __init__(self, tail: nn.Module, scale: int) -> None:
        super().__init__()
        self.tail = tail
        self.edge = Edge()
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shuffle(self.edge(self.tail(x)))
        return out


def cell_slots(name: str, channels: int, widths: Sequence[int], resolution: int) -> list[Slot]:
    """The slots of a cell's layers; ``widths`` are those between them."""
    ends = pairwise((channels, *widths, channels))
    return [Slot(f"{name}.{i}", read, written, resolution) for i, (read, written) in enumerate(ends)]


def upsampling(backbone: Backbone, factor: int, convolution: nn.Module) -> nn.Module:
    """An upsampling of the backbone around its convolution."""
    return enlarge(factor, convolution) if backbone == "a" else convolution


def end_slots(backbone: Backbone, channels: int, scale: int) -> tuple[Slot, ...]:
    """The slots of a backbone's header."""
    return header_slots(channels, scale) if backbone == "a" else (Slot("tail", channels, 3 * scale**2),)


def header(backbone: Backbone, made: Mapping[str, nn.Module], scale: int) -> nn.Module:
    """The header of a backbone, of what was made for its slots."""
    return Header(made["hr"], made["tail"]) if backbone == "a" else ShuffleHeader(made["tail"], scale)


@WIRINGS.register("trilevel")
class TrilevelWiring(Wiring):
    """A stem, a path of cells and upsamplings, and a header.

    On backbone ``a``, an upsampling repeats pixels, convolves and has a leaky ReLU, and all of them together enlarge by
    the scale; the header convolves twice at high resolution. On ``b``, an "upsampling" is a plain convolution at low
    resolution, of which there may be any number; the header makes the sub-pixels and shuffles them.

    Attributes:
        backbone: ``a`` or ``b``, as of TrilevelNAS.
        path: 0 for a cell and 1 for an upsampling, in the order of computation; the first is a cell.
        channels: width of the network between cells.
        widths: of each cell, the channels between its layers, one less than it has layers.
        trunk: a convolution after the cells that precede the first upsampling, and a skip around both (AGD).
        bicubic: add the bicubic enlargement of the input to the output (not in the papers).
    """

    kind: Literal["trilevel"] = "trilevel"
    backbone: Backbone = "a"
    path: tuple[Step, ...] = Field(min_length=1, max_length=64)
    channels: Width = 64
    widths: tuple[tuple[Width, ...], ...]
    trunk: bool = False
    bicubic: bool = False

    @model_validator(mode="after")
    def _is_a_path_of_the_backbone(self) -> TrilevelWiring:
        if self.path[0] != CELL:
            raise ValueError(f"path is {list(self.path)}; it begins with a cell, 0")
        ups, wanted = self.path.count(UPSAMPLE), len(factors(self.scale))
        if self.backbone == "a" and ups != wanted:
            raise ValueError(
                f"path {list(self.path)} has {ups} upsampling{'s' * (ups != 1)}, and x{self.scale} on backbone a takes "
                f"{wanted}"
            )
        if self.trunk and self.backbone != "a":
            raise ValueError("trunk is of backbone a")
        if len(self.widths) != (cells := self.path.count(CELL)):
            raise ValueError(f"widths are of {len(self.widths)} cells, and path has {cells}")
        if len(depths := {len(widths) + 1 for widths in self.widths}) > 1:
            raise ValueError(f"widths are of cells of {sorted(depths)} layers; all have the same number")
        return self

    @property
    def steps(self) -> tuple[PathStep, ...]:
        """The path, step by step."""
        enlargements = iter(factors(self.scale))
        resolution, steps, counts = 1, [], [0, 0]
        for kind in self.path:
            factor = next(enlargements) if kind == UPSAMPLE and self.backbone == "a" else 1
            resolution *= factor
            steps.append(PathStep(f"{_NAMES[kind]}.{counts[kind]}", kind, factor, resolution))
            counts[kind] += 1
        return tuple(steps)

    @property
    def _leading(self) -> int:
        """Steps before the first upsampling."""
        return self.path.index(UPSAMPLE) if UPSAMPLE in self.path else len(self.path)

    @property
    def slots(self) -> tuple[Slot, ...]:
        channels, widths = self.channels, iter(self.widths)
        of_steps: list[list[Slot]] = []
        for step in self.steps:
            if step.kind == UPSAMPLE:
                of_steps.append([Slot(step.name, channels, channels, step.resolution)])
            else:
                of_steps.append(cell_slots(step.name, channels, next(widths), step.resolution))
        trunk = [Slot("trunk", channels, channels)] if self.trunk else []
        slots = (
            Slot("stem", 3, channels),
            *chain(*of_steps[: self._leading], trunk, *of_steps[self._leading :]),
            *end_slots(self.backbone, channels, self.scale),
        )
        return detail_slots(slots, pixels="tail") if self.bicubic else slots

    def build(self, make: MakeOperator) -> nn.Module:
        made = {slot.name: make(slot) for slot in self.slots}
        depth = len(self.widths[0]) + 1

        def module(step: PathStep) -> nn.Module:
            if step.kind == CELL:
                return rir_cell(made[f"{step.name}.{i}"] for i in range(depth))
            return upsampling(self.backbone, step.factor, made[step.name])

        modules = [module(step) for step in self.steps]
        body: nn.Module = nn.Sequential(*modules[: self._leading])
        if self.trunk:
            body = ScaledResidual(nn.Sequential(body, made["trunk"]), scale=1)
        parts = {
            "stem": made["stem"],
            "body": body,
            "rest": nn.Sequential(*modules[self._leading :]),
            "header": header(self.backbone, made, self.scale),
        }
        network = nn.Sequential(OrderedDict(parts))
        return AddBicubic(network, self.scale) if self.bicubic else network
