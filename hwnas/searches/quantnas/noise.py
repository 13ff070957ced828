"""Quantisation noise, cheap enough for high-resolution maps on a CPU.

A CPU's normal generator is serial: drawn afresh, the noise of one step can cost as much as its convolutions. So a bank
of normals is drawn once an epoch, and a map takes a slice of it at a random offset: independent within a map, fresh
images under it every step. On a GPU, where drawing is free, there is no bank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx

_SLACK = 1 << 20
"""How many offsets a map can be taken at, at least."""


class NoiseSource:
    """Standard normal tensors in the shape and memory layout of others.

    Args:
        enabled: with False every draw is zero (tests compare networks with the noise off).
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._bank = torch.empty(0)

    def refresh(self) -> None:
        """Forget the bank; the next draw makes a new one from torch's generator."""
        self._bank = torch.empty(0)

    def draw(self, like: Tensor) -> Tensor:
        """z ~ N(0, 1), shaped like ``like``; no gradient. Read-only: on a CPU it is a view into the bank."""
        if not self.enabled:
            return torch.zeros_like(like, requires_grad=False)
        if like.device.type != "cpu":
            return torch.randn_like(like, requires_grad=False)
        n = like.numel()
        if len(self._bank) < n + _SLACK:
            self._bank = torch.randn(n + _SLACK)
        offset = int(torch.randint(len(self._bank) - n, ()))
        piece = self._bank[offset : offset + n]
        # The order of independent normals is irrelevant, so the map's own strides do if it has no gaps.
        if like.is_contiguous() or like.is_contiguous(memory_format=torch.channels_last):
            return piece.as_strided(like.shape, like.stride())
        return piece.view(like.shape)


class _ActivateWithNoise(Function):
    """``relu(x) + std * z`` in one pass, keeping ``x`` alone for the backward pass (and ``z``, which is the bank's)."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, z: Tensor, std: Tensor, rectify: bool) -> Tensor:
        ctx.rectify = rectify  # type: ignore[attr-defined]
        ctx.save_for_backward(x, z)
        if x.device.type == "cpu":
            out = x.clamp_min(0) if rectify else x.clone()
            return out.add_(z, alpha=float(std))
        # Mixed precision would take the widest type of all three.
        return torch.addcmul(x.relu() if rectify else x, z, std.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor | None, None]:
        (grad,) = grads
        x, z = ctx.saved_tensors
        grad_x = torch.ops.aten.threshold_backward(grad, x, 0) if ctx.rectify else grad
        grad_std = _dot(grad, z) if ctx.needs_input_grad[2] else None
        return grad_x, None, grad_std, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """``(a * b).sum()``, without the product in memory where both have the same layout."""
    if a.stride() == b.stride() and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    dtype = torch.promote_types(a.dtype, b.dtype)  # bfloat16 maps, float32 noise
    return torch.dot(a.reshape(-1).to(dtype), b.reshape(-1).to(dtype))


def activate_with_noise(x: Tensor, z: Tensor, std: Tensor, rectify: bool) -> Tensor:
    """The noisy activation (QuantNAS, eq. 8).

    Args:
        x: input of the activation.
        z: standard normal, shaped like ``x``.
        std: scalar, half a quantisation step; gradients flow into it, so that the search feels what a width costs.
        rectify: apply ReLU before the noise.
    """
    out: Tensor = _ActivateWithNoise.apply(x, z, std, rectify)
    return out
