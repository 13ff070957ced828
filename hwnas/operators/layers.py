"""Float layers: what operators are made of when nothing is quantised, and what costs are traced on."""

from __future__ import annotations

from torch import nn

from hwnas.operators.spec import OperatorSpec


def same_padding(kernel: tuple[int, int]) -> tuple[int, int]:
    """Zero padding that keeps height and width for an odd kernel at stride 1."""
    return kernel[0] // 2, kernel[1] // 2


class FloatLayers:
    """A `LayerFactory` of plain torch layers; the bits of the spec are ignored."""

    def activation(self, spec: OperatorSpec) -> nn.Module:
        return nn.ReLU() if spec.activation == "relu" else nn.Identity()

    def convolution(
        self,
        spec: OperatorSpec,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        groups: int = 1,
    ) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, kernel, padding=same_padding(kernel), groups=groups, bias=spec.bias)
