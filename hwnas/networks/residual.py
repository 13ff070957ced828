"""Sums of a map and of what a branch makes of it, as ESRGAN and its descendants have them."""

from __future__ import annotations

from torch import Tensor, nn

from hwnas.operators.edge import Edge

SCALE = 0.2
"""What the branch counts in a residual within residuals."""


class ScaledResidual(nn.Module):
    """``scale * branch(x) + x``.

    Args:
        branch: keeps the shape of what it reads.
        scale: 0.2, or 1 for a plain sum.
        signed: whether the branch may write negative values.
    """

    def __init__(self, branch: nn.Module, scale: float = SCALE, signed: bool = True) -> None:
        super().__init__()
        self.kept, self.added = Edge(), Edge(signed)
        self.branch = branch
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.kept(x)
        made: Tensor = self.added(self.branch(x))
        return x + (made if self.scale == 1 else self.scale * made)
