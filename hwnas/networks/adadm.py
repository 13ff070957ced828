"""Residuals with batch norm: AdaDM as QuantNAS modifies it, and what table 2 there compares it with.

Source: Liu et al., "AdaDM: Enabling normalization for image super-resolution" (2021); QuantNAS, section 3.1, figure 4.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hwnas.operators.edge import Edge

Residual = Literal["add", "batch-norm", "original-adadm", "adadm"]
"""``x + f(x)``; ``x + BN(f(BN(x)))``; the same with the deviation put back, ``x + (w std(x) + b) BN(f(BN(x)))``, as
figure 4 draws the original; and without its second norm, ``x + (w std(x) + b) f(BN(x))``."""

STD_MOMENTUM = 0.1
EPSILON = 1e-10
FEW = 4
"""Channels up to which batch norm is planar."""


class PlanarBatchNorm(nn.BatchNorm2d):
    """Batch norm of the few channels of an image, which torch computes ten times slower channels last."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(x)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Over the batch and all pixels."""
    return nn.BatchNorm2d(channels) if channels > FEW else PlanarBatchNorm(channels)


class AdaDM(nn.Module):
    """``x + (w * std(x) + b) * branch(BN(x))``; w starts at 1.5, b at 0.

    ``std`` is taken over the channels, height and width of each sample, as published. That makes the output of a tile
    depend on the tile, and puts a reduction into the deployed graph. A *frozen* AdaDM uses the mean of the training
    images instead (and its batch norm stays in evaluation mode), so that it is an affine map.

    Args:
        channels: channels of ``x``.
        branch: module mapping [B, channels, H, W] to the same shape.
        is_output: the sum is what the network makes, and not read by another operator.
    """

    running_std: Tensor

    def __init__(self, channels: int, branch: nn.Module, is_output: bool = False) -> None:
        super().__init__()
        self.sum = nn.Identity() if is_output else Edge()
        self.norm = batch_norm(channels)
        self.branch = branch
        self.w = nn.Parameter(torch.tensor(1.5))
        self.b = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("running_std", torch.tensor(1.0))
        self.frozen = False

    def train(self, mode: bool = True) -> AdaDM:
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _std(self, x: Tensor) -> Tensor:
        if self.frozen:
            return self.running_std
        # The gradient of a plain std is 0/0 on a flat crop.
        std = (x.var(dim=(1, 2, 3), keepdim=True, correction=0) + EPSILON).sqrt()
        if self.training:
            with torch.no_grad():
                self.running_std.lerp_(std.mean().to(self.running_std.dtype), STD_MOMENTUM)
        return std

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sum(x + (self.w * self._std(x) + self.b) * self.branch(self.norm(x)))
        return out


class Add(nn.Module):
    """The plain residual: ``x + branch(x)``."""

    def __init__(self, branch: nn.Module, is_output: bool = False) -> None:
        super().__init__()
        self.branch = branch
        self.sum = nn.Identity() if is_output else Edge()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sum(x + self.branch(x))
        return out


def residual(channels: int, branch: nn.Module, kind: Residual, is_output: bool = False) -> nn.Module:
    """``x (+) branch(x)`` in the notation of QuantNAS; see `AdaDM` for the arguments."""
    if kind == "add":
        return Add(branch, is_output)
    if kind != "adadm":
        branch = nn.Sequential(branch, batch_norm(channels), Edge())
    if kind == "batch-norm":
        return Add(nn.Sequential(batch_norm(channels), branch), is_output)
    return AdaDM(channels, branch, is_output)


def freeze_normalisation(network: nn.Module) -> None:
    """From now on every AdaDM uses its running statistics, in training as in evaluation."""
    for module in network.modules():
        if isinstance(module, AdaDM):
            module.frozen = True
            module.train(module.training)


def is_data_dependent(network: nn.Module) -> bool:
    """Whether an output pixel depends on the whole image, so that tiles would differ from it."""
    return any(isinstance(module, AdaDM) and not module.frozen for module in network.modules())
