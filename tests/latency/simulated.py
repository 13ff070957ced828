"""A device whose times are known: it reads the graph and counts. It is as moody as real ones are."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import onnx

from hwnas.devices import Device, Fingerprint, Measurement, Probe, Timing
from hwnas.devices.target import Target, load_target
from hwnas.errors import HwnasError
from hwnas.latency.table import LatencyTable, Survey
from hwnas.progress import Progress

RUNTIME = "simulated"
SIZE = (8, 8)
OUTLIER = 3.0
"""How many times as long a turn takes in which something else was running."""


class SimulatedDevice(Device):
    """A microsecond for each weight of a convolution, a tenth of one for each node, and one millisecond.

    Attributes:
        drift: how much slower it is in every second round.
        outliers: share of turns in which something else was running, each by itself.
        speed: factor of all its times.
        moods: factor of the times of a session, by its number.
        dies_after: sessions until it goes away.
        sessions: how many there have been.
        changes_after: sessions until its runtime is another one.
        most: files that it was given at once, at most.
        slower: factor of the times of all but the fastest network of a session.
        seconds_per_file: that really pass.
        seconds_per_turn: the same.
    """

    connections = ("local",)
    drift = 0.8
    outliers = 0.03
    speed = 1.0
    moods: ClassVar[dict[int, float]] = {}
    dies_after = math.inf
    sessions = 0
    changes_after = math.inf
    most = 0
    slower = 1.0
    seconds_per_file = 0.0
    seconds_per_turn = 0.0
    version = "1"

    def missing(self) -> str | None:
        return None

    def probe(self) -> Probe:
        mark = Fingerprint(
            hardware="abacus",
            machine="wood",
            system="none",
            runtime=RUNTIME,
            runtime_version=type(self).version if type(self).sessions <= type(self).changes_after else "2",
            provider="cpu",
            threads=1,
        )
        return Probe(mark, None)

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        kind = type(self)
        if kind.sessions >= kind.dies_after:
            raise HwnasError("the device went away")
        kind.sessions += 1
        kind.most = max(kind.most, len(paths))
        chance, bar = random.Random(kind.sessions), progress.task("measure", timing.rounds)
        rounds: list[list[tuple[float]]] = [[] for _ in paths]
        time.sleep(len(set(paths)) * kind.seconds_per_file)
        speed = kind.speed * kind.moods.get(kind.sessions, 1.0)
        times = {path: true_ms(path) for path in paths}
        times = {path: ms * (1 if ms == min(times.values()) else kind.slower) for path, ms in times.items()}
        for i in range(timing.rounds):
            for own, path in zip(rounds, paths, strict=True):
                disturbed = OUTLIER if chance.random() < kind.outliers else 1.0
                time.sleep(kind.seconds_per_turn)
                own.append((times[path] * speed * (1 + kind.drift * (i % 2)) * disturbed,))
            bar.advance()
        mark = self.probe().fingerprint
        return [Measurement(method=self.method, rounds_ms=own, fingerprint=mark) for own in rounds]

    def close(self) -> None:
        pass


def true_ms(path: Path) -> float:
    graph = onnx.load(path).graph
    weights = sum(math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 4)
    return 1 + weights * 1e-3 + len(graph.node) * 1e-4


def simulated_target() -> Target:
    return load_target("cpu").model_copy(update={"name": "abacus", "runtime": RUNTIME})


def keep(table: LatencyTable) -> Survey:
    """Put a table where the command line would have; returns its only survey."""
    table.save()
    return table.surveys[0]
