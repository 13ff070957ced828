"""The bicubic enlargement of the input as a residual, so that a network starts from the baseline it has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

A = -0.75
"""Of the cubic kernel, as torch and ONNX Runtime have it."""

REACH = 2
"""Pixels to either side that an enlarged pixel depends on."""

DETAIL = 1 / 64
"""What a unit of the network's output adds: 4 grey levels. A step of Adam moves weights by the learning rate whatever
the gradient; on maps of unit variance, and without this factor, that would be tens of grey levels."""


def bicubic(x: Tensor, scale: int) -> Tensor:
    """[B, C, H, W] to [B, C, scale*H, scale*W], by torch."""
    return functional.interpolate(x, scale_factor=float(scale), mode="bicubic", align_corners=False)


def _cubic(t: float) -> float:
    """Keys' kernel."""
    t = abs(t)
    if t <= 1:
        return (A + 2) * t**3 - (A + 3) * t**2 + 1
    return A * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def bicubic_kernels(scale: int) -> Tensor:
    """The kernel of each of the pixels that one becomes, [scale, scale, 5, 5], in double precision."""
    # The pixel of phase i lies at (i + 1/2) / scale - 1/2.
    sides = range(-REACH, REACH + 1)
    phases = [[_cubic((i + 0.5) / scale - 0.5 - k) for k in sides] for i in range(scale)]
    taps = torch.tensor(phases, dtype=torch.float64)
    return torch.einsum("iy,jx->ijyx", taps, taps)


class Bicubic(nn.Module):
    """`bicubic` as a module."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return bicubic(x, self.scale)


class AddBicubic(nn.Module):
    """``network(x) / 64 + bicubic(x)``.

    An interpolation, not a convolution: like the papers, the cost models do not count it. The degradation of the
    benchmarks uses a = -0.5; the network learns the difference.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.enlarge: nn.Module = Bicubic(scale)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x) * DETAIL + self.enlarge(x)
        return out
