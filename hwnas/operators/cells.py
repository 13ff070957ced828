"""The cells of FALSR (section III-A): blocks in a row, each of which ends in its activation or in a sum.

Unlike the operators of QuantNAS, a cell rectifies what it writes: its readers need no activation of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.operators.edge import Edge
from hwnas.operators.spec import ConvShape, LayerFactory, OperatorSpec, register_operator


def _inner(spec: OperatorSpec, activation: str) -> OperatorSpec:
    """What the layers within a cell read, which is not what the cell reads."""
    return spec.model_copy(update={"activation": activation})


class _Convolution(nn.Module):
    """An activation and a convolution."""

    def __init__(self, reads: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.reads = reads
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.reads(x))
        return out


class ConvCell(nn.Module):
    """``repeats`` times ``ReLU(conv(x))``; with ``residual``, the first map is added to the last.

    What it writes is never negative.
    """

    rectified = True

    def __init__(self, spec: OperatorSpec, layers: LayerFactory) -> None:
        super().__init__()
        kernel = (spec.kernel, spec.kernel)
        inner = _inner(spec, "relu")
        shapes = [
            ConvShape(channels, spec.out_channels, kernel, spec.groups)
            for channels in (spec.in_channels, *[spec.out_channels] * (spec.repeats - 1))
        ]
        # A sum's operand is rectified and marked before it is read a second time.
        second = _inner(spec, "rectified") if spec.residual else inner
        reads = [layers.activation(one) for one in (spec, second, *[inner] * spec.repeats)]
        self.blocks = nn.ModuleList(
            _Convolution(read, layers.convolution(spec, shape)) for read, shape in zip(reads, shapes, strict=False)
        )
        self.added = nn.ModuleList([Edge(signed=False), Edge(signed=False)]) if spec.residual else None

    @property
    def branch_ends(self) -> list[nn.Module]:
        """Convolutions whose result is added to another map."""
        return [self.blocks[-1].conv] if self.added is not None else []  # type: ignore[list-item]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x)
        if self.added is None:
            for block in self.blocks[1:]:
                x = block(x)
            return torch.relu(x)
        first: Tensor = self.added[0](torch.relu(x))
        x = first
        for block in self.blocks[1:]:
            x = block(x)
        out: Tensor = first + self.added[1](torch.relu(x))
        return out


class _Bottleneck(nn.Module):
    """``project(ReLU(depthwise(ReLU(expand(x)))))``: a block's branch."""

    def __init__(self, spec: OperatorSpec, layers: LayerFactory, width: int) -> None:
        super().__init__()
        signed, relu = _inner(spec, "none"), _inner(spec, "relu")
        kernel, f = (spec.kernel, spec.kernel), spec.out_channels
        self.reads = layers.activation(signed)
        self.expand = layers.convolution(spec, ConvShape(f, width, kernel))
        self.expanded = layers.activation(relu)
        self.dw = layers.convolution(spec, ConvShape(width, width, (3, 3), groups=width))
        self.filtered = layers.activation(relu)
        self.project = layers.convolution(spec, ConvShape(width, f, kernel))

    def forward(self, x: Tensor) -> Tensor:
        x = self.filtered(self.dw(self.expanded(self.expand(self.reads(x)))))
        out: Tensor = self.project(x)
        return out


class InvertedBottleneckCell(nn.Module):
    """A linear 1x1 convolution, and ``repeats`` residual blocks that expand to ``hidden`` channels.

    The residual of each block is always on; with ``residual``, the map before the first is added to the last as well.
    What it writes may be negative.
    """

    rectified = False

    def __init__(self, spec: OperatorSpec, layers: LayerFactory, width: int) -> None:
        super().__init__()
        self.reads = layers.activation(spec)
        self.supple = layers.convolution(spec, ConvShape(spec.in_channels, spec.out_channels, (1, 1)))
        self.blocks = nn.ModuleList(_Bottleneck(spec, layers, width) for _ in range(spec.repeats))
        # Each block adds what it makes to a map that is read twice; the last sum is the readers' to mark.
        self.bases = nn.ModuleList(Edge() for _ in self.blocks)
        self.added = nn.ModuleList(Edge() for _ in self.blocks)
        self.last = Edge() if spec.residual else None

    @property
    def branch_ends(self) -> list[nn.Module]:
        """As of `ConvCell`."""
        return [block.project for block in self.blocks]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        x = self.supple(self.reads(x))
        bases = []
        for block, base, added in zip(self.blocks, self.bases, self.added, strict=True):
            bases.append(base(x))
            x = bases[-1] + added(block(bases[-1]))
        return x if self.last is None else bases[0] + self.last(x)


@register_operator("conv_cell")
def build_conv_cell(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``conv_f_k_b`` and ``groupConG_f_k_b`` of FALSR: `ConvCell`."""
    if spec.hidden is not None:
        raise ValueError("operator kind 'conv_cell' has no 'hidden'; leave it out")
    _require_residual_of_several(spec)
    return ConvCell(spec, layers)


@register_operator("inverted_bottleneck")
def build_inverted_bottleneck(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``invertBotConE2_f_k_b`` of FALSR: `InvertedBottleneckCell`; its depthwise convolutions are always 3x3."""
    if spec.hidden is None:
        raise ValueError("operator kind 'inverted_bottleneck' needs 'hidden', the channels that its blocks expand to")
    if spec.groups != 1:
        raise ValueError("operator kind 'inverted_bottleneck' has no groups; leave 'groups' at 1")
    _require_residual_of_several(spec)
    return InvertedBottleneckCell(spec, layers, spec.hidden)


def _require_residual_of_several(spec: OperatorSpec) -> None:
    # Published names tell the two apart, the graphs do not: one network is to have one description.
    if spec.residual and spec.repeats == 1:
        raise ValueError("a residual adds the first of several blocks to the last; with one, leave 'residual' out")
