"""Does the exported file compute what was trained? Compared on real crops, in grey levels of the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.exporters.artifact import Artifact
from hwnas.networks.bicubic import bicubic


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest differences allowed, in grey levels (1/255 of the output range)."""

    mean: float
    maximum: float
    share: float
    """Mean difference as a share of what the network adds to a bicubic enlargement: one that adds little is held to
    little, or its file could compute the bicubic enlargement alone and pass."""
    detail: float
    """Largest distance from 1 of `ParityReport.detail`. Rounding is as often up as down, so it changes much of a map
    and next to nothing of this; weights that are wrong in scale do."""
    floor: float = 0.001
    """Mean that is always allowed: the rounding of the output is in proportion to nothing."""


FLOAT_TOLERANCE = Tolerance(mean=0.001, maximum=0.01, share=1.0, detail=0.01)
"""Sums in another order, nothing else: trained networks measured 0.00005 and 0.0007."""

HALF_TOLERANCE = Tolerance(mean=0.1, maximum=2.0, share=0.5, detail=0.1, floor=0.03)
"""Sixteen bits have eleven of mantissa: an eighth of a grey level next to white."""

SOURCE_TOLERANCE = Tolerance(mean=0.25, maximum=64.0, share=0.005, detail=0.01)
"""For the graph of a quantised network, computed node by node as it is written."""

QUANTISED_TOLERANCE = Tolerance(mean=0.25, maximum=64.0, share=0.02, detail=0.01)
"""For what a runtime of exact integers makes of such a graph. One level of a 4-bit map in the tail is worth 20 grey
levels, hence the maximum. Trained networks measured a share of 0.0008 (4/8 bits, 18 convolutions) and 0.015 (8 bits,
37) in ONNX Runtime."""

REQUANTISED_TOLERANCE = Tolerance(mean=2.0, maximum=96.0, share=0.5, detail=0.1)
"""Other steps than those trained with make another network; what that costs is told in decibels."""

TIES = 1.5
"""How many times `tie_noise` is allowed besides a tolerance."""

SOURCE_SAMPLES = 4
"""Images that a graph is held against the network on."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Absolute differences between torch and the runtime of an artifact.

    Attributes:
        mean: over all output values of all crops, in grey levels.
        maximum: the largest one, in grey levels.
        crops: how many crops were compared.
        tolerance_mean: largest mean allowed; the tolerance's, or less for a network that adds little to bicubic, and
            more for one that spreads ties.
        tolerance_max: largest maximum allowed.
        detail: how much of what the network adds to bicubic enlargement the file adds: the factor by which the one
            is closest to the other; 1 for a network that adds nothing.
        tolerance_detail: largest distance of this from 1 that is allowed.
    """

    mean: float
    maximum: float
    crops: int
    tolerance_mean: float
    tolerance_max: float
    detail: float
    tolerance_detail: float

    @property
    def passed(self) -> bool:
        close = self.mean <= self.tolerance_mean and self.maximum <= self.tolerance_max
        return close and abs(self.detail - 1) <= self.tolerance_detail

    def __str__(self) -> str:
        return (
            f"{self.mean:.2g} grey levels mean, {self.maximum:.2g} at most, {self.detail:.1%} of the detail on "
            f"{self.crops} real crops; up to {self.tolerance_mean:.2g} and {self.tolerance_max:g}, and "
            f"{1 - self.tolerance_detail:.0%} to {1 + self.tolerance_detail:.0%}, are allowed"
        )


def check_parity(network: nn.Module, artifact: Artifact, crops: Sequence[Tensor], tolerance: Tolerance) -> ParityReport:
    """Compare ``network`` in evaluation mode with its exported file.

    Args:
        network: what was exported; it is left in the mode it was in.
        artifact: the file, in its runtime.
        crops: inputs, [1, 3, h, w] in [0, 1], best of several sizes and of real images.
        tolerance: what is allowed.

    Raises:
        HwnasError: with the differences, if they exceed the tolerance; if there are no crops, or the file
            does not run.
    """
    if not crops:
        raise HwnasError(f"{artifact.path} cannot be compared on nothing; give at least one crop")
    with _evaluating(network):
        report = _measure(network, artifact, crops, tolerance)
    if not report.passed:
        raise HwnasError(f"{artifact.path} does not compute what the network computes: {report}")
    return report


