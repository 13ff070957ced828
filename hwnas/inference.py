"""Networks as functions of images: uint8 in, uint8 out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hwnas.data.degradation import crop_to_multiple, downscale, upscale
from hwnas.data.images import ImageArray
from hwnas.errors import HwnasError
from hwnas.metrics import psnr
from hwnas.networks.luma import Luma, ReplaceLuma


def to_tensor(image: ImageArray) -> Tensor:
    """uint8 [H, W, 3] to float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.divide(image.transpose(2, 0, 1)[None], np.float32(255), dtype=np.float32))


def to_image(output: Tensor) -> ImageArray:
    """Float [1, 3, H, W] to uint8 [H, W, 3]: clamped to [0, 1], rounded half up."""
    levels = output.detach()[0].float().clamp(0, 1).mul(255).add(0.5).floor().to(torch.uint8)
    return np.ascontiguousarray(levels.cpu().numpy().transpose(1, 2, 0))


class NotFiniteError(HwnasError):
    """A network makes of an image what is no picture."""


class TorchUpscaler:
    """A network as an upscaler of images, on the device its weights are on.

    Raises:
        NotFiniteError: when it is called, if the network makes something that is not finite.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, image: ImageArray) -> ImageArray:
        device = next(self.network.parameters()).device
        was_training = self.network.training
        self.network.eval()
        with torch.inference_mode():
            output = self.network(to_tensor(image).to(device))
        self.network.train(was_training)
        if not torch.isfinite(output).all():
            raise NotFiniteError("the network makes values of an image that are not finite")
        return to_image(output)


HALF_LEVEL = -0.5 / 255
"""What the published graph adds to Pb and Pr, as one does that adds a half and takes away 128 / 255. Its figures come
out to the fourth digit with it, and are up to 0.03 dB higher than without: cut off to bytes, the errors of three
colours that moved alike are alike."""

OF_PB_AND_PR = (1.402, -0.344136 - 0.714136, 1.772)
"""What a unit of Pb and one of Pr together add to red, green and blue (BT.601)."""


class PublishedFALSR:
    """A network of luma as an upscaler of images, by the protocol of FALSR's published figures.

    Colours are of Pillow's bicubic enlargement of the bytes, less half a level of Pb and Pr, and the result is cut off
    to bytes rather than rounded.

    Args:
        network: of luma, on the CPU, in evaluation mode.
        scale: its enlargement.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        self.network = network
        self.scale = scale
        self.luma = Luma()
        self._shift = torch.tensor(OF_PB_AND_PR)[:, None, None] * HALF_LEVEL

    def __call__(self, image: ImageArray) -> ImageArray:
        height, width = (side * self.scale for side in image.shape[:2])
        large = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            colours = to_tensor(np.asarray(large))
            rgb = colours + (self._y(to_tensor(image)) - self.luma(colours)) + self._shift
            levels = (rgb[0] * 255).clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(levels.numpy().transpose(1, 2, 0))

    def _y(self, image: Tensor) -> Tensor:
        if isinstance(self.network, ReplaceLuma):  # which has it before it is rounded to a colour
            made: Tensor = self.network.network(self.luma(image))
            return made
        of_colours: Tensor = self.luma(self.network(image))
        return of_colours


class Validation:
    """Held-out images, degraded once, to be scored many times.

    No image counts for more than one with an error of a single level in a single pixel: a black one, which everything
    enlarges without an error, would make all means infinite.

    Args:
        images: names and high-resolution images, uint8 [H, W, 3].
        scale: enlargement.
    """

    def __init__(self, images: list[tuple[str, ImageArray]], scale: int) -> None:
        self.scale = scale
        whole = [crop_to_multiple(image, scale) for _, image in images]
        self.pairs = [(downscale(hr, scale), hr) for hr in whole]

    def psnr(self, network: nn.Module) -> float:
        """Mean luma PSNR in dB."""
        return self._mean(TorchUpscaler(network))

    def bicubic_psnr(self) -> float:
        """Mean luma PSNR of bicubic enlargement in dB."""
        return self._mean(partial(upscale, scale=self.scale))

    def _mean(self, upscaler: Callable[[ImageArray], ImageArray]) -> float:
        scores = [
            min(psnr(upscaler(lr), hr, self.scale), 10 * math.log10(255**2 * hr.shape[0] * hr.shape[1]))
            for lr, hr in self.pairs
        ]
        return float(np.mean(scores))
