"""The convolution of the supernet, with the one gradient that torch computes slowly on a CPU replaced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight

from hwnas.operators.layers import same_padding

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
        return functional.conv2d(x, weight, padding=same_padding(_kernel(weight)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        padding = same_padding(_kernel(weight))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = conv2d_input(x.shape, weight, grad, padding=padding)
        if ctx.needs_input_grad[1]:
            # torch computes in the layout of its first argument: in the map's, which is the larger, nothing is copied.
            if x.is_contiguous(memory_format=torch.channels_last):
                grad = grad.contiguous(memory_format=torch.channels_last)
            turned = conv2d_weight(grad, weight.transpose(0, 1).shape, x, padding=padding)
            grad_weight = turned.flip(2, 3).transpose(0, 1)
        return grad_x, grad_weight


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
    return functional.conv2d(x, weight, bias, padding=same_padding(_kernel(weight)), groups=groups)


def _kernel(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2], weight.shape[3]
