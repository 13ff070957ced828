"""Networks of the luma alone: colour, which eyes resolve less finely, is enlarged by interpolation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks.bicubic import Bicubic

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, in full range (BT.601)."""


class Luma(nn.Module):
    """[B, 3, H, W] in [0, 1] to its luma [B, 1, H, W] in [0, 1]."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(LUMA)[None, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight)


def is_of_luma(network: nn.Module) -> bool:
    """Whether the luma is all that a network sees of an image, besides enlarging it."""
    return any(isinstance(module, Luma) for module in network.modules())


class ReplaceLuma(nn.Module):
    """The bicubic enlargement of an image, with the luma that a network makes in the place of its own.

    The same as enlarging Pb and Pr by themselves and going back to RGB: all three colours move by the difference of
    the lumas, which changes neither.

    Args:
        network: [B, 1, H, W] to [B, 1, scale*H, scale*W].
        scale: enlargement.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.luma = Luma()
        self.enlarge: nn.Module = Bicubic(scale)

    def forward(self, x: Tensor) -> Tensor:
        large = self.enlarge(x)
        out: Tensor = large + (self.network(self.luma(x)) - self.luma(large))
        return out
