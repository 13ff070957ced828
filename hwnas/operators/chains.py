"""The operators of QuantNAS (appendix D): one to three convolutions in a row, each preceded by its activation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hwnas.operators.spec import ConvShape, LayerFactory, OperatorSpec, register_operator


class ConvChain(nn.Module):
    """Convolutions in a row, each preceded by its activation; nothing follows the last.

    A class of its own, rather than ``nn.Sequential``, because a supernet merges what it knows to be convolutions.
    """

    def __init__(self, spec: OperatorSpec, layers: LayerFactory, shapes: Sequence[ConvShape]) -> None:
        super().__init__()
        self.activation = spec.activation
        self.activations = nn.ModuleList(layers.activation(spec) for _ in shapes)
        self.convolutions = nn.ModuleList(layers.convolution(spec, shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolutions[-1](self.last_map(self.activations[0](x)))
        return out

    def last_map(self, activated: Tensor) -> Tensor:
        """What the last convolution reads, from what the first reads."""
        x = activated
        for convolution, activation in zip(self.convolutions[:-1], self.activations[1:], strict=True):
            x = activation(convolution(x))
        return x


def require_one_block(spec: OperatorSpec) -> None:
    """Refuse what belongs to cells.

    Raises:
        ValueError: if the spec has such.
    """
    if spec.repeats != 1 or spec.residual:
        raise ValueError(f"operator kind {spec.kind!r} is no cell; leave 'repeats' and 'residual' out")


def hidden_channels(spec: OperatorSpec) -> int:
    """Channels between the convolutions of a kind that needs them, and has no groups.

    Raises:
        ValueError: if the spec does not have them.
    """
    require_one_block(spec)
    if spec.hidden is None:
        raise ValueError(f"operator kind {spec.kind!r} needs 'hidden', the channels between its convolutions")
    if spec.groups != 1:
        raise ValueError(f"operator kind {spec.kind!r} has no groups; leave 'groups' at 1")
    return spec.hidden


@register_operator("conv")
def build_conv(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``simple kxk [grouped g]``: one convolution."""
    require_one_block(spec)
    if spec.hidden is not None:
        raise ValueError("operator kind 'conv' is a single convolution; leave 'hidden' out")
    shape = ConvShape(spec.in_channels, spec.out_channels, (spec.kernel, spec.kernel), spec.groups)
    return ConvChain(spec, layers, [shape])


@register_operator("separable_conv")
def build_separable_conv(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``conv kx1 1xk``: a dense (k, 1) and a dense (1, k) convolution, with ``hidden`` channels between.

    The paper calls them depth-wise separable; its published code and its costs have them dense.
    """
    k, hidden = spec.kernel, hidden_channels(spec)
    return ConvChain(
        spec, layers, [ConvShape(spec.in_channels, hidden, (k, 1)), ConvShape(hidden, spec.out_channels, (1, k))]
    )


@register_operator("growth")
def build_growth(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``growth2 kxk``: two convolutions with twice the channels (``hidden``) between."""
    kernel, hidden = (spec.kernel, spec.kernel), hidden_channels(spec)
    return ConvChain(
        spec, layers, [ConvShape(spec.in_channels, hidden, kernel), ConvShape(hidden, spec.out_channels, kernel)]
    )


@register_operator("decenc")
def build_decenc(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """``decenc kxk r``: three convolutions through a bottleneck of ``hidden`` = channels / r."""
    kernel, hidden = (spec.kernel, spec.kernel), hidden_channels(spec)
    shapes = [
        ConvShape(spec.in_channels, hidden, kernel),
        ConvShape(hidden, hidden, kernel),
        ConvShape(hidden, spec.out_channels, kernel),
    ]
    return ConvChain(spec, layers, shapes)
