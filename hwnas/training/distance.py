"""How far a network's output is from what it is to be: pixels, features of VGG19, and total variation (AGD, eq. 2)."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import HwnasError, UsageError
from hwnas.weights import read_tensors


class DistanceSettings(BaseModel):
    """What the loss is made of; parts of weight zero are not computed. AGD's are 1e-2, 1 and 5e-8.

    Attributes:
        l1: weight of the mean absolute difference of pixels.
        perceptual: weight of that of VGG19's features (conv5_4, before its ReLU).
        tv: weight of the total variation of the output, summed over the batch.
        vgg: file with VGG19's weights, under torchvision's names; they are yours to get, and are never saved by us.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    l1: float = Field(default=1.0, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    tv: float = Field(default=0.0, ge=0)
    vgg: Path | None = None

    @model_validator(mode="after")
    def _compares(self) -> DistanceSettings:
        if not (self.l1 or self.perceptual):
            raise ValueError("neither l1 nor perceptual has a weight, so nothing is compared; give one of them")
        if self.perceptual and self.vgg is None:
            raise ValueError("perceptual needs the weights of VGG19: set vgg to their file, vgg19-dcbb9e9d.pth for one")
        return self


class Distance:
    """The loss; no module, so that it is in nobody's checkpoint.

    Args:
        settings: its parts.
        side: of the images that will be compared, in pixels.
        device: where it is computed.

    Raises:
        UsageError: if they are too small for VGG19.
        HwnasError: if its weights are wanted and cannot be read.
    """

    def __init__(self, settings: DistanceSettings, side: int, device: torch.device | None = None) -> None:
        self._settings = settings
        self._features = None
        if settings.perceptual and settings.vgg is not None:
            if side < SMALLEST:
                raise UsageError(
                    f"perceptual compares at least {SMALLEST}x{SMALLEST} pixels, and crops are {side}x{side}"
                )
            self._features = load_vgg19(settings.vgg).to(device)

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """A scalar; both [B, 3, H, W] in [0, 1]."""
        settings, total = self._settings, made.new_zeros(())
        if settings.l1:
            total = total + settings.l1 * functional.l1_loss(made, wanted)
        if self._features is not None:
            with torch.no_grad():
                target = self._features(wanted)
            total = total + settings.perceptual * functional.l1_loss(self._features(made), target)
        if settings.tv:
            total = total + settings.tv * total_variation(made)
        return total


def total_variation(x: Tensor) -> Tensor:
    """Sum of the absolute differences between neighbours, [B, C, H, W] to a scalar."""
    return x.diff(dim=-1).abs().sum() + x.diff(dim=-2).abs().sum()


SMALLEST = 16
"""Side of what VGG19 reduces to one feature."""

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of convolutions between poolings (Simonyan & Zisserman, 2015, configuration E)."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the images that it was trained on."""


class _Features(nn.Module):
    """VGG19 up to conv5_4, its layers numbered as torchvision does."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in _VGG19:
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-2])
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features((x - self.mean) / self.deviation)
        return out


def load_vgg19(path: Path) -> nn.Module:
    """The features of VGG19, frozen: [B, 3, H, W] in [0, 1] to [B, 512, H / 16, W / 16].

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it does not hold them.
    """
    there, network = read_tensors(path), _Features()
    for name, own in network.state_dict().items():
        if name not in there or there[name].shape != own.shape:
            found = list(there[name].shape) if name in there else "not there"
            raise HwnasError(f"{path} does not hold weights of VGG19: {name} is {found}, expected {list(own.shape)}")
    network.load_state_dict({name: there[name] for name in network.state_dict()})
    return network.eval().requires_grad_(False)
