"""What a supernet has to be, so that it can be searched."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Generic

from torch import Tensor, nn

from hwnas.searches.differentiable.pressure import Relaxed
from hwnas.spaces.space import Choice


class Supernet(nn.Module, Generic[Relaxed]):
    """[B, 3, H, W] in [0, 1] to [B, 3, scale*H, scale*W], differentiable in weights and alphas.

    ``alphas`` are the parameters that say which architecture it is.
    """

    alphas: nn.ParameterList

    @abstractmethod
    def relaxed(self) -> Relaxed:
        """The architecture as the alphas have it, with gradients."""

    @abstractmethod
    def weights(self) -> Iterator[nn.Parameter]:
        """All parameters but the alphas."""

    @abstractmethod
    def choose(self, choice: Choice | None) -> None:
        """Compute this choice alone from now on, as near to what would be deployed as can be; None: all again."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...
