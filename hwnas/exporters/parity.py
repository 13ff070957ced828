"""Does the exported file compute what was trained? Compared on real crops, in grey levels of the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.exporters.artifact import Artifact
from hwnas.networks.bicubic import bicubic


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest differences allowed, in grey levels (1/255 of the output range)."""

    mean: float
    maximum: float
    share: float = math.inf
    """Mean difference as a share of what the network adds to a bicubic enlargement: one that adds little is held to
    little, or its file could compute the bicubic enlargement alone and pass."""


FLOAT_TOLERANCE = Tolerance(mean=0.001, maximum=0.01)
"""Sums in another order, nothing else: trained networks measured 0.00005 and 0.0007."""

HALF_SHARE = 0.5
"""Of what the network adds to bicubic enlargement, for runtimes of another arithmetic: adding nothing is off by 1."""

HALF_TOLERANCE = Tolerance(mean=0.1, maximum=2.0, share=HALF_SHARE)
"""Sixteen bits have eleven of mantissa: an eighth of a grey level next to white."""

QUANTISED_TOLERANCE = Tolerance(mean=0.25, maximum=64.0, share=0.02)
"""The last bit of a sum decides which way a tie is rounded, and one level of a 4-bit map in the tail is worth
20 grey levels. That hits single pixels, so the mean tells right from wrong and the maximum only keeps out
nonsense. A mean of 0.25 is what the rounding of the output to bytes costs anyway. Briefly trained networks of
2, 4, 8 and mixed bits measured at most 0.04 and 21 with AdaDM (whose deviation is such a sum), 0.002 and 4
without."""

REQUANTISED_TOLERANCE = Tolerance(mean=2.0, maximum=96.0, share=HALF_SHARE)
"""Other steps than those trained with make another network; what that costs is told in decibels."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Absolute differences between torch and the runtime of an artifact.

    Attributes:
        mean: over all output values of all crops, in grey levels.
        maximum: the largest one, in grey levels.
        crops: how many crops were compared.
        tolerance_mean: largest mean allowed; the tolerance's, or less for a network that adds little to bicubic.
        tolerance_max: largest maximum allowed.
    """

    mean: float
    maximum: float
    crops: int
    tolerance_mean: float
    tolerance_max: float

    @property
    def passed(self) -> bool:
        return self.mean <= self.tolerance_mean and self.maximum <= self.tolerance_max

    def __str__(self) -> str:
        return (
            f"{self.mean:.2g} grey levels mean, {self.maximum:.2g} at most on {self.crops} real crops; "
            f"up to {self.tolerance_mean:.2g} and {self.tolerance_max:g} are allowed"
        )


def check_parity(network: nn.Module, artifact: Artifact, crops: Sequence[Tensor], tolerance: Tolerance) -> ParityReport:
    """Compare ``network`` in evaluation mode with its exported file.

    Args:
        network: what was exported; it is left in the mode it was in.
        artifact: the file, in its runtime.
        crops: inputs, [1, 3, h, w] in [0, 1], best of several sizes and of real images.
        tolerance: `FLOAT_TOLERANCE` or `QUANTISED_TOLERANCE`.

    Raises:
        HwnasError: with the differences, if they exceed the tolerance; if there are no crops, or the file
            does not run.
    """
    if not crops:
        raise HwnasError(f"{artifact.path} cannot be compared on nothing; give at least one crop")
    was_training = network.training
    network.eval()
    total, added, count, maximum = 0.0, 0.0, 0, 0.0
    try:
        for crop in crops:
            with torch.no_grad():
                expected = network(crop).numpy()
            added += float(np.abs(expected - bicubic(crop, expected.shape[2] // crop.shape[2]).numpy()).sum()) * 255
            if artifact.takes_bytes:
                expected = np.rint(expected.clip(0, 1) * 255).astype(np.uint8)
                found = artifact.run((crop.numpy() * 255).round().astype(np.uint8))
            else:
                expected = expected * 255
                found = artifact.run(crop.numpy()) * 255
            if found.shape != expected.shape:
                raise HwnasError(
                    f"{artifact.path} does not compute what the network computes: of {list(crop.shape)} it "
                    f"makes {list(found.shape)}, the network {list(expected.shape)}"
                )
            difference = np.abs(expected.astype(np.float64) - found)
            total += float(difference.sum())
            count += difference.size
            maximum = max(maximum, float(difference.max()))
    finally:
        network.train(was_training)
    # Rounding in float arithmetic is not in proportion to anything, so that much is always allowed.
    allowed = max(min(tolerance.mean, FLOAT_TOLERANCE.mean), min(tolerance.mean, tolerance.share * added / count))
    # Of two numbers next to each other one may round to the next byte.
    most = tolerance.maximum + artifact.takes_bytes
    report = ParityReport(total / count, maximum, len(crops), allowed, most)
    if not report.passed:
        raise HwnasError(
            f"{artifact.path} does not compute what the network computes: they differ by {report.mean:.4g} grey "
            f"levels in the mean and {report.maximum:.4g} at most "
            f"(up to {allowed:.2g} and {most:g} are allowed)"
        )
    return report
