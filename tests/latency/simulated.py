"""A device whose times are known: it reads the graph and counts, and its speed drifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx

from hwnas.devices import Device, Fingerprint, Measurement, Probe, Timing
from hwnas.devices.target import Target, load_target
from hwnas.errors import HwnasError
from hwnas.progress import Progress

RUNTIME = "simulated"
SIZE = (8, 8)


class SimulatedDevice(Device):
    """A microsecond for each weight of a convolution, a tenth of one for each node, and one millisecond.

    Attributes:
        drift: how much slower it is at its slowest, which it is by turns.
        speed: factor of all its times.
        dies_after: sessions until it goes away.
        sessions: how many there have been.
    """

    connections = ("local",)
    drift = 0.5
    speed = 1.0
    dies_after = math.inf
    sessions = 0
    version = "1"

    def missing(self) -> str | None:
        return None

    def probe(self) -> Probe:
        mark = Fingerprint(
            hardware="abacus",
            machine="wood",
            system="none",
            runtime=RUNTIME,
            runtime_version=type(self).version,
            provider="cpu",
            threads=1,
        )
        return Probe(mark, None)

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        kind = type(self)
        if kind.sessions >= kind.dies_after:
            raise HwnasError("the device went away")
        kind.sessions += 1
        mark = self.probe().fingerprint
        found = []
        for path in paths:
            ms = true_ms(path) * kind.speed
            rounds = tuple((ms * (1 + kind.drift * math.sin(i) ** 2),) for i in range(timing.rounds))
            found.append(Measurement(method="measured", rounds_ms=rounds, fingerprint=mark))
        return found

    def close(self) -> None:
        pass


def true_ms(path: Path) -> float:
    graph = onnx.load(path).graph
    weights = sum(math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4)
    return 1 + weights * 1e-3 + len(graph.node) * 1e-4


def simulated_target() -> Target:
    return load_target("cpu").model_copy(update={"name": "abacus", "runtime": RUNTIME})
