"""The search space of FALSR (section III): cells and the connections between them; and its published networks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from hwnas.architecture import Architecture
from hwnas.errors import UsageError, first_problem
from hwnas.networks.falsr import FALSRWiring
from hwnas.operators import FLOAT_BITS, OperatorSpec
from hwnas.spaces.named import NAMED
from hwnas.spaces.space import SPACES, SearchSpace, SpaceOptions

EXPANSION = 2

_PAPER = {
    "conv": ("conv_cell", 1),
    "groupConG2": ("conv_cell", 2),
    "groupConG4": ("conv_cell", 4),
    "invertBotConE2": ("inverted_bottleneck", 1),
}
"""Kind and groups by the names of figures 3 and 4."""


class Cell(NamedTuple):
    """One of the 192 operators of a cell.

    Attributes:
        kind: of `OperatorSpec`.
        groups: of a convolution.
        filters: channels that it writes.
        kernel: side of its kernels.
        residual: whether the first block's map is added to the last's; of a single block, meaningless.
        repeats: blocks.
    """

    kind: str
    groups: int
    filters: int
    kernel: int
    residual: bool
    repeats: int

    @classmethod
    def parse(cls, name: str) -> Cell:
        """The cell of a name as in the paper.

        Raises:
            ValueError: if it is none.

        Example:
            >>> Cell.parse("groupConG4_f16_k3_b4_noskip")
            Cell(kind='conv_cell', groups=4, filters=16, kernel=3, residual=False, repeats=4)
        """
        match = re.fullmatch(r"(\w+?)_f(\d+)_k(\d+)_b(\d+)_(is|no)skip", name)
        if match is None or match[1] not in _PAPER:
            raise ValueError(f"{name!r} is no cell of FALSR, such as conv_f64_k3_b4_isskip")
        cell = cls(*_PAPER[match[1]], int(match[2]), int(match[3]), match[5] == "is", int(match[4]))
        if cell not in CELLS:
            raise ValueError(f"{name!r} is no cell of FALSR: its sizes are others")
        return cell

    @property
    def label(self) -> str:
        """Its name in the paper: ``conv_f64_k3_b4_isskip``."""
        name = next(name for name, made_of in _PAPER.items() if made_of == (self.kind, self.groups))
        return f"{name}_f{self.filters}_k{self.kernel}_b{self.repeats}_{'is' if self.residual else 'no'}skip"

    @property
    def canonical(self) -> Cell:
        """The one of those that are the same network."""
        return self._replace(residual=self.residual and self.repeats > 1)

    @property
    def is_signed(self) -> bool:
        """Whether what it writes may be negative."""
        return self.kind == "inverted_bottleneck"

    def spec(self, in_channels: int, signed_input: bool) -> OperatorSpec:
        """The operator that reads so many channels, which may be negative."""
        cell = self.canonical
        return OperatorSpec(
            kind=cell.kind,
            in_channels=in_channels,
            out_channels=cell.filters,
            kernel=cell.kernel,
            groups=cell.groups,
            hidden=EXPANSION * cell.filters if cell.is_signed else None,
            repeats=cell.repeats,
            residual=cell.residual,
            activation="none" if signed_input else "rectified",
            bias=True,
        )


CELLS = tuple(
    Cell(kind, groups, filters, kernel, residual, repeats)
    for (kind, groups), filters, kernel, residual, repeats in product(
        _PAPER.values(),
        (16, 32, 48, 64),
        (1, 3),
        (False, True),
        (1, 2, 4),
    )
)
"""The 192 operators; 160 are distinct, since a residual of one block does nothing."""

CANONICAL = tuple(CELLS.index(cell.canonical) for cell in CELLS)
"""For each cell, the index of the one that it is the same as."""

DISTINCT = tuple(sorted(set(CANONICAL)))
"""The 160 cells that differ."""


class Genotype(NamedTuple):
    """A network of the space as genes: the chromosome of section IV-A.

    Attributes:
        cells: index in `CELLS` of each.
        macro: connections, as of `hwnas.networks.falsr.FALSRWiring`.
    """

    cells: tuple[int, ...]
    macro: tuple[tuple[int, ...], ...]

    @property
    def canonical(self) -> Genotype:
        """The one of those that are the same network."""
        return self._replace(cells=tuple(CANONICAL[cell] for cell in self.cells))


def unconnected(n: int) -> tuple[tuple[int, ...], ...]:
    """The connections of ``n`` cells that each read the one before alone."""
    return tuple((0,) * (n - i) for i in range(n))


def assemble(
    name: str,
    cells: Sequence[Cell],
    macro: Sequence[Sequence[int]],
    scale: int = 2,
    colour: Literal["luma", "rgb"] = "luma",
    bicubic: bool = False,
) -> Architecture:
    """The network of these cells and connections; arguments as of `FALSRWiring`.

    Raises:
        ValidationError: if they are not those of a network.
    """
    filters = [cell.filters for cell in cells]
    wiring = FALSRWiring.model_validate(
        {"scale": scale, "filters": filters, "macro": macro, "colour": colour, "bicubic": bicubic}
    )
    signed = (False, *(cell.is_signed for cell in cells))
    reads_signed = {
        name: any(signed[i] for i in sources)
        for name, sources in zip((*(f"cells.{i}" for i in range(len(cells))), "fuse"), wiring.inputs, strict=True)
    }

    operators = {}
    for slot in wiring.slots:
        if slot.name.startswith("cells."):
            cell = cells[int(slot.name.removeprefix("cells."))]
            operators[slot.name] = cell.spec(slot.in_channels, reads_signed[slot.name])
            continue
        operators[slot.name] = OperatorSpec(
            kind="conv",
            in_channels=slot.in_channels,
            out_channels=slot.out_channels,
            activation="none" if reads_signed.get(slot.name) or (slot.name == "yout" and scale != 2) else "rectified",
            bias=True,
        )
    return Architecture(name=name, wiring=wiring, operators=operators)


class FALSRSpace(SearchSpace):
    """``n`` cells, each one of 160, and ``n (n + 1) / 2`` connections.

    Attributes:
        cells: their number n.
        enlargement: the scale.
        colour: ``luma`` alone, as published, or ``rgb``.
        bicubic: the bicubic enlargement is added to the output.
        width: bits of all layers.
    """

    cells: int = Field(default=7, gt=0, le=32)
    enlargement: Literal[2, 3, 4] = 2
    colour: Literal["luma", "rgb"] = "luma"
    bicubic: bool = False
    width: int = FLOAT_BITS

    @property
    def scale(self) -> int:
        return self.enlargement

    @property
    def size(self) -> int:
        networks: int = len(DISTINCT) ** self.cells * 2 ** (self.cells * (self.cells + 1) // 2)
        return networks

    @property
    def bits(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def first(self) -> Architecture:
        """The smallest."""
        smallest = CELLS.index(Cell.parse("groupConG4_f16_k1_b1_noskip"))
        return self.architecture(Genotype((smallest,) * self.cells, unconnected(self.cells)))

    def architecture(self, genotype: Genotype, name: str | None = None) -> Architecture:
        """The network of these genes."""
        cells = [CELLS[i] for i in genotype.cells]
        made = assemble(name or self.name, cells, genotype.macro, self.enlargement, self.colour, self.bicubic)
        if self.width == FLOAT_BITS:
            return made
        return made.with_bits(self.width).model_copy(update={"name": made.name})

    def sample_genotype(self, rng: random.Random) -> Genotype:
        """Uniformly random genes."""
        cells = tuple(rng.randrange(len(CELLS)) for _ in range(self.cells))
        macro = tuple(tuple(rng.randrange(2) for _ in row) for row in unconnected(self.cells))
        return Genotype(cells, macro).canonical

    def sample(self, rng: random.Random) -> Architecture:
        return self.architecture(self.sample_genotype(rng))


def _space(name: str, colour: str, options: SpaceOptions) -> SearchSpace:
    given = options.given(name, ("cells",))
    if options.bits is not None and len(options.bits) != 1:
        raise UsageError(f"space {name} has one bit width for all layers; give --bits one: --bits 8")
    (width,) = options.bits or (FLOAT_BITS,)
    if options.scale is not None:
        given["enlargement"] = options.scale
    try:
        space = FALSRSpace.model_validate(
            {"name": name, "colour": colour, "bicubic": options.bicubic, "width": width} | given
        )
        space.first.with_bits(width)  # which refuses what is no width
    except ValidationError as error:
        raise UsageError(f"space {name}: {first_problem(error)}") from error
    return space


@SPACES.register("falsr")
def falsr_space(options: SpaceOptions) -> SearchSpace:
    """Networks of luma, as published: 7 cells, x2."""
    return _space("falsr", "luma", options)


@SPACES.register("falsr-rgb")
def falsr_rgb_space(options: SpaceOptions) -> SearchSpace:
    """The same of all three colours."""
    return _space("falsr-rgb", "rgb", options)


PUBLISHED = {
    "falsr-a": (
        "conv_f64_k3_b4_isskip conv_f48_k1_b1_isskip conv_f64_k3_b4_isskip conv_f64_k3_b4_isskip "
        "conv_f64_k3_b4_isskip conv_f64_k1_b4_noskip conv_f64_k3_b4_isskip",
        "0001011 000001 11011 0001 001 11 1",
    ),
    "falsr-b": (
        "invertBotConE2_f16_k3_b1_isskip invertBotConE2_f48_k1_b2_isskip conv_f16_k1_b2_isskip "
        "invertBotConE2_f32_k3_b4_noskip conv_f64_k3_b2_noskip groupConG4_f16_k3_b4_noskip conv_f16_k3_b1_isskip",
        "1100010 100011 01110 1000 101 00 1",
    ),
    "falsr-c": (
        "groupConG2_f32_k1_b1_noskip conv_f64_k1_b4_noskip invertBotConE2_f48_k3_b4_noskip "
        "groupConG2_f32_k1_b1_noskip groupConG4_f32_k1_b1_isskip conv_f48_k1_b4_noskip conv_f16_k3_b1_isskip",
        "1001101 010010 00001 0000 000 00 1",
    ),
}
"""Cells and connections as released: those of B and C differ from what the paper prints in parameters and mult-adds."""


def _published(name: str, colour: Literal["luma", "rgb"]) -> Callable[[int | None, bool], Architecture]:
    cells, macro = ([*text.split()] for text in PUBLISHED[name])

    def build(scale: int | None, bicubic: bool) -> Architecture:
        full = name if colour == "luma" else f"{name}-{colour}"
        return assemble(
            full, [Cell.parse(cell) for cell in cells], [[*map(int, row)] for row in macro], scale or 2, colour, bicubic
        )

    return build


for _name in PUBLISHED:
    NAMED.register(_name)(_published(_name, "luma"))
    NAMED.register(f"{_name}-rgb")(_published(_name, "rgb"))
