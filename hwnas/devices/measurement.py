"""What a device was found to do, with how it is known and on what."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.devices.runner.timing import median_interval, paired_ratios, quantile
from hwnas.errors import HwnasError, first_problem

Method = Literal["measured", "predicted", "vendor-estimated"]
"""How a latency is known: by the clock, from a table of what was measured, or from a compiler's model of its chip."""

NOISY = 0.1
"""Share by which the 90th percentile is over the median on a machine that is worth a warning."""

NOISE = (
    "some inferences took much longer than most: something else is running there, or its clock changes; only what was "
    "timed in turn compares"
)

Line = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""What a device says of itself, and people read: a line that does nothing to a terminal."""


Milliseconds = Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)]
"""From a nanosecond to eleven days: what is neither is no time of an inference."""

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Fingerprint(BaseModel):
    """What decides how long an inference takes. Two measurements compare only where this is the same.

    Attributes:
        hardware: model of the device or of its processor.
        machine: instruction set.
        processor: numbers of its family, model and stepping, or of its part, where these can be read.
        instructions: extensions that decide how fast it multiplies. Virtual machines call all processors alike.
        cores: logical processors that may be used; a fraction where a container's share of them is one.
        gpu: name, driver, highest clock and power limit, where one is used.
        system: operating system.
        runtime: name of the runtime.
        runtime_version: its version.
        provider: what of the device it computes on.
        threads: of the processor that it may use.
        governor: how clocks are chosen, where that can be read.
        max_khz: highest clock that any core is allowed, where that can be read.
        power_mode: of a Jetson.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hardware: Line
    machine: Line
    processor: Line | None = None
    instructions: Line | None = None
    cores: int | Annotated[float, Field(allow_inf_nan=False)] | None = None
    gpu: Line | None = None
    system: Line
    runtime: Line
    runtime_version: Line
    provider: Line
    threads: int
    governor: Line | None = None
    max_khz: Count | None = None
    power_mode: Line | None = None

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.provider == "cpu" else ""
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return f"{self.hardware}, {self.runtime} {self.runtime_version} ({self.provider}){threads}{gpu}"


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
        mean_of: inferences that each of these times is the mean of.
        clock_khz: what the fastest core ran at, right after the last inference; None where that cannot be read.
        fingerprint: what it was found on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    rounds_ms: tuple[Annotated[tuple[Milliseconds, ...], Field(min_length=1)], ...] = Field(min_length=1)
    layers: tuple[LayerTime, ...] = ()
    peak_bytes: Count | None = None
    clock_khz: Annotated[Count, Field(gt=0)] | None = None
    mean_of: int = Field(default=1, ge=1)
    fingerprint: Fingerprint

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All inferences."""
        return tuple(chain.from_iterable(self.rounds_ms))

    def percentile(self, percent: float) -> float:
        """In milliseconds, linear between the two nearest samples."""
        return quantile(self.samples_ms, percent / 100)

    def tail(self, percent: float) -> float | None:
        """`percentile`; None of means, and where fewer than one sample can be expected beyond it."""
        enough = self.mean_of == 1 and len(self.samples_ms) * (100 - percent) >= 100
        return self.percentile(percent) if enough else None

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the median; None of too few turns.

        Of the medians of turns: inferences of one turn are alike, and not so many independent samples. It says what
        more turns of this session would; what the device does tomorrow it cannot say.
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
            "p90_ms": self.tail(90),
            "p99_ms": self.tail(99),
            "interval_ms": self.interval,
            "images_per_s": 1e3 / self.p50,
            "samples": len(self.samples_ms),
            "mean_of": self.mean_of,
            "method": self.method,
            "noisy": self.is_noisy,
            "peak_bytes": self.peak_bytes,
            "clock_khz": self.clock_khz,
            "fingerprint": self.fingerprint.model_dump(),
            "layers": [layer.model_dump() for layer in self.layers],
        }


def paired_ratio(ours: Measurement, theirs: Measurement) -> tuple[float, tuple[float, float] | None]:
    """Of two files that were measured together: the median of the ratios of their turns, and its 95 % interval."""
    ratios = paired_ratios(ours.rounds_ms, theirs.rounds_ms)
    return quantile(ratios, 0.5), median_interval(ratios)


def printable(said: object) -> str:
    """What a device says, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(said))


M = TypeVar("M", bound=BaseModel)


def told_by(where: str, kind: type[M], fields: Any) -> M:
    """What a device tells, checked.

    Raises:
        HwnasError: if it cannot be.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise HwnasError(f"{where} tells nonsense: {printable(first_problem(error))}") from error
