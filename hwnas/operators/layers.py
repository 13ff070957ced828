"""Float layers: what operators are made of when nothing is quantised, and what costs are traced on."""

from __future__ import annotations

from torch import nn

from hwnas.operators.spec import ConvShape, OperatorSpec


class FloatLayers:
    """A `LayerFactory` of plain torch layers; the bits of the spec are ignored."""

    def activation(self, spec: OperatorSpec) -> nn.Module:
        return nn.ReLU() if spec.activation == "relu" else nn.Identity()

    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Conv2d:
        return nn.Conv2d(
            shape.in_channels,
            shape.out_channels,
            shape.kernel,
            padding=shape.padding,
            groups=shape.groups,
            bias=spec.bias,
        )
