"""From logits to the relaxed architecture: distributions over paths, operators and widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.searches.trilevel.sparsestmax import largest_radius, sparsemax, sparsestmax
from hwnas.spaces.paths import PathGraph

Relaxation = Literal["sparsestmax", "sparsemax", "softmax"]

Ordering = Literal["hinge", "projected", "literal", "none"]

ORDERING_WEIGHT: dict[Ordering, float] = {"hinge": 0.01, "projected": 0.01, "literal": 1e-5, "none": 0.0}
"""Lambda of equation 2 where the user gives none; the paper's is that of ``literal``."""


@dataclass(frozen=True)
class RelaxedPaths:
    """A relaxed architecture.

    Attributes:
        paths: [P], probability of each path.
        modules: [M], probability of each module's being on the path that is taken.
        edges: [M], what each module's output counts at its target: 1 in a tree.
        operators: [C, layers, operators], of each cell.
        widths: [C, layers - 1, widths], of each cell.
    """

    paths: Tensor
    modules: Tensor
    edges: Tensor
    operators: Tensor
    widths: Tensor


def distribution(kind: Relaxation, logits: Tensor, progress: float) -> Tensor:
    """Along the last dimension; of sparsestmax the radius is ``progress`` times the largest."""
    if kind == "softmax":
        return logits.softmax(-1)
    if kind == "sparsemax":
        return sparsemax(logits)
    return sparsestmax(logits, progress * largest_radius(logits.shape[-1]))


class PathRelaxation:
    """How the paths of a graph are weighed against each other.

    In a tree each path has a logit, and what its end makes counts as much as its share says. In a trellis each module
    has one, and those that read a node compete: a path's probability is the product of theirs (AutoDeepLab).

    Args:
        graph: the paths.
        kind: of a tree's distribution; a trellis has softmax, as published.
        ordering: how the shares of a tree are made to fall along paths.
        weight: lambda of the ordering.
    """

    def __init__(self, graph: PathGraph, kind: Relaxation, ordering: Ordering, weight: float) -> None:
        self.graph = graph
        self.kind = kind
        self.ordering = ordering
        self.weight = weight
        self.size = len(graph.modules) if graph.is_trellis else len(graph.paths)
        incidence = torch.zeros(len(graph.paths), len(graph.modules))
        for row, members in zip(incidence, graph.members, strict=True):
            row[list(members)] = 1
        self._incidence = incidence
        self._parents = torch.tensor(graph.parents, dtype=torch.long).reshape(-1, 2)
        # Summed over the paths from root to leaf, the differences between neighbours leave the leaves less the roots.
        children, parents = {child for _, child in graph.parents}, {parent for parent, _ in graph.parents}
        leaves_below = self._leaves_below(parents)
        self._roots_and_leaves = torch.tensor(
            [(i not in parents) - (leaves_below[i] if i not in children else 0.0) for i in range(len(graph.paths))]
        )
        sources = [module.source for module in graph.modules]
        self._rivals = [[i for i, s in enumerate(sources) if s == node] for node in sorted(set(sources))]

    def _leaves_below(self, parents: set[int]) -> list[float]:
        below = [float(i not in parents) for i in range(len(self.graph.paths))]
        # Children come after their parents.
        for parent, child in reversed(self.graph.parents):
            below[parent] += below[child]
        return below

    def __call__(self, logits: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities of paths and of modules, and what modules count at their targets; see `RelaxedPaths`.

        Args:
            logits: [size].
            progress: 0..1, of the search.
        """
        incidence = self._incidence.to(logits)
        if self.graph.is_trellis:
            edges = torch.zeros_like(logits)
            for rivals in self._rivals:
                edges = edges.index_put((torch.tensor(rivals, device=logits.device),), logits[rivals].softmax(-1))
            paths = torch.stack([edges[list(members)].prod() for members in self.graph.members])
        else:
            paths = distribution(self.kind, self._ordered(logits), progress)
            edges = torch.ones(len(self.graph.modules), device=logits.device)
        return paths, paths @ incidence, edges

    def _ordered(self, logits: Tensor) -> Tensor:
        c = self._roots_and_leaves.to(logits)
        if self.ordering == "literal":
            # As printed: a constant in what is minimised, so that nothing moves.
            return logits + self.weight * (c @ logits)
        if self.ordering == "projected":
            return logits - self.weight / 2 * c
        return logits

    def penalty(self, paths: Tensor) -> Tensor:
        """What the alphas' loss has for paths that count more than those that they go on from: a scalar."""
        if self.ordering != "hinge" or not len(self._parents):
            return paths.new_zeros(())
        return self.weight * self._rises(paths).clamp_min(0).sum()

    def ordered_share(self, paths: Tensor) -> float:
        """Share of the pairs of a path and one step more in which the shorter one counts at least as much."""
        return 1.0 if not len(self._parents) else float((self._rises(paths) <= 0).double().mean())

    def _rises(self, paths: Tensor) -> Tensor:
        parent, child = self._parents.to(paths.device).unbind(1)
        return paths[child] - paths[parent]


def draw_widths(logits: Tensor) -> tuple[list[list[int]], Tensor]:
    """One width for each layer, at random by straight-through Gumbel-softmax.

    Args:
        logits: [C, layers - 1, widths].

    Returns:
        The widths drawn, and their scores, [C, layers - 1]: 1, with the gradient of the soft sample.
    """
    sample = functional.gumbel_softmax(logits, hard=True, dim=-1)
    chosen = sample.argmax(-1)
    return chosen.tolist(), sample.gather(-1, chosen[..., None])[..., 0]


def mean_largest(operators: Tensor) -> float:
    """Mean over all layers of their largest operator's weight."""
    return float(operators.max(-1).values.mean())
