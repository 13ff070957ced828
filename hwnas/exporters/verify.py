"""Write a network, run what was written, and hold it against the network: verification is part of export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hwnas import __version__
from hwnas.data.crops import ImagePairs
from hwnas.data.degradation import crop_to_multiple, downscale
from hwnas.data.images import ImageArray
from hwnas.evaluation import Upscaler, evaluate_pairs
from hwnas.exporters.artifact import WHOLE_IMAGE, ArtifactUpscaler
from hwnas.exporters.base import Exporter, ExportJob, ExportOptions
from hwnas.exporters.deploy import Deployable, float_twin
from hwnas.exporters.parity import ParityReport, check_parity
from hwnas.exporters.profiles import Profile
from hwnas.files import write_text
from hwnas.inference import TorchUpscaler, to_tensor
from hwnas.networks.adadm import is_data_dependent
from hwnas.progress import Progress

CALIBRATION_IMAGES = 16
PARITY_SIDES = (24, 33, 48)
"""Sides of the crops that parity is checked on: of several sizes, one of them odd."""

Pair = tuple[str, ImageArray, ImageArray]
"""Name, low resolution [h, w, 3], high resolution."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean luma PSNR in dB over the same images.

    Attributes:
        images: how many.
        torch_float: of the network without its quantisers; None where it has none.
        torch: of the network as it was exported.
        artifact: of the file, in its runtime; None if that does not run here.
        bicubic: of bicubic enlargement.
    """

    images: int
    torch_float: float | None
    torch: float
    artifact: float | None
    bicubic: float


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and the proof.

    Attributes:
        path: the file.
        format: name of its exporter.
        target: whom it is for.
        profile: form of the graph.
        how: how its numbers came about.
        notes: what else there is to know of the file.
        size_bytes: of all its files.
        runtime: what it was run in, with its version; None if that does not run here.
        parity: how far it is from the network; None if it could not be run.
        scores: on whole images, in windows that overlap where the file takes one size only.
    """

    path: Path
    format: str
    target: str
    profile: str
    how: str
    notes: tuple[str, ...]
    size_bytes: int
    runtime: str | None
    parity: ParityReport | None
    scores: Scores

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "path": str(self.path)}


def held_out_pairs(images: Iterable[tuple[str, ImageArray]], scale: int) -> list[Pair]:
    """Photographs with their low resolutions."""
    whole = [(name, crop_to_multiple(image, scale)) for name, image in images]
    return [(name, downscale(hr, scale), hr) for name, hr in whole]


def parity_crops(pairs: Sequence[Pair], size: tuple[int, int] | None) -> list[Tensor]:
    """Low-resolution crops, [1, 3, h, w], of up to four images: of several sizes, or of the one that a file takes."""
    sizes = [(side, side) for side in PARITY_SIDES] if size is None else [size]
    return [_middle(lr, wanted, repeat=size is not None) for _, lr, _ in pairs[:4] for wanted in sizes]


def calibration_crops(pairs: ImagePairs, size: tuple[int, int] | None) -> list[Tensor]:
    """Low-resolution crops, [1, 3, h, w], of training images: of the size that a file takes, or of 48 pixels."""
    images = [pairs.pair(i)[0].transpose(1, 2, 0) for i in range(min(len(pairs), CALIBRATION_IMAGES))]
    return [_middle(lr, size or (48, 48), repeat=True) for lr in images]


def _middle(lr: ImageArray, size: tuple[int, int], repeat: bool) -> Tensor:
    """The middle of an image; one that is smaller is repeated, or taken as it is."""
    if repeat:
        missing = [max(0, side - have) for side, have in zip(size, lr.shape, strict=False)]
        lr = np.pad(lr, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="wrap")
    y, x = (max(0, (have - side) // 2) for have, side in zip(lr.shape, size, strict=False))
    return to_tensor(lr[y : y + size[0], x : x + size[1]])


def export_verified(
    deployable: Deployable,
    path: Path,
    exporter: Exporter,
    profile: Profile,
    options: ExportOptions,
    samples: Sequence[Tensor],
    crops: Sequence[Tensor],
) -> tuple[ArtifactUpscaler, ParityReport] | tuple[None, None]:
    """Write the file and hold it against the network; nothing of the latter where its runtime does not run here.

    Args:
        deployable: what to write.
        path: where to.
        exporter: the format.
        profile: the form that the runtime wants.
        options: what is asked for besides.
        samples: inputs that the artifact takes, for what is chosen as it is written.
        crops: others, that it is held against the network on.

    Raises:
        UsageError: if the format cannot do what is asked for.
        HwnasError: if it cannot be written, or computes something else than the network.
    """
    architecture = deployable.record.architecture
    whole = is_data_dependent(deployable.network)
    metadata = {
        "scale": str(architecture.scale),
        "overlap": WHOLE_IMAGE if whole else str(architecture.receptive_radius),
        "architecture": architecture.fingerprint,
        "hwnas": __version__,
    }
    exporter.write(deployable.network, path, ExportJob(samples, metadata, profile, options))
    if not exporter.runs_here():
        return None, None
    tolerance = exporter.tolerance(architecture.is_quantised, options)
    artifact = exporter.open(path)
    return ArtifactUpscaler(artifact), check_parity(deployable.network, artifact, crops, tolerance)


def score(
    deployable: Deployable, artifact: ArtifactUpscaler | None, pairs: Sequence[Pair], progress: Progress
) -> Scores:
    """PSNR of the network and of the file, where it runs here, side by side."""
    scale = deployable.record.architecture.scale
    upscalers: dict[str, Upscaler] = {"torch": TorchUpscaler(deployable.network)}
    if deployable.record.architecture.is_quantised:
        upscalers["torch_float"] = TorchUpscaler(float_twin(deployable.record, deployable.network).network)
    if artifact is not None:
        upscalers["artifact"] = artifact
    bar = progress.task("score", len(upscalers) * len(pairs))
    found = {
        name: evaluate_pairs(upscaler, pairs, scale, lambda done: bar.advance()) for name, upscaler in upscalers.items()
    }
    return Scores(
        images=len(pairs),
        torch_float=found["torch_float"].psnr if "torch_float" in found else None,
        torch=found["torch"].psnr,
        artifact=found["artifact"].psnr if "artifact" in found else None,
        bicubic=found["torch"].bicubic_psnr,
    )


def save_report(report: ExportReport, path: Path) -> None:
    """Write the report beside the file at ``path``, as ``FILE.json``."""
    write_text(path.with_name(f"{path.name}.json"), json.dumps(report.as_json(), indent=2) + "\n")
