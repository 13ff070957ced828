"""Networks that were never trained, in files: how long one takes does not depend on its weights."""

from __future__ import annotations

from pathlib import Path

import torch

from hwnas.architecture import Architecture
from hwnas.devices.target import Target
from hwnas.exporters.base import EXPORTERS, ExportJob, ExportOptions
from hwnas.exporters.onnx import OnnxExporter, export_onnx
from hwnas.exporters.profiles import PROFILES
from hwnas.networks.adadm import freeze_normalisation
from hwnas.operators import FLOAT_BITS
from hwnas.operators.layers import FloatLayers
from hwnas.sizes import Size

GRAPHS = 1
"""Version of the graphs that are written: raised with every change by which a network comes out as another graph, so
that what was measured of the old ones is not taken for the new."""

_SIDE = 16
"""Of the noise that steps are started with, where the file is for images of any size."""


def untrained_suffix(target: Target) -> str:
    """Ending of the files that `write_untrained` writes for a target."""
    return EXPORTERS[target.artifact].suffix if _chooses_own_steps(target) else OnnxExporter.suffix


def write_untrained(architecture: Architecture, target: Target, size: Size, path: Path) -> None:
    """Write a network as it would be deployed, with weights as they are started.

    It is what the target's runtime compiles: the graph, for those that build engines on the device. AdaDM is frozen, as
    the training leaves it.

    Args:
        architecture: the network; quantised, if its layers are.
        target: whom it is for.
        size: height and width of the images, for formats that take one size only.
        path: where to; ends in `untrained_suffix`.

    Raises:
        HwnasError: if the target's format cannot hold it.
    """
    profile, metadata = PROFILES[target.profile], {"scale": str(architecture.scale)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if _chooses_own_steps(target):
            network = architecture.with_bits(FLOAT_BITS).build(FloatLayers()).eval()
            freeze_normalisation(network)
            samples = [torch.rand(1, 3, *size) for _ in range(2)]
            options = ExportOptions(size=size, requantise=architecture.is_quantised)
            EXPORTERS[target.artifact].write(network, path, ExportJob(samples, metadata, profile, options))
            return
        sample = torch.rand(1, 3, _SIDE, _SIDE)
        if architecture.is_quantised:
            from hwnas.quantization.brevitas_layers import build_quantised, calibrate  # takes a second to import

            network = build_quantised(architecture, collect_steps=1, placement=profile.placement)
            calibrate(network, [sample])
        else:
            network = architecture.build(FloatLayers()).eval()
        freeze_normalisation(network)
        options = ExportOptions(size=size if takes_one_size(target) else None)
        export_onnx(network, path, sample, metadata, profile, options)


def takes_one_size(target: Target) -> bool:
    """Whether its runtime reads graphs of images of one size only."""
    return target.runtime == "qnn"


def _chooses_own_steps(target: Target) -> bool:
    return EXPORTERS[target.artifact].requantises
