"""The block of ECBSR: one 3x3 convolution when it is deployed, trained as a sum of several.

Source: Zhang et al., "Edge-oriented convolution block for real-time super resolution on mobile devices", ACM MM 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hwnas.operators.chains import ConvChain, require_one_block
from hwnas.operators.spec import ConvShape, LayerFactory, OperatorSpec, register_operator

KERNEL = 3
MULTIPLIER = 2
"""Channels between the convolutions of the branch of two, by those written."""

EDGES = (
    ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
    ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
)
"""Sobel's masks of both directions, and the Laplacian."""

SMALL = 1e-3
"""Deviation of what the masks are scaled by at first."""


class EdgeOrientedConv(ConvChain):
    """A convolution that `expand` gives branches for training."""


class Branches(nn.Module):
    """The 3x3 kernel that a 3x3 kernel and its branches are together.

    A 1x1 and a 3x3 convolution in a row, and behind a 1x1 convolution each of the masks, scaled by channel. Sums are
    made of kernels, not of maps, so that quantisers see the kernel that is deployed; the biases within branches, which
    would be part of the one that there is, are left out. What is added begins close to nothing.

    The branch of two is a mean over the channels between, where the paper has the sum: a step of Adam moves each of its
    weights as far as those of the kernel, and their sum many times as far. (1,200 steps at a rate of 0.002, held-out
    photographs: 27.24 dB with the sum, 27.85 dB without branches, 27.90 dB so; at 0.0005 the sum has 27.84 dB.)

    Args:
        weight: kernel that is trained beside the branches, [O, I, 3, 3].
    """

    edges: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        written, read = weight.shape[:2]
        self.expand = nn.Parameter(torch.empty(MULTIPLIER * written, read))
        self.squeeze = nn.Parameter(torch.zeros(written, MULTIPLIER * written, KERNEL, KERNEL))
        self.pointwise = nn.Parameter(torch.empty(len(EDGES), written, read))
        self.scale = nn.Parameter(SMALL * torch.randn(len(EDGES), written))
        self.register_buffer("edges", torch.tensor(EDGES, dtype=torch.float32))
        for kernel in (self.expand, *self.pointwise.unbind()):
            nn.init.kaiming_normal_(kernel)

    def forward(self, weight: Tensor) -> Tensor:
        """[O, I, 3, 3] to the same."""
        pair = torch.einsum("omyx,mi->oiyx", self.squeeze, self.expand) / len(self.expand)
        edges = torch.einsum("ko,koi,kyx->oiyx", self.scale, self.pointwise, self.edges)
        return weight + pair + edges


@register_operator("edge_oriented")
def build_edge_oriented(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """One 3x3 convolution; see `Branches`."""
    require_one_block(spec)
    if spec.kernel != KERNEL or spec.groups != 1 or spec.hidden is not None:
        raise ValueError("operator kind 'edge_oriented' is a 3x3 convolution; leave 'kernel', 'groups', 'hidden' out")
    return EdgeOrientedConv(spec, layers, [ConvShape(spec.in_channels, spec.out_channels, (KERNEL, KERNEL))])


def expand(network: nn.Module) -> None:
    """Give branches to every `EdgeOrientedConv`, for the time of a training; its output stays what it was, almost."""
    for module in network.modules():
        if isinstance(module, EdgeOrientedConv):
            (convolution,) = module.convolutions
            parametrize.register_parametrization(convolution, "weight", Branches(convolution.weight))  # type: ignore[arg-type]


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it is built, where `expand` may have given it branches."""
    state: dict[str, Tensor] = dict(network.state_dict())
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.parametrizations.")}
            state[f"{name}.weight"] = module.weight  # type: ignore[assignment]
    return state
