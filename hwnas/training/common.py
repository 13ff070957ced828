"""What the training of a supernet and of a network share."""

from __future__ import annotations

import hashlib
import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hwnas.errors import HwnasError, UsageError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.optim import Optimizer


def make_fabric(precision: str = "32-true") -> Fabric:
    """One device, the best there is.

    Raises:
        UsageError: for an unknown precision, or one that the device does not compute in.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning_fabric import Fabric

        try:
            fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(f"precision {precision!r} is not possible here ({error}); leave it at 32-true") from error
    # lightning takes bf16 in its place, with a warning; the settings would then state what was not done.
    if precision == "16-mixed" and fabric.device.type == "cpu":
        raise UsageError("precision 16-mixed needs a GPU; bf16-mixed and 32-true do without")
    fabric.launch()
    return fabric


def seed_epoch(seed: int, stage: str, epoch: int) -> int:
    """Seed torch for one epoch, so that a resumed run draws what an uninterrupted one would.

    Returns:
        A seed for the crops of this epoch.
    """
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
    return int.from_bytes(digest[8:16], "big")


def cosine(step: int, steps: int) -> float:
    """Learning-rate factor from 1 at step 0 to 0 at ``steps``."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """The same learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


READ = 20
"""Losses between two that are read from a GPU: to read one is to wait for it."""


class Losses:
    """The losses of an epoch, none of which may be other than finite; the checkpoint before it is then still good.

    Args:
        device: that they are on.
        option: the setting to lower where they explode.
        every: how many of them are read together; None for what suits the device.
    """

    def __init__(self, device: torch.device, option: str, every: int | None = None) -> None:
        self._sum = torch.zeros((), device=device)
        self._every = every or (1 if device.type == "cpu" else READ)
        self._option = option
        self._count = 0
        self.mean = math.nan

    def add(self, loss: Tensor, where: str) -> bool:
        """One more; whether `mean` is that of all of them now.

        Args:
            loss: scalar.
            where: it is from, for the message.

        Raises:
            HwnasError: as `read`.
        """
        self._sum += loss.detach()
        self._count += 1
        if self._count % self._every:
            return False
        self.read(where)
        return True

    def read(self, where: str) -> float:
        """The mean of all so far.

        Raises:
            HwnasError: if one was not finite.
        """
        if self._count == 0:
            return math.nan
        value = float(self._sum)
        if not math.isfinite(value):
            raise HwnasError(
                f"the loss became {value} in {where}; lower the learning rate (--set {self._option}=...) "
                "in a new run, or look for broken images"
            )
        self.mean = value / self._count
        return self.mean
