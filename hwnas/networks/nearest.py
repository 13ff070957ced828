"""Enlargement by nearest neighbours and convolutions, as ESRGAN, AGD and TrilevelNAS-A have it."""

from __future__ import annotations

from torch import Tensor, nn

from hwnas.networks.wiring import Slot
from hwnas.operators.edge import Edge

SLOPE = 0.2
"""Of the leaky ReLUs."""


def factors(scale: int) -> tuple[int, ...]:
    """The steps of an enlargement: one for each factor of two, or one of three."""
    return {2: (2,), 3: (3,), 4: (2, 2)}[scale]


def leaky(convolution: nn.Module) -> nn.Sequential:
    """A convolution and a leaky ReLU; between the two, integers are made."""
    return nn.Sequential(convolution, Edge(), nn.LeakyReLU(SLOPE))


def enlarge(factor: int, convolution: nn.Module) -> nn.Sequential:
    """[B, C, H, W] to [B, C, factor * H, factor * W]: pixels are repeated, and convolved."""
    return nn.Sequential(Edge(), nn.Upsample(scale_factor=factor), *leaky(convolution))


def header_slots(channels: int, scale: int) -> tuple[Slot, Slot]:
    """The slots of a `Header`; ``tail`` makes the pixels."""
    return Slot("hr", channels, channels, scale), Slot("tail", channels, 3, scale)


class Header(nn.Module):
    """``tail(LeakyReLU(hr(x)))`` at high resolution."""

    def __init__(self, hr: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.hr = leaky(hr)
        self.tail = tail
        self.edge = Edge()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.edge(self.tail(self.hr(x)))
        return out
