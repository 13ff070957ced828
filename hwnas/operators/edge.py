"""Maps that are read without a ReLU before it: sums, and what is added."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


class Edge(nn.Identity):
    """Marks such a map. It changes nothing, until `hwnas.quantization` puts a quantiser into its place.

    Rectified maps need no mark: the activations of the operators that read them quantise them.

    Args:
        signed: whether values may be negative.
    """

    def __init__(self, signed: bool = True) -> None:
        super().__init__()
        self.signed = signed


def replace_edges(network: nn.Module, make: Callable[[Edge], nn.Module]) -> None:
    """Put what ``make`` makes into the place of every mark."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Edge):
                setattr(parent, name, make(child))
