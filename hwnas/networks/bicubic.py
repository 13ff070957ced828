"""The bicubic enlargement of the input as a residual, so that a network starts from the baseline it has to beat."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DETAIL = 1 / 64
"""What a unit of the network's output adds: 4 grey levels. A step of Adam moves weights by the learning rate whatever
the gradient; on maps of unit variance, and without this factor, that would be tens of grey levels."""


def bicubic(x: Tensor, scale: int) -> Tensor:
    """[B, C, H, W] to [B, C, scale*H, scale*W], with a = -0.75, as torch and ONNX Runtime have it."""
    return functional.interpolate(x, scale_factor=float(scale), mode="bicubic", align_corners=False)


class AddBicubic(nn.Module):
    """``network(x) / 64 + bicubic(x)``.

    An interpolation, not a convolution: like the papers, the cost models do not count it. The degradation of the
    benchmarks uses a = -0.5; the network learns the difference.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x) * DETAIL + bicubic(x, self.scale)
        return out
