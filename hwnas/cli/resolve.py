"""What users name: runs, architecture files, published architectures, artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from hwnas.cli.settings import Layers
    from hwnas.evaluation import Upscaler
    from hwnas.run_directory import RunDirectory
    from hwnas.sizes import Size


def timed_size(name: str) -> Size | None:
    """The size of images that a run has a budget in time for; None if it has none, or it is no run."""
    from hwnas import pipeline
    from hwnas.config import load_config
    from hwnas.run_directory import RunDirectory

    if not (Path(name).is_dir() and RunDirectory(Path(name)).exists):
        return None
    budgets = pipeline.budgets_of(load_config(RunDirectory(Path(name)).config))
    return next((budget.input_size for budget in budgets if budget.model.measurable), None)


def candidate_of(run: str, point: int, bits: int | None, out: Path | None, layers: Layers) -> tuple[str, Path, Layers]:
    """A point of a run's front: its file, the folder to train it in, and the settings of its run beneath the user's.

    Raises:
        UsageError: if there is no such point.
    """
    from hwnas.run_directory import RunDirectory
    from hwnas.searches.results import read_front

    directory = RunDirectory(Path(run))
    if not directory.exists:
        raise UsageError(f"{run} is no run; --candidate is a point of one's front")
    if not directory.front.is_file():
        raise UsageError(f"{run} has no front; name a run whose search is complete")
    last = len(read_front(directory)) - 1
    if point > last:
        raise UsageError(f"{directory.front} has the points 0 to {last}, and no {point}")
    # The folder that one is in has no name by itself.
    path = directory.path if directory.path.name else directory.path.resolve()
    name = "-".join([path.name, f"{point:02d}", *([f"{bits}bit"] if bits else [])])
    return str(directory.front_architecture(point)), out or path.with_name(name), over_run(directory, layers)


def over_run(run: RunDirectory, layers: Layers) -> Layers:
    """The settings of a run, beneath those of the user for a training; a preset says nothing but of that."""
    from hwnas.config import merge, read_settings

    preset, *rest = layers
    return merge(read_settings(run.config), {"train": preset.get("train", {})}), *rest


@dataclass(frozen=True)
class Enlarger:
    """Something that enlarges images.

    Attributes:
        upscaler: uint8 [h, w, 3] to uint8 [h * scale, w * scale, 3].
        scale: its factor.
        overlap: context in low-resolution pixels that makes a tile's result that of the whole; None: no tiles.
        network: what computes it, where that is torch.
    """

    upscaler: Upscaler
    scale: int
    overlap: int | None
    network: nn.Module | None = None


def resolve_enlarger(name: str, scale: int | None, weights: Path | None = None) -> Enlarger:
    """What enlarges images: ``bicubic``, an exported file, a run, a weights file, or an architecture with weights.

    Args:
        name: what the user wrote.
        scale: for ``bicubic`` (4 unless told) and published architectures; must agree with the others' own where given.
        weights: file for an architecture that is named; see `hwnas.weights.load_weights`.

    Raises:
        UsageError: if it is none of these, or the scale is another.
        HwnasError: if a file is damaged.
    """
    from hwnas.spaces.lookup import is_published

    path = Path(name)
    if weights is not None:
        return _with_weights(name, scale, weights)
    if name == "bicubic":
        from hwnas.data import degradation

        factor = 4 if scale is None else scale
        if not 1 <= factor <= degradation.MAX_SCALE:
            raise UsageError(f"--scale {factor}: bicubic enlarges by 1 to {degradation.MAX_SCALE}")
        return Enlarger(partial(degradation.upscale, scale=factor), factor, overlap=2)
    if path.is_dir() or path.suffix == ".safetensors":
        from hwnas.checkpoints import load_network, load_run_network
        from hwnas.inference import TorchUpscaler
        from hwnas.networks.adadm import is_data_dependent
        from hwnas.run_directory import RunDirectory

        if path.is_dir() and not RunDirectory(path).exists:
            raise UsageError(f"{path} is no run of hwnas; name a run, an .onnx or .safetensors file, or 'bicubic'")
        record, network = load_run_network(RunDirectory(path)) if path.is_dir() else load_network(path)
        reach = None if is_data_dependent(network) else record.architecture.receptive_radius
        found = Enlarger(TorchUpscaler(network), record.architecture.scale, reach, network)
    elif path.suffix:
        from hwnas.exporters import exporter_of
        from hwnas.exporters.artifact import ArtifactUpscaler

        artifact = ArtifactUpscaler(exporter_of(path).open(path))
        found = Enlarger(artifact, artifact.scale, artifact.overlap)
    elif is_published(name):
        raise UsageError(f"{name} is an architecture; name the file of its weights with --weights")
    else:
        raise UsageError(f"{name!r} is no run, no exported file, no .safetensors file, and not 'bicubic'")
    if scale is not None and scale != found.scale:
        raise UsageError(f"{name} enlarges by {found.scale}, not by {scale}; leave --scale out")
    return found


def _with_weights(name: str, scale: int | None, weights: Path) -> Enlarger:
    from hwnas.inference import TorchUpscaler
    from hwnas.networks.adadm import is_data_dependent
    from hwnas.spaces.lookup import find_architecture
    from hwnas.weights import load_weights

    if Path(name).is_dir():
        raise UsageError(f"{name} has weights of its own; leave --weights out, or name an architecture")
    architecture = find_architecture(name, scale)
    network = load_weights(architecture, weights)
    reach = None if is_data_dependent(network) else architecture.receptive_radius
    return Enlarger(TorchUpscaler(network), architecture.scale, reach, network)
