"""The operators of AGD and TrilevelNAS: convolutions with a shortcut around them, rectified where they end.

What they write is never negative, so that, as with cells, their readers need no activation of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.operators.chains import hidden_channels, require_one_block
from hwnas.operators.edge import Edge
from hwnas.operators.spec import ConvShape, LayerFactory, OperatorSpec, register_operator


class ShortcutBlock(nn.Module):
    """``ReLU(branch(x) + shortcut(x))``: convolutions in a row with ReLUs between, and a 1x1 convolution around them.

    Where as many channels are read as written, the shortcut is ``x`` itself.
    """

    rectified = True

    def __init__(self, spec: OperatorSpec, layers: LayerFactory, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        inner = spec.model_copy(update={"activation": "relu"})
        self.reads = layers.activation(spec)
        self.shortcut: nn.Module | None = None
        if spec.in_channels != spec.out_channels:
            self.shortcut = layers.convolution(spec, ConvShape(spec.in_channels, spec.out_channels, (1, 1)))
        self.convolutions = nn.ModuleList(layers.convolution(spec, shape) for shape in shapes)
        self.activations = nn.ModuleList(layers.activation(inner) for _ in shapes[1:])
        # The input is marked by the activation that reads it.
        self.added, self.kept = Edge(), nn.Identity() if self.shortcut is None else Edge()

    @property
    def branch_ends(self) -> list[nn.Module]:
        """Convolutions whose result is added to another map."""
        return [self.convolutions[-1]]

    def forward(self, x: Tensor) -> Tensor:
        x = self.reads(x)
        branch = self.convolutions[0](x)
        for activation, convolution in zip(self.activations, self.convolutions[1:], strict=True):
            branch = convolution(activation(branch))
        kept = self.kept(x if self.shortcut is None else self.shortcut(x))
        return torch.relu(self.added(branch) + kept)


@register_operator("residual_block")
def build_residual_block(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``residual`` of AGD: two convolutions and a shortcut."""
    require_one_block(spec)
    if spec.hidden is not None or spec.groups != 1:
        raise ValueError("operator kind 'residual_block' has neither 'hidden' channels nor 'groups'; leave both out")
    kernel = (spec.kernel, spec.kernel)
    shapes = [ConvShape(i, spec.out_channels, kernel) for i in (spec.in_channels, spec.out_channels)]
    return ShortcutBlock(spec, layers, shapes)


@register_operator("depthwise_block")
def build_depthwise_block(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``dwsblock`` of AGD: 1x1 to ``hidden`` channels, depthwise, 1x1, and a shortcut."""
    hidden = hidden_channels(spec)
    shapes = [
        ConvShape(spec.in_channels, hidden, (1, 1)),
        ConvShape(hidden, hidden, (spec.kernel, spec.kernel), groups=hidden),
        ConvShape(hidden, spec.out_channels, (1, 1)),
    ]
    return ShortcutBlock(spec, layers, shapes)
