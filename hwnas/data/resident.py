"""Crops taken where the training computes: of images that stay on the GPU, if there is room for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.data.crops import ImagePairs

ROOM = 0.5
"""Share of the free memory that images may take."""

PIECE = 1 << 28
"""Bytes that are copied at a time."""


class Crops:
    """`ImagePairs.sample` on a device; the same crops, to the last bit.

    Args:
        pairs: the images.
        device: that crops are wanted on.
    """

    def __init__(self, pairs: ImagePairs, device: torch.device) -> None:
        self.pairs = pairs
        self.device = device
        self._resident: Tensor | None = None
        # By a table, since a GPU's division by 255 is a product with what is close to its inverse.
        self._levels = torch.from_numpy(np.arange(256, dtype=np.float32) / np.float32(255)).to(device)
        if device.type == "cuda" and pairs.pixels.nbytes < ROOM * torch.cuda.mem_get_info(device)[0]:
            self.stay()

    def stay(self) -> None:
        """Copy all images to the device, and cut crops there from now on."""
        pixels = self.pairs.pixels
        self._resident = torch.empty(len(pixels), dtype=torch.uint8, device=self.device)
        for start in range(0, len(pixels), PIECE):
            # A copy first: torch warns of arrays that cannot be written, as mapped files are.
            self._resident[start : start + PIECE] = torch.from_numpy(np.array(pixels[start : start + PIECE]))

    def sample(
        self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ImagePairs.sample`; low resolution is in channels-last order, which convolutions prefer."""
        if self._resident is None:
            lr, hr = (x.to(self.device) for x in self.pairs.sample(rng, batch, crop, indices))
        else:
            lr, hr = self._gathered(self._resident, rng, batch, crop, indices)
        return lr.contiguous(memory_format=torch.channels_last), hr

    def _gathered(
        self, pixels: Tensor, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None
    ) -> tuple[Tensor, Tensor]:
        drawn, scale = self.pairs.draw(rng, batch, crop, indices), self.pairs.scale
        sizes, starts = self.pairs.sizes[drawn.images], self.pairs.starts[drawn.images]
        # The low resolution lies behind the high one.
        behind = starts + sizes.prod(axis=1) * 3 * scale**2
        lr = self._cut(pixels, behind, sizes, drawn.corners, drawn.flips, crop)
        hr = self._cut(pixels, starts, sizes * scale, drawn.corners * scale, drawn.flips, crop * scale)
        return lr, hr

    def _cut(
        self,
        pixels: Tensor,
        starts: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        corners: npt.NDArray[np.int64],
        flips: npt.NDArray[np.int64],
        side: int,
    ) -> Tensor:
        """Float32 [B, 3, side, side] in 0..1, in one gather of all crops."""
        numbers = np.concatenate([starts[:, None], sizes, corners, flips], axis=1)
        table = torch.from_numpy(numbers).to(self.device, non_blocking=True)
        start, height, width, top, left, transposed, upended, mirrored = table.T[:, :, None, None].unbind(0)
        ahead = torch.arange(side, device=self.device)
        rows = torch.where(upended.bool(), side - 1 - ahead[None, :, None], ahead[None, :, None])
        columns = torch.where(mirrored.bool(), side - 1 - ahead[None, None, :], ahead[None, None, :])
        swap = transposed.bool()
        y, x = torch.where(swap, columns, rows) + top, torch.where(swap, rows, columns) + left
        plane = (height * width)[:, None] * torch.arange(3, device=self.device)[None, :, None, None]
        where = (start + y * width + x)[:, None] + plane
        return self._levels[pixels[where].int()]
