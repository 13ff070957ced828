"""Latency tables of trilevel spaces.

An operator between any two of the widths, at any of the resolutions, are hundreds: too many to measure one by one. So
what a layer takes is told from a few numbers of its kind at a resolution: each layer of it takes some time, and then
some for each channel that it reads, for each that it writes, and for each multiplication. What is its own, as of widths
that do not fill a vector, is another number, which is drawn towards none.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from itertools import product

from hwnas.cost_models.counting import operator_macs
from hwnas.devices.target import Target
from hwnas.latency.design import Design, Feature, Place
from hwnas.networks.trilevel import CELL, UPSAMPLE
from hwnas.networks.wiring import Slot
from hwnas.operators import OperatorSpec
from hwnas.spaces.space import SPACES, Choice, SpaceOptions
from hwnas.spaces.trilevel import CellChoice, TrilevelSpace, pack
from hwnas.spaces.trilevel_networks import end_spec

_VARIANTS = 4
"""Networks for each operator at each resolution, of which four numbers are told: with the narrowest widths, with the
widest, and with widths at random."""


_SPREAD, _OWN_SPREAD = 1.0, 0.1
"""How large the numbers of a kind are expected to be, and an operator's own, for each pixel of the input, in times of
the reference. Without the latter, the error that 19 of 20 networks at random are within was 8.8 % in the place of 5.2 %
on backbone b, and 17.5 % in the place of 12.6 % on a (preset tiny at 48x80, ONNX Runtime on a CPU)."""


class TrilevelDesign(Design[TrilevelSpace]):
    """See the module."""

    # Where all networks have as many cells, what a layer takes and what they all take cannot be told apart. So what
    # they have in common is shared out among both; were it all the constant's, cheap layers would be below 0.
    constant_spread = _SPREAD
    title = "what an operator takes"

    def reference(self, target: Target) -> Choice:
        """The shortest path, with the first operators and widths."""
        return self._path(0)

    def operators(self, reference: Choice) -> list[Choice]:
        """Networks whose cells at one resolution have one operator, and else the reference's; and the longest path."""
        rng = random.Random(0)
        longest = self._path(len(self.space.graph.paths) - 1)
        found = dict.fromkeys([longest] if longest != reference else [])
        for resolution, path in self._shortest_with().items():
            for operator, variant in product(range(len(self.space.operators)), range(_VARIANTS)):
                cell = CellChoice((operator,) * self.space.layers, self._widths(variant, rng))
                found[self._path(path, {resolution: cell})] = None
        found.pop(reference, None)
        return list(found)

    def calibration(self, count: int, seed: int = 0) -> list[Choice]:
        """All paths are about equally frequent."""
        rng = random.Random(seed)
        paths = rng.sample(range(len(self.space.graph.paths)), len(self.space.graph.paths))
        return [self._on_path(paths[i % len(paths)], rng) for i in range(count)]

    def at_random(self, rng: random.Random) -> Choice:
        return self._on_path(rng.randrange(len(self.space.graph.paths)), rng)

    def options(self) -> list[str]:
        space = self.space
        given = SpaceOptions(
            scale=space.scale, bits=space.bits, cells=space.cells, channels=space.channels, bicubic=space.bicubic
        )
        found = ["--cells", str(space.cells), "--channels", str(space.channels)]
        found.append(f"--{'' if space.bicubic else 'no-'}bicubic")
        usual = SPACES[space.name](given) if space.name in SPACES else None
        for name in ("layers", "widths", "operators", "network", "path"):
            if (value := getattr(space, name)) != getattr(usual, name, None):
                found += ["--set", f"space.{name}={value if isinstance(value, str | int) else json.dumps(value)}"]
        return found

    def features(self, target: Target) -> Mapping[Place, Mapping[Feature, float]]:
        space = self.space
        found: dict[Place, dict[Feature, float]] = {}
        # What all networks have is in the constant; so are upsamplings, where paths do not differ in them.
        differ = len({path.count(UPSAMPLE) for path in space.graph.paths}) > 1
        up = self._end(Slot("up", space.channels, space.channels))
        for slot in space.ends:
            found[self._end(slot), slot.resolution] = {}
        for resolution in {module.resolution for module in space.graph.modules if module.kind == UPSAMPLE}:
            found[up, resolution] = {Feature(("up", resolution), _SPREAD): resolution**2} if differ else {}
        for resolution in self._shortest_with():
            for name, spec in self._layers():
                area = resolution**2
                amounts = {
                    "layers": 1.0,
                    "reads": area * spec.in_channels / space.channels,
                    "writes": area * spec.out_channels / space.channels,
                    "multiplies": area * operator_macs(spec, (1, 1)) / (9 * space.channels**2),
                }
                found[spec, resolution] = {
                    Feature((spec, resolution), _OWN_SPREAD): area,
                    **{Feature((name, resolution, what), _SPREAD): n for what, n in amounts.items()},
                }
        return found

    def settled(self, constant: float, operators: Mapping[Place, float]) -> tuple[float, dict[Place, float]]:
        """As they are, but that nothing takes less than no time: what is cheap may be noise."""
        return max(constant, 0.0), {place: max(value, 0.0) for place, value in operators.items()}

    def _end(self, slot: Slot) -> OperatorSpec:
        return end_spec(slot.name, slot.in_channels, slot.out_channels, self.space.width)

    def _layers(self) -> Iterator[tuple[str, OperatorSpec]]:
        """All that layers of cells can be, and the name of each one's operator."""
        space = self.space
        widths = range(len(space.widths))
        between: list[tuple[int | None, int | None, bool]] = [(None, k, True) for k in widths]
        between += [(k, None, False) for k in widths]
        between += [(j, k, False) for j, k in product(widths, widths)]
        for (operator, name), (read, written, first) in product(enumerate(space.operators), between):
            yield name, space.layer(operator, read, written, first)

    def _shortest_with(self) -> dict[int, int]:
        """Resolutions of cells, and the shortest path that has one there."""
        graph, found = self.space.graph, dict[int, int]()
        for path, members in enumerate(graph.members):
            for i in members:
                if graph.modules[i].kind == CELL:
                    found.setdefault(graph.modules[i].resolution, path)
        return found

    def _path(self, path: int, cells: Mapping[int, CellChoice] | None = None) -> Choice:
        """A path, with these cells at their resolutions and the first operators and widths elsewhere."""
        graph, space = self.space.graph, self.space
        modules = [graph.modules[i] for i in graph.members[path]]
        return pack(path, [(cells or {}).get(m.resolution, space.first_cell) for m in modules if m.kind == CELL])

    def _on_path(self, path: int, rng: random.Random) -> Choice:
        cells = self.space.graph.paths[path].count(CELL)
        return pack(path, [self.space.sample_cell(rng) for _ in range(cells)])

    def _widths(self, variant: int, rng: random.Random) -> tuple[int, ...]:
        if variant < 2:
            return (0 if variant == 0 else len(self.space.widths) - 1,) * (self.space.layers - 1)
        return self.space.sample_cell(rng).widths
