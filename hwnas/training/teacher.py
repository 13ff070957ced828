"""Distillation: a network is trained towards what another one, frozen, makes of the same image."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hwnas.checkpoints import NetworkRecord, load_network, load_run_network
from hwnas.data.crops import ImagePairs
from hwnas.data.div2k import cache_folder
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.errors import UsageError
from hwnas.inference import TorchUpscaler
from hwnas.progress import Progress
from hwnas.run_directory import RunDirectory
from hwnas.spaces import NAMED, named_architecture
from hwnas.weights import load_weights


class TeacherSettings(BaseModel):
    """Whose output is the target, in the place of the photographs.

    Attributes:
        network: a run, a .safetensors file of ours, or the name of a published architecture.
        weights: file of that one's weights; see `hwnas.weights.load_weights`.
        cache: make what it makes of the training images once, in bytes, and keep it on disk; else of each crop anew,
            as published, which is exact at the edges of crops and takes as long as the teacher does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    weights: Path | None = None
    cache: bool = True


def load_teacher(settings: TeacherSettings, scale: int) -> tuple[NetworkRecord, nn.Module]:
    """The teacher, frozen and in evaluation mode, with what is known of it.

    Raises:
        UsageError: if there is none of that name, or it enlarges by something else.
        HwnasError: if its weights cannot be read, or are of another network.
    """
    path = Path(settings.network)
    if settings.weights is not None:
        if settings.network not in NAMED:
            raise UsageError(f"teacher: weights are of a published architecture, which {settings.network} is not")
        architecture = named_architecture(settings.network, scale)
        record, network = NetworkRecord(architecture=architecture), load_weights(architecture, settings.weights)
    elif path.is_dir() or path.suffix == ".safetensors":
        record, network = load_run_network(RunDirectory(path)) if path.is_dir() else load_network(path)
    elif settings.network in NAMED:
        raise UsageError(f"teacher: {settings.network} needs weights; name their file with --teacher-weights")
    else:
        raise UsageError(
            f"teacher: {settings.network!r} is no run, no .safetensors file, and no published architecture "
            f"({', '.join(sorted(NAMED))})"
        )
    if (own := record.architecture.scale) != scale:
        raise UsageError(
            f"teacher: {settings.network} enlarges by {own}, and the network by {scale}; take one of x{scale}"
        )
    return record, network.eval().requires_grad_(False)


class Teacher:
    """What targets are taken from.

    Args:
        settings: which.
        scale: of the enlargement.
    """

    def __init__(self, settings: TeacherSettings, scale: int) -> None:
        self.settings = settings
        self.record, self.network = load_teacher(settings, scale)

    def prepared(self, data: TrainingData, progress: Progress) -> TrainingData:
        """The training images with the teacher's output in the place of the photographs, where it is cached."""
        if not self.settings.cache:
            return data
        upscale = TorchUpscaler(self.network.to("cuda" if torch.cuda.is_available() else "cpu"))
        path = cache_folder() / f"teacher-{self._key(data.train)}.npy"
        bar = progress.task("teacher", len(data.train))

        def made(lr: ImageArray) -> ImageArray:
            out = upscale(lr)
            bar.advance()
            return out

        return replace(data, train=data.train.with_targets(made, path))

    def target(self, lr: Tensor, hr: Tensor) -> Tensor:
        """What crops are to become: [B, 3, H, W] in [0, 1]."""
        if self.settings.cache:
            return hr
        with torch.no_grad():
            made: Tensor = self.network.to(lr.device)(lr)
        return made

    def _key(self, pairs: ImagePairs) -> str:
        """Names all that its output depends on."""
        record = self.record.model_dump_json(exclude={"validation_psnr"})
        digest = hashlib.sha256(f"{pairs.scale}/{pairs.names}/{record}".encode())
        digest.update(np.ascontiguousarray(pairs.pixels).data)
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
