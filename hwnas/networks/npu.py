"""The same network without what neural processors lack: pixel shuffles of rank six, and bicubic interpolation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hwnas.errors import HwnasError
from hwnas.networks.bicubic import REACH, AddBicubic, bicubic_kernels
from hwnas.networks.luma import ReplaceLuma
from hwnas.networks.shuffle import DepthToSpace


class ChannelLastShuffle(nn.Module):
    """Pixel shuffle of channels ordered (row, column, colour), by reshapes of rank four in channels-last order.

    A neural processor computes `nn.PixelShuffle`, a transpose of rank six, on the CPU beside it or not at all.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """[1, C * scale^2, H, W] to [1, C, H * scale, W * scale]."""
        r, (_, channels, height, width) = self.scale, x.shape
        colours = channels // r**2
        rows = x.permute(0, 2, 3, 1).reshape(height, width, r, r * colours).permute(0, 2, 1, 3)
        return rows.reshape(1, height * r, width * r, colours).permute(0, 3, 1, 2)


def colours_last(channels: int, scale: int) -> Tensor:
    """Where `ChannelLastShuffle` wants which channel of `nn.PixelShuffle`: indices, [channels]."""
    return torch.arange(channels).reshape(-1, scale, scale).permute(1, 2, 0).flatten()


class BicubicChannelLast(nn.Module):
    """Bicubic enlargement as a dense convolution and a `ChannelLastShuffle`; equal to `bicubic`, rounding apart."""

    weight: Tensor

    def __init__(self, scale: int, channels: int = 3) -> None:
        super().__init__()
        eye = torch.eye(channels, dtype=torch.float64)
        weight = torch.einsum("ijyx,oc->ijocyx", bicubic_kernels(scale), eye)
        self.register_buffer("weight", weight.reshape(-1, channels, *weight.shape[-2:]).float(), persistent=False)
        self.shuffle = ChannelLastShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        # As slices side by side: padding of this kind becomes a gather, which neural processors lack.
        for dim in (2, 3):
            first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
            x = torch.cat([*[first] * REACH, x, *[last] * REACH], dim)
        out: Tensor = self.shuffle(functional.conv2d(x, self.weight))
        return out


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d | DepthToSpace) or super().is_leaf_module(m, module_qualified_name)


def for_neural_processors(network: nn.Module) -> nn.Module:
    """A float network, in evaluation mode, that computes the same with convolutions and reshapes of rank four.

    Args:
        network: of float layers; it is not changed.

    Raises:
        HwnasError: if something else than a convolution makes what is shuffled.
    """
    network = copy.deepcopy(network).eval()
    if isinstance(network, AddBicubic | ReplaceLuma):
        network.network = for_neural_processors(network.network)
        network.enlarge = BicubicChannelLast(network.scale)
        return network
    graph = _Tracer().trace(network)
    modules = dict(network.named_modules())
    for node in graph.nodes:
        shuffle = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(shuffle, DepthToSpace):
            network.set_submodule(str(node.target), ChannelLastShuffle(shuffle.scale))
        if not isinstance(shuffle, nn.PixelShuffle):
            continue
        before = node.args[0]
        read_once = len(before.users) == 1
        while isinstance(modules.get(str(before.target)), nn.Identity):
            before = before.args[0]
            read_once = read_once and len(before.users) == 1
        convolution = modules.get(str(before.target))
        if not isinstance(convolution, nn.Conv2d):
            raise HwnasError(
                f"no convolution makes what {node.target} shuffles; neural processors shuffle a convolution's only"
            )
        own: nn.Module = ChannelLastShuffle(shuffle.upscale_factor)
        if read_once and [other.target for other in graph.nodes].count(before.target) == 1:
            network.set_submodule(str(before.target), _colours_last(convolution, shuffle.upscale_factor))
        else:
            # Others read these channels in the order that they have.
            own = nn.Sequential(_permutation(convolution.out_channels, shuffle.upscale_factor), own)
        network.set_submodule(str(node.target), own)
    return network


def _permutation(channels: int, scale: int) -> nn.Conv2d:
    """A convolution that does nothing but order channels for `ChannelLastShuffle`."""
    convolution = nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(channels)[colours_last(channels, scale), :, None, None])
    return convolution


def _colours_last(convolution: nn.Conv2d, scale: int) -> nn.Conv2d:
    """The convolution with its output channels in the order of `ChannelLastShuffle`, and in one group."""
    order = colours_last(convolution.out_channels, scale)
    dense = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        stride=convolution.stride,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        bias=convolution.bias is not None,
    )
    groups = convolution.weight.data.chunk(convolution.groups)
    with torch.no_grad():
        dense.weight.zero_()
        for i, weight in enumerate(groups):
            rows, columns = (slice(i * side, (i + 1) * side) for side in weight.shape[:2])
            dense.weight[rows, columns] = weight
        dense.weight.copy_(dense.weight[order])
        if convolution.bias is not None and dense.bias is not None:
            dense.bias.copy_(convolution.bias[order])
    return dense
