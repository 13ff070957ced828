"""Superkernels: convolutions of all widths at once, each the leading slice of the largest one (AGD, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from hwnas.operators import ConvShape, OperatorSpec, build_operator
from hwnas.operators.blocks import ShortcutBlock
from hwnas.operators.layers import FloatLayers
from hwnas.spaces.trilevel import TrilevelSpace


class SuperConvolution(nn.Module):
    """A convolution of which the first channels are used: as many as are there to read, and as are to be written.

    Args:
        spec: of its operator, of the network's full width.
        shape: of this convolution, likewise.
    """

    def __init__(self, spec: OperatorSpec, shape: ConvShape) -> None:
        super().__init__()
        reference = FloatLayers().convolution(spec, shape)
        self.weight = reference.weight
        self.shape = shape
        self.depthwise = shape.groups == shape.in_channels
        # The channels inside a block are a multiple of those that the block reads.
        self.multiple = shape.out_channels // shape.in_channels if shape.out_channels == spec.hidden else None
        self.written = shape.out_channels

    def forward(self, x: Tensor) -> Tensor:
        read = x.shape[1]
        if self.depthwise:
            return functional.conv2d(x, self.weight[:read], padding=self.shape.padding, groups=read)
        written = self.written if self.multiple is None else self.multiple * read
        groups = self.shape.groups
        return functional.conv2d(x, self.weight[:written, : read // groups], padding=self.shape.padding, groups=groups)


class _SuperLayers(FloatLayers):
    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Module:  # type: ignore[override]
        return SuperConvolution(spec, shape)


class SuperLayer(nn.Module):
    """All operators of a layer of a cell, of all widths.

    Args:
        space: whose layer.
        first: whether it is the first of its cell.
    """

    def __init__(self, space: TrilevelSpace, first: bool) -> None:
        super().__init__()
        layers = _SuperLayers()
        self.operators = nn.ModuleList()
        for i in range(len(space.operators)):
            spec = space.layer(i, None, None, first)
            operator = build_operator(spec, layers)
            if isinstance(operator, ShortcutBlock):
                # What is read and written differs from draw to draw, so the shortcut is a convolution here.
                sides = ConvShape(spec.in_channels, spec.out_channels, (1, 1))
                operator.shortcut = layers.convolution(spec, sides)
            self.operators.append(operator)
        self._convolutions = [m for m in self.modules() if isinstance(m, SuperConvolution)]

    def forward(self, x: Tensor, weights: Tensor, values: Sequence[float], written: int) -> Tensor:
        """The operators weighted; those of weight zero are not computed.

        Args:
            x: [B, read, H, W].
            weights: [operators].
            values: the same as numbers.
            written: channels to write.
        """
        for convolution in self._convolutions:
            convolution.written = written
        total: Tensor | None = None
        for weight, value, operator in zip(weights, values, self.operators, strict=True):
            if value != 0:
                made = weight * operator(x)
                total = made if total is None else total + made
        assert total is not None, "weights are those of a distribution"
        return total
