"""Depth to space, in the order of channels that TensorFlow, neural processors and the published FALSR have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _DepthToSpace(torch.autograd.Function):
    """The same as one operator of ONNX, which torch has in another order of channels only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: int) -> Tensor:
        return _shuffled(x, scale)

    @staticmethod
    def symbolic(g: Any, x: Any, scale: int) -> Any:
        return g.op("DepthToSpace", x, blocksize_i=scale, mode_s="DCR")


def _shuffled(x: Tensor, scale: int) -> Tensor:
    colours = x.shape[1] // scale**2
    return functional.pixel_shuffle(x.unflatten(1, (scale**2, colours)).transpose(1, 2).flatten(1, 2), scale)


class DepthToSpace(nn.Module):
    """[B, scale^2 * C, H, W] to [B, C, scale*H, scale*W]; channel ``(dy * scale + dx) * C + c`` is pixel (dy, dx) of c.

    `nn.PixelShuffle` has the colours outermost instead.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            out: Tensor = _DepthToSpace.apply(x, self.scale)
            return out
        return _shuffled(x, self.scale)
