"""The supernet of TrilevelNAS: all paths at once, in their cells all operators, in these all widths (section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.networks.bicubic import DETAIL, bicubic
from hwnas.networks.residual import SCALE
from hwnas.networks.trilevel import CELL, end_slots, header, upsampling
from hwnas.networks.wiring import Slot
from hwnas.operators import build_operator
from hwnas.operators.initialise import Start, initialise
from hwnas.operators.layers import FloatLayers
from hwnas.searches.differentiable.supernet import Supernet
from hwnas.searches.trilevel.relaxation import PathRelaxation, Relaxation, RelaxedPaths, distribution, draw_widths
from hwnas.searches.trilevel.superkernel import SuperLayer
from hwnas.spaces.space import Choice
from hwnas.spaces.trilevel import TrilevelSpace, unpack
from hwnas.spaces.trilevel_networks import end_spec

Widths = Literal["gumbel", "max", "min", "random"]
"""Which widths a forward of a training computes; in evaluation it is the likeliest of each layer."""

SPREAD = 1e-3
"""Standard deviation of the first alphas: at exact ties sparsestmax has no gradient."""


class TrilevelSupernet(Supernet[RelaxedPaths]):
    """A sum over the ends of paths, each weighted by its share, and one header for all (eq. 1).

    Modules that no path of weight needs are neither computed nor kept for the backward; nor are operators of weight
    zero.

    Args:
        space: what is searched.
        relaxation: of operators.
        paths: how paths are weighed.

    Attributes:
        progress: 0..1, how far the search is: what decides about radii.
        mode: which widths are computed.
    """

    def __init__(self, space: TrilevelSpace, relaxation: Relaxation, paths: PathRelaxation) -> None:
        super().__init__()
        self.space, self.graph = space, space.graph
        self.relaxation, self.paths = relaxation, paths
        self.progress = 0.0
        self.mode: Widths = "gumbel"
        self._choice: Choice | None = None
        channels, factor = space.channels, space.enlargement
        inner: Start = "features" if space.bicubic else "torch"
        self.stem = _end(Slot("stem", 3, channels), "detail" if space.bicubic else inner)
        self.path_modules = nn.ModuleList()
        for module in self.graph.modules:
            if module.kind == CELL:
                self.path_modules.append(SuperCell(space, inner))
            else:
                convolution = _end(Slot("up", channels, channels), inner)
                self.path_modules.append(upsampling(space.backbone, module.factor, convolution))
        self.trunk = _end(Slot("trunk", channels, channels), inner) if space.trunk else None
        ends = {
            slot.name: _end(slot, "pixels" if space.bicubic and slot.name == "tail" else inner)
            for slot in end_slots(space.backbone, channels, factor)
        }
        self.header = header(space.backbone, ends, factor)
        self._ends = {} if self.graph.is_trellis else {end: path for path, end in enumerate(self.graph.ends)}
        # Nodes that are needed no more once a module has been computed: whole images have large ones.
        last = {module.source: i for i, module in enumerate(self.graph.modules)}
        self._read_last: dict[int, list[int]] = {}
        for node, i in last.items():
            self._read_last.setdefault(i, []).append(node)
        cells = len(self.graph.cells)
        sizes = (
            (paths.size,),
            (cells, space.layers, len(space.operators)),
            (cells, space.layers - 1, len(space.widths)),
        )
        self.alphas = nn.ParameterList(SPREAD * torch.randn(size) for size in sizes)

    def relaxed(self) -> RelaxedPaths:
        network, operators, widths = self.alphas
        return RelaxedPaths(
            *self.paths(network, self.progress),
            operators=distribution(self.relaxation, operators, self.progress),
            widths=widths.softmax(-1),
        )

    def weights(self) -> Iterator[nn.Parameter]:
        return (parameter for name, parameter in self.named_parameters() if not name.startswith("alphas."))

    def choose(self, choice: Choice | None) -> None:
        self._choice = choice

    def forward(self, x: Tensor) -> Tensor:
        if self._choice is None:
            relaxed = self.relaxed()
            widths, scores = self._drawn()
        else:
            relaxed, widths = self._certain(self._choice)
            scores = None
        used, operators = relaxed.modules.tolist(), relaxed.operators.tolist()
        stem = self.stem(x)
        nodes, out = {0: stem}, None
        shares = relaxed.paths.tolist()
        for i, (module, network) in enumerate(zip(self.graph.modules, self.path_modules, strict=True)):
            if used[i] == 0:
                continue
            source = nodes[module.source]
            if module.kind == CELL:
                cell = self.graph.cells[i]
                score = None if scores is None else scores[cell]
                made = network(source, relaxed.operators[cell], operators[cell], widths[cell], score)
            else:
                if self.trunk is not None and module.resolution == module.factor:  # the first upsampling
                    source = self.trunk(source) + stem
                made = network(source)
            if self.graph.is_trellis:
                made = relaxed.edges[i] * made
            nodes[module.target] = nodes[module.target] + made if module.target in nodes else made
            # Of a tree, a node is an end as soon as it is made; a trellis has one end, which all paths have.
            path = self._ends.get(module.target)
            if path is not None and shares[path] != 0:
                share = relaxed.paths[path] * made
                out = share if out is None else out + share
            for node in self._read_last.get(i, ()):
                nodes.pop(node, None)
        mixed = nodes[self.graph.ends[0]] if self.graph.is_trellis else out
        made_of_all: Tensor = self.header(mixed)
        return made_of_all * DETAIL + bicubic(x, self.space.enlargement) if self.space.bicubic else made_of_all

    def _drawn(self) -> tuple[list[list[int]], Tensor | None]:
        """Widths of each layer of each cell as indices, and their scores where these have a gradient."""
        logits = self.alphas[2]
        if self.training and self.mode == "gumbel":
            return draw_widths(logits)
        cells, layers, count = logits.shape
        if not self.training:
            indices = logits.argmax(-1)
        elif self.mode == "random":
            indices = torch.randint(count, (cells, layers))
        else:
            indices = torch.full((cells, layers), count - 1 if self.mode == "max" else 0)
        return indices.tolist(), None

    def _certain(self, choice: Choice) -> tuple[RelaxedPaths, list[list[int]]]:
        """A choice as a relaxed architecture, and its widths."""
        path, cells = unpack(choice, self.space)
        network, operators, widths = (torch.zeros_like(alpha) for alpha in self.alphas)
        members = self.graph.members[path]
        modules = torch.zeros(len(self.graph.modules), device=network.device)
        modules[list(members)] = 1
        chosen = [[0] * (self.space.layers - 1) for _ in range(len(operators))]
        for number, cell in zip((self.graph.cells[i] for i in members if i in self.graph.cells), cells, strict=True):
            operators[number, range(self.space.layers), list(cell.operators)] = 1
            chosen[number] = list(cell.widths)
        shares = torch.zeros(len(self.graph.paths), device=network.device)
        shares[path] = 1
        return RelaxedPaths(shares, modules, modules, operators, widths), chosen


class SuperCell(nn.Module):
    """A cell of the supernet: layers of all operators in a row, and the skip around them."""

    def __init__(self, space: TrilevelSpace, start: Start) -> None:
        super().__init__()
        self._widths, self._channels = space.widths, space.channels
        self.layers = nn.ModuleList(SuperLayer(space, first=i == 0) for i in range(space.layers))
        for layer in self.layers:
            for operator in layer.operators:  # type: ignore[union-attr]
                initialise(operator, start)

    def forward(
        self, x: Tensor, operators: Tensor, values: list[list[float]], widths: list[int], scores: Tensor | None
    ) -> Tensor:
        """The cell's output.

        Args:
            x: [B, channels, H, W].
            operators: [layers, operators], their weights.
            values: the same as numbers.
            widths: index of each layer's but the last.
            scores: [layers - 1], of the widths; None for 1.
        """
        y = x
        written = [*(self._widths[i] for i in widths), self._channels]
        for i, layer in enumerate(self.layers):
            y = layer(y, operators[i], values[i], written[i])
            if scores is not None and i < len(scores):
                y = y * scores[i]
        return SCALE * y + x


def _end(slot: Slot, start: Start) -> nn.Module:
    """A convolution outside cells."""
    module = build_operator(end_spec(slot.name, slot.in_channels, slot.out_channels), FloatLayers())
    initialise(module, start)
    return module
