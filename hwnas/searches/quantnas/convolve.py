"""The convolution of the supernet, with the one gradient that torch computes slowly on a CPU replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional

FEW = 4
"""Output channels up to which the weight gradient is turned round; oneDNN's blocks are twice as wide."""


class _FewOutputs(Function):
    """A convolution with many inputs and few outputs, such as the one that makes the picture.

    The gradient of its weight is a correlation of the map with the gradient of the output, in which the two may
    change places: seen from the other side it is that of a convolution with few *inputs*, three times faster.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, padding=_padding(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        # torch computes a gradient in the layout of the convolution's input, which in the turned one is ``grad``.
        if x.is_contiguous(memory_format=torch.channels_last):
            grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradients(grad, x, weight, (True, False))[0]
        if ctx.needs_input_grad[1]:
            turned = _gradients(x, grad, weight.transpose(0, 1), (False, True))[1]
            grad_weight = turned.flip(2, 3).transpose(0, 1)
        return grad_x, grad_weight


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """The gradients of a same-padded convolution of ``x`` with ``weight``; what is not wanted is undefined."""
    padding = _padding(weight)
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), 1, (*wanted, False)
    )
    return gradients[:2]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """``conv2d`` that keeps height and width.

    Args:
        x: [B, in_channels, H, W].
        weight: [out_channels, in_channels / groups, kh, kw], kh and kw odd.
        bias: [out_channels], or None.
        groups: of the convolution.
    """
    few = weight.shape[0] <= FEW < weight.shape[1]
    if few and groups == 1 and bias is None and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        out: Tensor = _FewOutputs.apply(x, weight)
        return out
    return functional.conv2d(x, weight, bias, padding=_padding(weight), groups=groups)


def _padding(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2
