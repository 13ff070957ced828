"""What a candidate costs, in microseconds: a search asks for thousands, most of which it never trains."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.cost_models.base import CostModel
from hwnas.networks.falsr import STEM
from hwnas.operators import OperatorSpec
from hwnas.sizes import Size
from hwnas.spaces.falsr import CELLS, FALSRSpace, Genotype

FUSE = -1
"""Stands for ``fuse`` among the cells."""

Costs = tuple[float, ...]
"""One value of each term."""

Line = tuple[float, float]
"""Constant, and what each channel that is read adds."""

_WIDTHS = (16, 48, 480)
"""Channels at which a cost is taken: two make a line, and the third says whether it is one. Cells read multiples of 16;
a cost that pads channels to more is none."""


class CandidateCosts:
    """Costs of networks of a space that are counted, from their genes.

    What a cell costs is a line in the channels that it reads, for every cost that adds up over convolutions. Lines are
    found once for each cell, and held against a third width; whatever is none is asked for at each width it has.

    Args:
        space: whose networks.
        terms: cost models with the input sizes at which they are taken.
    """

    def __init__(self, space: FALSRSpace, terms: Sequence[tuple[CostModel, Size]]) -> None:
        self.space = space
        self.terms = tuple(terms)
        self._lines: dict[tuple[int, int], Line | None] = {}
        self._single: dict[tuple[int, int, int], float] = {}
        self._ends = [self._of_the_ends(model, size) if model.additive else 0.0 for model, size in self.terms]

    def __call__(self, genotype: Genotype) -> Costs:
        """The cost of each term, in its unit."""
        return tuple(
            self._added_up(genotype, term)
            if model.additive
            else model.architecture_cost(self.space.architecture(genotype), size).value
            for term, (model, size) in enumerate(self.terms)
        )

    def cell(self, cell: int, in_channels: int, term: int) -> float:
        """What a cell costs that reads so many channels; ``fuse``, where it is `FUSE`."""
        key = cell, term
        if key not in self._lines:
            self._lines[key] = self._line(cell, term)
        if (line := self._lines[key]) is not None:
            return line[0] + line[1] * in_channels
        single = cell, in_channels, term
        if single not in self._single:
            self._single[single] = self.asked(cell, in_channels, term)
        return self._single[single]

    def ends(self, term: int) -> float:
        """What all networks of the space cost besides their cells and ``fuse``."""
        return self._ends[term]

    def _added_up(self, genotype: Genotype, term: int) -> float:
        widths = (STEM, *(CELLS[cell].filters for cell in genotype.cells))
        total = self._ends[term]
        for d, cell in enumerate((*genotype.cells, FUSE)):
            read = widths[d] + sum(widths[i] for i in range(d) if genotype.macro[i][d - 1 - i])
            total += self.cell(cell, read, term)
        return total

    def _line(self, cell: int, term: int) -> Line | None:
        low, high, far = (self.asked(cell, width, term) for width in _WIDTHS)
        slope = (high - low) / (_WIDTHS[1] - _WIDTHS[0])
        constant = low - slope * _WIDTHS[0]
        return (constant, slope) if constant + slope * _WIDTHS[2] == far else None

    def asked(self, cell: int, in_channels: int, term: int) -> float:
        """The same of the cost model itself."""
        model, size = self.terms[term]
        if cell == FUSE:
            spec = OperatorSpec(kind="conv", in_channels=in_channels, out_channels=STEM, activation="none", bias=True)
        else:
            spec = CELLS[cell].spec(in_channels, signed_input=True)
        return model.operator_cost(spec.with_bits(self.space.width), size)

    def _of_the_ends(self, model: CostModel, size: Size) -> float:
        first = self.space.first
        layers = model.architecture_cost(first, size).layers
        return sum(layer.value for layer in layers if not layer.layer.startswith(("cells.", "fuse")))
