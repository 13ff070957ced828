"""Formats: what writes a network as a file of a runtime, and opens it there again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from hwnas.errors import UsageError
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.parity import FLOAT_TOLERANCE, HALF_TOLERANCE, QUANTISED_TOLERANCE, Tolerance
from hwnas.exporters.profiles import Profile
from hwnas.registry import Registry


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What users may ask of a file, whatever its format and profile.

    Attributes:
        size: height and width of the low-resolution images it takes; None for any.
        takes_bytes: it reads and makes uint8 images rather than float in 0 to 1.
        pack_int4: weights of four bits and fewer are stored two in a byte.
        half: a float network is written in 16-bit floats.
        accelerator: configuration that the target's compiler knows it under, where it has one.
        requantise: a float network is quantised to 8 bits as it is written, on the samples.
    """

    size: tuple[int, int] | None = None
    takes_bytes: bool = False
    pack_int4: bool = False
    half: bool = False
    accelerator: str | None = None
    requantise: bool = False


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What a file is to be, besides the network.

    Attributes:
        samples: real images, [1, 3, h, w] in [0, 1], of the size that the file takes.
        metadata: properties to be stored in the file.
        profile: the form that the runtime wants.
        options: what the user asks for.
    """

    samples: Sequence[Tensor]
    metadata: Mapping[str, str]
    profile: Profile
    options: ExportOptions


class Exporter(ABC):
    """A format; the contract that `hwnas.testing.ExporterContract` checks.

    A file is written whole or not at all, computes what the network computes, and says in its properties at which
    scale (``scale``) and with how much context (``overlap``) it does. What a format cannot hold is refused with the
    reason. Libraries that not everyone has are imported late; an `HwnasError` names the extra that brings them.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    requantises: ClassVar[bool] = False
    """It is given float networks only, and chooses steps of its own."""
    writes_folder: ClassVar[bool] = False
    """What it writes is a folder that people call a file."""

    def runs_here(self) -> bool:
        """Whether this machine can run what is written; if not, it is reported as not verified."""
        return True

    def tolerance(self, quantised: bool, options: ExportOptions) -> Tolerance:
        """How far its runtime may be from torch, for a network of integers or of floats.

        That of a runtime of exact integers and 32-bit floats; others say why theirs is wider.
        """
        if options.half:
            return HALF_TOLERANCE
        return QUANTISED_TOLERANCE if quantised else FLOAT_TOLERANCE

    @abstractmethod
    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        """Write the network.

        Args:
            network: float, or of quantised layers, in evaluation mode; it is not changed.
            path: the file.
            job: what the file is to be.

        Raises:
            UsageError: if the format cannot do what is asked for.
            HwnasError: if the file cannot be written, or the profile cannot hold the network's numbers.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files that belong to ``path``, itself included."""
        return (path,)

    def notes(self, path: Path, profile: Profile) -> tuple[str, ...]:
        """What people should know of a file, a sentence each."""
        return ()

    @abstractmethod
    def open(self, path: Path) -> Artifact:
        """The file in its runtime.

        Raises:
            UsageError: if there is no such file.
            HwnasError: if it is damaged, or no super-resolution network, or the runtime is not installed.
        """


EXPORTERS: Registry[Exporter] = Registry("format", "hwnas.exporters")
"""Formats by name; an entry is an instance."""


def exporter_of(path: Path) -> Exporter:
    """The exporter that writes files called like ``path``.

    Raises:
        UsageError: if there is none.
    """
    fitting = [EXPORTERS[name] for name in EXPORTERS if path.name.endswith(EXPORTERS[name].suffix)]
    if not fitting:
        known = ", ".join(sorted(EXPORTERS[name].suffix for name in EXPORTERS))
        raise UsageError(f"{path} is no file that a network is exported to ({known})")
    # .qnn.onnx is the ending of one, and .onnx of another.
    return max(fitting, key=lambda exporter: len(exporter.suffix))