def require_source(network: nn.Module, source: Artifact, samples: Sequence[Tensor], tolerance: Tolerance) -> None:
    """Hold a graph, computed as it is written, against the network: runtimes and compilers are given what passes.

    Ties that round the other way are in some images, and errors of a graph in all: half of the images have to pass.

    Raises:
        HwnasError: if they differ.
    """
    with _evaluating(network):
        reports = [_measure(network, source, [sample], tolerance) for sample in samples[:SOURCE_SAMPLES]]
    refused = [report for report in reports if not report.passed]
    if 2 * len(refused) > len(reports):
        raise HwnasError(f"the exported graph does not compute what the network computes: {refused[0]}")


def tie_noise(network: nn.Module, x: Tensor) -> float:
    """How far the output moves if the last bits of what is quantised do: mean, in grey levels; 0 for floats.

    The last bit of a sum decides which way a tie is rounded, and runtimes add up in another order than torch. In a deep
    network one tie spreads: this is no error of a file, and no constant would fit a network of 5 and one of 65
    convolutions. So the network itself is asked, with everything that is quantised multiplied by 1 +- 1e-6, which is
    what sums of some hundred products in 32-bit floats are off by.

    Args:
        network: in evaluation mode.
        x: [1, 3, h, w] in [0, 1].
    """
    generator = torch.Generator().manual_seed(0)

    def shake(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        if not isinstance(args[0], Tensor):
            return None  # integers already
        return (args[0] * (1 + 1e-6 * (2 * torch.rand(args[0].shape, generator=generator) - 1)),)

    from brevitas.nn.quant_layer import QuantNonLinearActLayer  # takes a second to import

    quantisers = [module for module in network.modules() if isinstance(module, QuantNonLinearActLayer)]
    if not quantisers:
        return 0.0
    with torch.no_grad():
        expected = network(x)
        hooks = [module.register_forward_pre_hook(shake) for module in quantisers]
        try:
            return float((network(x) - expected).abs().mean()) * 255
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _measure(network: nn.Module, artifact: Artifact, crops: Sequence[Tensor], tolerance: Tolerance) -> ParityReport:
    ties = TIES * float(np.mean([tie_noise(network, crop) for crop in crops]))
    compared = [_compare(network, artifact, crop) for crop in crops]
    difference, own, added = (np.concatenate([arrays[i] for arrays in compared]) for i in range(3))
    power = float((own**2).mean())
    return ParityReport(
        mean=float(np.abs(difference).mean()),
        maximum=float(np.abs(difference).max()),
        crops=len(crops),
        tolerance_mean=max(tolerance.floor, min(tolerance.mean, tolerance.share * float(np.abs(own).mean()))) + ties,
        # Of two numbers next to each other one may round to the next byte.
        tolerance_max=tolerance.maximum + artifact.takes_bytes,
        detail=float((own * added).mean()) / power if power > tolerance.floor**2 else 1.0,
        tolerance_detail=tolerance.detail,
    )


def _compare(network: nn.Module, artifact: Artifact, crop: Tensor) -> tuple[NDArray, NDArray, NDArray]:
    """Of one crop, flat and in grey levels: the difference, and what network and file add to bicubic enlargement."""
    with torch.no_grad():
        expected = network(crop).numpy().astype(np.float64) * 255
    enlarged = bicubic(crop, expected.shape[2] // crop.shape[2]).numpy() * 255
    if artifact.takes_bytes:
        enlarged = enlarged.clip(0, 255)
        found = artifact.run((crop.numpy() * 255).round().astype(np.uint8)).astype(np.float64)
        expected = expected.clip(0, 255)
        compared = np.rint(expected)
    else:
        found, compared = artifact.run(crop.numpy()).astype(np.float64) * 255, expected
    if found.shape != expected.shape:
        raise HwnasError(
            f"{artifact.path} does not compute what the network computes: of {list(crop.shape)} it "
            f"makes {list(found.shape)}, the network {list(expected.shape)}"
        )
    return (found - compared).ravel(), (expected - enlarged).ravel(), (found - enlarged).ravel()
