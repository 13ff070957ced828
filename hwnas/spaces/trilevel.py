"""The search space of TrilevelNAS (section 2): a path, the operator of each layer, and the channels between them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from hwnas.architecture import Architecture
from hwnas.errors import UsageError, first_problem
from hwnas.networks.nearest import factors
from hwnas.networks.trilevel import CELL, Backbone, TrilevelWiring, end_slots
from hwnas.networks.wiring import Slot
from hwnas.operators import FLOAT_BITS, OperatorSpec
from hwnas.spaces.paths import NetworkLevel, Path, PathGraph, candidate_paths
from hwnas.spaces.space import SPACES, Choice, ChoiceSpace, SearchSpace, SpaceOptions
from hwnas.spaces.trilevel_networks import OPERATORS, WIDTHS, assemble, layer_spec

PUBLISHED_CHANNELS = 64


class CellChoice(NamedTuple):
    """What is chosen of a cell.

    Attributes:
        operators: index of each layer's operator.
        widths: index of the width of each layer but the last.
    """

    operators: tuple[int, ...]
    widths: tuple[int, ...]


def pack(path: int, cells: Iterable[CellChoice]) -> Choice:
    """A choice: the number of the path, and of each of its cells the operators and the widths."""
    return (path, *(number for cell in cells for part in cell for number in part))


def unpack(choice: Choice, space: TrilevelSpace) -> tuple[int, list[CellChoice]]:
    """The path of a choice, and its cells in the order of computation."""
    path, *rest = choice
    size, layers = 2 * space.layers - 1, space.layers
    cells = [rest[i : i + size] for i in range(0, len(rest), size)]
    return path, [CellChoice(tuple(cell[:layers]), tuple(cell[layers:])) for cell in cells]


class TrilevelSpace(ChoiceSpace):
    """Paths x operators x widths; a choice is as of `pack`.

    Attributes:
        backbone: of the networks; see `TrilevelWiring`.
        network: how paths are searched.
        path: the only one, where the network is ``fixed``.
        cells: most cells of a path.
        layers: of a cell.
        channels: width of the network between cells.
        widths: channels that the layers within a cell may write, ascending; the first of as many of a kernel.
        operators: names of what a layer may be.
        enlargement: the scale.
        trunk: as of `TrilevelWiring`.
        bicubic: the bicubic enlargement is added to the output.
        width: bits of all layers.
    """

    backbone: Backbone = "a"
    network: NetworkLevel = "tree"
    path: tuple[Annotated[int, Field(ge=0, le=1)], ...] | None = Field(default=None, min_length=1, max_length=16)
    cells: int = Field(default=5, gt=0, le=8)
    layers: int = Field(default=5, ge=2, le=16)
    channels: int = Field(default=PUBLISHED_CHANNELS, gt=0, le=1024)
    widths: tuple[int, ...] = Field(default=WIDTHS, min_length=1, max_length=16)
    operators: tuple[str, ...] = Field(default=OPERATORS, min_length=1, max_length=16)
    enlargement: Literal[2, 3, 4] = 4
    trunk: bool = False
    bicubic: bool = False
    width: int = FLOAT_BITS

    @model_validator(mode="after")
    def _makes_networks(self) -> TrilevelSpace:
        if self.network == "fixed" and self.path is None:
            raise ValueError("network 'fixed' has one path; give it too, such as path=[0,0,1,1]")
        if self.network != "fixed" and self.path is not None:
            raise ValueError("path is that of network 'fixed'; give network=fixed too")
        if list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 1:
            raise ValueError(f"widths are {list(self.widths)}; give each once, ascending")
        if self.widths[-1] > self.channels:
            raise ValueError(
                f"widths go up to {self.widths[-1]}, and channels are {self.channels}; they are the first of as many"
            )
        # Whatever cannot be built is found now: any operator may stand between any two widths.
        for operator in self.operators:
            for read in (self.channels, *self.widths):
                for written in (self.channels, *self.widths):
                    layer_spec(operator, read, written, False, self.width)
        if len({self.layer(i, None, None, False) for i in range(len(self.operators))}) != len(self.operators):
            raise ValueError(f"operators are {list(self.operators)}; name each once")
        self.architecture(self.graph.paths[0], [self.first_cell] * self.graph.paths[0].count(CELL))
        return self

    @cached_property
    def graph(self) -> PathGraph:
        """All paths, and what they are made of."""
        if self.path is not None:
            paths: tuple[Path, ...] = (self.path,)
        else:
            paths = candidate_paths(self.network, self.backbone, self.cells, self.enlargement)  # type: ignore[arg-type]
        steps = factors(self.enlargement) if self.backbone == "a" else (1,) * 16
        return PathGraph(paths, self.network == "trellis", steps)

    @property
    def ends(self) -> tuple[Slot, ...]:
        """What all networks have besides their paths."""
        trunk = (Slot("trunk", self.channels, self.channels),) if self.trunk else ()
        return Slot("stem", 3, self.channels), *end_slots(self.backbone, self.channels, self.enlargement), *trunk

    @property
    def scale(self) -> int:
        return self.enlargement

    @property
    def _size_of_cell(self) -> int:
        choices: int = len(self.operators) ** self.layers * len(self.widths) ** (self.layers - 1)
        return choices

    @property
    def size(self) -> int:
        return sum(self._size_of_cell ** path.count(CELL) for path in self.graph.paths)

    @property
    def bits(self) -> tuple[int, ...]:
        return (self.width,)

    @property
    def first_cell(self) -> CellChoice:
        """The first operator in each layer, and the narrowest widths."""
        return CellChoice((0,) * self.layers, (0,) * (self.layers - 1))

    @property
    def first(self) -> Architecture:
        """The shortest path, with the first operators and widths."""
        path = self.graph.paths[0]
        return self.architecture(path, [self.first_cell] * path.count(CELL))

    def sample(self, rng: random.Random) -> Architecture:
        weights = [float(self._size_of_cell ** path.count(CELL)) for path in self.graph.paths]
        (path,) = rng.choices(self.graph.paths, weights)
        return self.architecture(path, [self.sample_cell(rng) for _ in range(path.count(CELL))])

    def sample_cell(self, rng: random.Random) -> CellChoice:
        """A uniformly random cell."""
        operators = tuple(rng.randrange(len(self.operators)) for _ in range(self.layers))
        return CellChoice(operators, tuple(rng.randrange(len(self.widths)) for _ in range(self.layers - 1)))

    def has(self, choice: Choice) -> bool:
        if not choice or not 0 <= choice[0] < len(self.graph.paths):
            return False
        cell = (len(self.operators),) * self.layers + (len(self.widths),) * (self.layers - 1)
        counts = cell * self.graph.paths[choice[0]].count(CELL)
        return len(choice) == 1 + len(counts) and all(0 <= i < n for i, n in zip(choice[1:], counts, strict=True))

    def chosen(self, choice: Choice, name: str | None = None) -> Architecture:
        path, cells = unpack(choice, self)
        return self.architecture(self.graph.paths[path], cells, name)

    def choice_of(self, architecture: Architecture) -> Choice | None:
        wiring = architecture.wiring
        if not isinstance(wiring, TrilevelWiring):
            return None
        try:
            cells = [self._cell(architecture, i, widths) for i, widths in enumerate(wiring.widths)]
            choice = pack(self.graph.paths.index(wiring.path), cells)
        except ValueError:
            return None
        if not self.has(choice):
            return None
        found = self.chosen(choice)
        return choice if found.wiring == wiring and found.operators == architecture.operators else None

    def _cell(self, architecture: Architecture, number: int, widths: tuple[int, ...]) -> CellChoice:
        """What a cell is; ValueError if it is none of the space."""
        operators = []
        for layer in range(len(widths) + 1):
            spec = architecture.operators[f"cell.{number}.{layer}"]
            sizes = spec.in_channels, spec.out_channels
            candidates = [layer_spec(name, *sizes, signed=layer == 0, bits=self.width) for name in self.operators]
            operators.append(candidates.index(spec))
        return CellChoice(tuple(operators), tuple(map(self.widths.index, widths)))

    def architecture(self, path: Path, cells: list[CellChoice], name: str | None = None) -> Architecture:
        """The network of a path with these cells, in the order of computation."""
        wiring = TrilevelWiring(
            scale=self.enlargement,
            backbone=self.backbone,
            path=path,
            channels=self.channels,
            widths=tuple(tuple(self.widths[i] for i in cell.widths) for cell in cells),
            trunk=self.trunk,
            bicubic=self.bicubic,
        )
        operators = [[self.operators[i] for i in cell.operators] for cell in cells]
        return assemble(name or self.name, wiring, operators, self.width)

    def layer(self, operator: int, read: int | None, written: int | None, first: bool) -> OperatorSpec:
        """A layer of a cell.

        Args:
            operator: index of its operator.
            read: index of the width that it reads; None for that of the network.
            written: the same of what it writes.
            first: whether it is the first of its cell.
        """
        reads, writes = (self.channels if i is None else self.widths[i] for i in (read, written))
        return layer_spec(self.operators[operator], reads, writes, signed=first, bits=self.width)


def _space(name: str, options: SpaceOptions, taken: tuple[str, ...], **own: Any) -> SearchSpace:
    if options.bits is not None and len(options.bits) != 1:
        raise UsageError(f"space {name} has one bit width for all layers; give --bits one: --bits 8")
    fields = {"name": name, "bicubic": options.bicubic, **own, **options.given(name, taken)}
    if options.scale is not None:
        fields["enlargement"] = options.scale
    fields["width"] = (options.bits or (FLOAT_BITS,))[0]
    # A list that is not set follows the width of the network.
    if "channels" in fields and "widths" not in fields:
        share = [width * fields["channels"] // PUBLISHED_CHANNELS for width in WIDTHS]
        fields["widths"] = tuple(sorted({max(1, width) for width in share}))
    try:
        return TrilevelSpace.model_validate(fields)
    except ValidationError as error:
        raise UsageError(f"space {name}: {first_problem(error)}") from error


_CELLS = ("layers", "channels", "widths", "operators")


@SPACES.register("trilevel-a")
def trilevel_a(options: SpaceOptions) -> SearchSpace:
    """Backbone A: upsampling anywhere, as many cells before and after as it takes."""
    return _space("trilevel-a", options, ("network", "path", "cells", *_CELLS), backbone="a")


@SPACES.register("trilevel-b")
def trilevel_b(options: SpaceOptions) -> SearchSpace:
    """Backbone B: all at low resolution, and a pixel shuffle."""
    return _space("trilevel-b", options, ("network", "path", "cells", *_CELLS), backbone="b")


@SPACES.register("autodeeplab")
def autodeeplab(options: SpaceOptions) -> SearchSpace:
    """Backbone A, its paths searched as a trellis (AutoDeepLab): always all cells."""
    return _space("autodeeplab", options, ("cells", *_CELLS), backbone="a", network="trellis")


@SPACES.register("agd")
def agd(options: SpaceOptions) -> SearchSpace:
    """AGD: its path is fixed, cells first, with a skip around all of them."""
    path = (CELL,) * (options.cells or 5) + (1 - CELL,) * len(factors(options.scale or 4))
    return _space("agd", options, ("cells", *_CELLS), backbone="a", network="fixed", path=path, trunk=True)
