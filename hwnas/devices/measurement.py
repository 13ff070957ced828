"""What a device was found to do, with how it is known and on what."""

from __future__ import annotations

import hashlib
import json
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.devices.runner.common import median_interval, quantile

Method = Literal["measured", "predicted", "vendor-estimated"]
"""How a latency is known: by the clock, from a table of what was measured, or from a compiler's model of its chip."""

NOISY = 0.1
"""Share by which the 90th percentile is over the median on a machine that is worth a warning."""


Line = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""What a device says of itself, and people read: a line that does nothing to a terminal."""


class Fingerprint(BaseModel):
    """What decides how long an inference takes. Two measurements compare only where this is the same.

    Attributes:
        hardware: model of the device or of its processor.
        machine: instruction set.
        cores: logical processors.
        gpu: name and driver, where one is used.
        system: operating system.
        runtime: name of the runtime.
        runtime_version: its version.
        provider: what of the device it computes on.
        threads: of the processor that it may use.
        governor: how clocks are chosen, where that can be read.
        max_khz: highest clock of the first core, where that can be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hardware: Line
    machine: Line
    cores: int | None = None
    gpu: Line | None = None
    system: Line
    runtime: Line
    runtime_version: Line
    provider: Line
    threads: int
    governor: Line | None = None
    max_khz: int | None = None

    @property
    def key(self) -> str:
        """Twelve hex digits of a hash of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.provider == "cpu" else ""
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return f"{self.hardware}, {self.runtime} {self.runtime_version} ({self.provider}){threads}{gpu}"

    def difference(self, other: Fingerprint) -> str:
        """``runtime_version 1.30 and 1.31``: what differs, of this one and of the other."""
        theirs = other.model_dump()
        return ", ".join(f"{k} {v} and {theirs[k]}" for k, v in self.model_dump().items() if v != theirs[k])


Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LayerTime(BaseModel):
    """Time of one layer as the runtime has made it, which may be several of the network's in one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line
    kind: Line = ""
    ms: float = Field(ge=0, allow_inf_nan=False)


class Measurement(BaseModel):
    """How long one image takes on a device.

    Attributes:
        method: how that is known.
        rounds_ms: milliseconds of each inference after warm-up, by round: in each, all files that were measured
            together had one turn. A single one where a compiler tells it.
        layers: medians, in the order of computation; empty where the runtime does not tell.
        peak_bytes: memory that the process grew by at most, where the system tells.
        fingerprint: what it was found on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    rounds_ms: tuple[tuple[Milliseconds, ...], ...] = Field(min_length=1)
    layers: tuple[LayerTime, ...] = ()
    peak_bytes: int | None = None
    fingerprint: Fingerprint

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All inferences."""
        return tuple(chain.from_iterable(self.rounds_ms))

    def percentile(self, percent: float) -> float:
        """In milliseconds, linear between the two nearest samples."""
        return quantile(self.samples_ms, percent / 100)

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the median; None of too few turns.

        Of the medians of turns: inferences of one turn are alike, and not so many independent samples.
        """
        return median_interval([quantile(turn, 0.5) for turn in self.rounds_ms])

    @property
    def is_noisy(self) -> bool:
        """Whether some inferences took much longer than most: something else was running."""
        return self.percentile(90) > (1 + NOISY) * self.p50

    def as_json(self) -> dict[str, Any]:
        """Figures as JSON values."""
        return {
            "p50_ms": self.p50,
            # A compiler's estimate has no distribution.
            "p90_ms": self.percentile(90) if len(self.samples_ms) > 1 else None,
            "p99_ms": self.percentile(99) if len(self.samples_ms) > 1 else None,
            "interval_ms": self.interval,
            "images_per_s": 1e3 / self.p50,
            "samples": len(self.samples_ms),
            "method": self.method,
            "noisy": self.is_noisy,
            "peak_bytes": self.peak_bytes,
            "fingerprint": self.fingerprint.model_dump(),
            "layers": [layer.model_dump() for layer in self.layers],
        }


def paired_ratio(ours: Measurement, theirs: Measurement) -> tuple[float, tuple[float, float] | None]:
    """Of two files that were measured together: the median of the ratios of their turns, and its 95 % interval."""
    turns = [[quantile(samples, 0.5) for samples in of_one.rounds_ms] for of_one in (ours, theirs)]
    ratios = [own / other for own, other in zip(*turns, strict=True)]
    return quantile(ratios, 0.5), median_interval(ratios)
