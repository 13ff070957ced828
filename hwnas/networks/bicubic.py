"""The bicubic enlargement of the input as a residual, so that a network starts from the baseline it has to beat."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class AddBicubic(nn.Module):
    """``network(x) + bicubic(x)``.

    An interpolation, not a convolution: like the papers, the cost models do not count it. torch and ONNX Runtime use
    a = -0.75 here, where the degradation of the benchmarks uses a = -0.5; the network learns the difference.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        enlarged = functional.interpolate(x, scale_factor=float(self.scale), mode="bicubic", align_corners=False)
        out: Tensor = self.network(x) + enlarged
        return out
