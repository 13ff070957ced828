"""The network level of TrilevelNAS: which paths there are, and which modules they have in common (figure 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

from hwnas.networks.nearest import factors
from hwnas.networks.trilevel import CELL, UPSAMPLE, Backbone

NetworkLevel = Literal["tree", "trellis", "fixed"]

Path = tuple[int, ...]
"""Cells and upsamplings in the order of computation, as of `TrilevelWiring`."""

UPSAMPLINGS_OF_B = 2
"""Upsamplings, that is plain convolutions, which a path of backbone b may have."""


@dataclass(frozen=True, slots=True)
class PathModule:
    """A cell or an upsampling between two nodes of a graph.

    Attributes:
        kind: `CELL` or `UPSAMPLE`.
        source: number of the node that it reads; node 0 is the stem.
        target: number of the node that it writes.
        factor: by which it enlarges.
        resolution: side of the maps that it computes, as a multiple of the low-resolution input's.
    """

    kind: int
    source: int
    target: int
    factor: int
    resolution: int


@dataclass(frozen=True)
class PathGraph:
    """Paths, and the modules that they are made of.

    In a tree, which a single path is too, nothing that comes after a branching is shared. In a trellis, all paths that
    have had as many cells and as many upsamplings are at the same node.

    Attributes:
        paths: in the order of their lengths; each begins with a cell.
        is_trellis: whether they are shared like that.
        factors: of the upsamplings, in their order.
    """

    paths: tuple[Path, ...]
    is_trellis: bool
    factors: tuple[int, ...]

    def _node(self, prefix: Path) -> Path:
        return (prefix.count(CELL), prefix.count(UPSAMPLE)) if self.is_trellis else prefix

    @cached_property
    def nodes(self) -> dict[Path, int]:
        """Numbers of the nodes, in an order in which each comes after those that it is computed from."""
        prefixes = sorted({path[:i] for path in self.paths for i in range(len(path) + 1)}, key=lambda p: (len(p), p))
        return {node: i for i, node in enumerate(dict.fromkeys(map(self._node, prefixes)))}

    @cached_property
    def _placed(self) -> tuple[tuple[PathModule, ...], tuple[tuple[int, ...], ...]]:
        by_path = []
        for path in self.paths:
            resolution, mine = 1, []
            for i, kind in enumerate(path):
                factor = self.factors[path[:i].count(UPSAMPLE)] if kind == UPSAMPLE else 1
                resolution *= factor
                source, target = (self.nodes[self._node(path[:end])] for end in (i, i + 1))
                mine.append(PathModule(kind, source, target, factor, resolution))
            by_path.append(mine)
        # All that a node is made of comes before all that reads it.
        modules = sorted({module for mine in by_path for module in mine}, key=lambda m: (m.source, m.target))
        numbers = {module: i for i, module in enumerate(modules)}
        return tuple(modules), tuple(tuple(numbers[module] for module in mine) for mine in by_path)

    @property
    def modules(self) -> tuple[PathModule, ...]:
        """All modules, each once, in an order in which each comes after all that its node is made of."""
        return self._placed[0]

    @cached_property
    def cells(self) -> dict[int, int]:
        """Of each module that is a cell, its number among cells."""
        return {i: number for number, i in enumerate(i for i, m in enumerate(self.modules) if m.kind == CELL)}

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The modules of each path, by their numbers, in the order of computation."""
        return self._placed[1]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The node that each path ends at."""
        return tuple(self.nodes[self._node(path)] for path in self.paths)

    @cached_property
    def parents(self) -> tuple[tuple[int, int], ...]:
        """Pairs of paths, of which the second is the first and one step more."""
        places = {path: i for i, path in enumerate(self.paths)}
        return tuple((places[path[:-1]], i) for i, path in enumerate(self.paths) if path[:-1] in places)


def candidate_paths(network: NetworkLevel, backbone: Backbone, cells: int, scale: int) -> tuple[Path, ...]:
    """The paths of a tree or a trellis.

    A path of a trellis has all cells and all upsamplings. One of a tree may end after any of them, and on backbone a
    after the last upsampling: with five cells and two upsamplings that are 35 of a tree's 55 nodes, on b all 55.

    Args:
        network: ``tree`` or ``trellis``.
        backbone: of the networks.
        cells: most cells, the first included, which all have.
        scale: of the enlargement.
    """
    most = len(factors(scale)) if backbone == "a" else UPSAMPLINGS_OF_B
    least = most if backbone == "a" or network == "trellis" else 0
    found = [
        (CELL, *(UPSAMPLE if i in places else CELL for i in range(more + ups)))
        for more in range(0 if network == "tree" else cells - 1, cells)
        for ups in range(least, most + 1)
        for places in combinations(range(more + ups), ups)
    ]
    return tuple(sorted(found, key=lambda path: (len(path), path)))
