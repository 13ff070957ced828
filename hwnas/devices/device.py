"""What every device gives: how long files take on it, and what it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from hwnas.devices.connection import Connection, LocalConnection
from hwnas.devices.measurement import Fingerprint, Measurement, Method
from hwnas.devices.target import Target
from hwnas.errors import UsageError
from hwnas.progress import Progress
from hwnas.registry import Registry
from hwnas.sizes import Size


@dataclass(frozen=True, slots=True)
class Timing:
    """How files are to be timed.

    Attributes:
        size: height and width of the images.
        rounds: inferences of each file at least.
        precision: half the 95 % confidence interval of each median, as a share of it, that is enough; of several files
            those of their ratios to the first.
        enough: inferences of each file, for its 99th percentile to say something.
        seconds: after which neither precision nor these are waited for any more.
        layers: whether layers are timed too.
    """

    size: Size
    rounds: int = 20
    precision: float = 0.01
    enough: int = 100
    seconds: float = 30.0
    layers: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What a device answers when it is asked what it is.

    Attributes:
        fingerprint: of what it computes with.
        free_bytes: of its disk, where files are put.
        notes: what else people may want to know, a phrase each.
    """

    fingerprint: Fingerprint
    free_bytes: int | None
    notes: tuple[str, ...] = ()


class Device(ABC):
    """A target that can be reached; the contract that `hwnas.testing.DeviceContract` checks.

    Files of one call take turns, so that their times compare. Whatever goes wrong is an `HwnasError` that says what to
    do, and nothing stays on the device: no file, no process. A number that is not measured says so in ``method``.

    Args:
        target: what it is; ``target.host`` where.
    """

    method: ClassVar[Method] = "measured"
    connections: ClassVar[tuple[str, ...]]
    """Ways by which such a device may be reached, of `Target.connection`."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot be used from this machine now, found within seconds; None if nothing speaks against it."""

    @abstractmethod
    def probe(self) -> Probe:
        """What is there.

        Raises:
            HwnasError: if it cannot be reached, or its runtime is not there.
        """

    @abstractmethod
    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        """How long each file takes.

        Args:
            paths: files of the format `Target.artifact`, or ONNX files where the runtime reads these.
            timing: how it is to be done.
            progress: whom to tell.

        Raises:
            UsageError: if there is no such file.
            HwnasError: if the device cannot be reached or goes away, or its runtime is not there or cannot run a file.
        """

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


DEVICES: Registry[type[Device]] = Registry("runtime", "hwnas.devices")
"""Classes of devices by runtime."""


def open_device(target: Target, host: str | None = None) -> Device:
    """The device of a target.

    Args:
        target: which one.
        host: where it is, for a target that does not say or is elsewhere this time.

    Raises:
        UsageError: if it is not said where the device is, or the runtime cannot be reached that way.
    """
    if host is not None:
        if target.connection == "compiler":
            raise UsageError(f"{target.name} is estimated by a compiler on this machine; leave --host out")
        way = "ssh" if target.connection == "local" else target.connection
        target = target.model_copy(update={"connection": way, "host": host})
    kind = DEVICES[target.runtime]
    if target.connection not in kind.connections:
        raise UsageError(
            f"runtime {target.runtime} cannot be reached by {target.connection}, only by {', '.join(kind.connections)}"
        )
    return kind(target)


def connect(target: Target) -> Connection:
    """The connection to where the target is: this machine, or what answers by ssh.

    Raises:
        UsageError: if it is not said where it is.
    """
    if target.connection == "local":
        return LocalConnection()
    from hwnas.devices.ssh import SshConnection

    if target.host is None:
        raise UsageError(
            f"target {target.name} is reached by ssh; say where, once for all: hwnas targets add {target.name} --like "
            f"{target.name} --set host=user@address; or for one profile, table or check: --host user@address"
        )
    return SshConnection(target.host)
