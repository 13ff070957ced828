"""Measuring the networks of a table, batch by batch, so that what is done stays done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.cost_models.memory import MemoryCost
from hwnas.devices.device import Device, Timing
from hwnas.devices.measurement import Fingerprint, Measurement
from hwnas.devices.runner.common import quantile
from hwnas.errors import HwnasError
from hwnas.exporters.untrained import untrained_suffix, write_untrained
from hwnas.latency.design import (
    CALIBRATION,
    Choice,
    calibration_choices,
    operator_choices,
    reference_choice,
)
from hwnas.latency.table import LatencyTable, MeasuredNetwork, Survey, find_tables
from hwnas.progress import Progress, Silent
from hwnas.sizes import Size
from hwnas.spaces.space import SearchSpace

ROUNDS = 15
"""Turns of each network."""

_REFERENCES = 3
"""Turns of the reference in each round: all others are compared with their mean, so they are not to add noise."""

_BATCH = 9
_BATCH_BYTES = 2_000_000_000
"""Networks that are loaded together at most, and how much memory they may take."""

_WRITE_SECONDS = 2.0
_DEARER = 2.5
"""For estimates: what writing a network takes, and how many times as long as the reference one takes on average."""


@dataclass(frozen=True, slots=True)
class Session:
    """Networks that took turns with the reference.

    Attributes:
        fingerprint: what they were measured on.
        reference_ms: median of the reference.
        ratios: for each network, its time as a multiple of the reference's; the median over the rounds.
        measurements: of each network.
    """

    fingerprint: Fingerprint
    reference_ms: float
    ratios: tuple[float, ...]
    measurements: tuple[Measurement, ...]


def measure_session(
    survey: Survey, choices: Sequence[Choice], device: Device, rounds: int, progress: Progress
) -> Session:
    """Write networks of the survey's space as they would be deployed, and measure them in turn with its reference.

    Raises:
        HwnasError: if one cannot be written, or as `Device.measure`.
    """
    target, size = device.target, survey.size
    with TemporaryDirectory() as folder:
        paths = []
        for i, choice in enumerate((survey.reference, *choices)):
            paths.append(Path(folder) / f"{i}{untrained_suffix(target)}")
            write_untrained(survey.architecture(choice), target, size, paths[-1])
        reference, *others = paths
        timing = Timing(size, rounds, precision=0.0, seconds=0.0)
        found = device.measure([*[reference] * _REFERENCES, *others], timing, progress)
    references, measurements = found[:_REFERENCES], found[_REFERENCES:]
    per_round = [
        sum(quantile(one.rounds_ms[i], 0.5) for one in references) / _REFERENCES
        for i in range(len(references[0].rounds_ms))
    ]
    ratios = [
        quantile([quantile(own, 0.5) / of_all for own, of_all in zip(one.rounds_ms, per_round, strict=True)], 0.5)
        for one in measurements
    ]
    return Session(
        fingerprint=references[0].fingerprint,
        reference_ms=quantile([ms for one in references for ms in one.samples_ms], 0.5),
        ratios=tuple(ratios),
        measurements=tuple(measurements),
    )


def batches(survey: Survey, choices: Sequence[Choice]) -> list[list[Choice]]:
    """So many networks together as the device's memory may bear."""
    most = max((MemoryCost().architecture_cost(survey.architecture(c), survey.size).value for c in choices), default=1)
    size = max(1, min(_BATCH, int(_BATCH_BYTES / most) - _REFERENCES))
    return [list(choices[i : i + size]) for i in range(0, len(choices), size)]


def wanted(survey: Survey, calibration: int) -> list[tuple[Choice, str]]:
    """Networks that a complete survey has, and what each is for."""
    operators = operator_choices(survey.space, survey.reference)
    at_random = calibration_choices(survey.space, calibration)
    purposes = {**dict.fromkeys(at_random, "calibration"), **dict.fromkeys(operators, "operator")}
    purposes.pop(survey.reference, None)
    return list(purposes.items())


def estimate_minutes(survey: Survey, device: Device, calibration: int = CALIBRATION, rounds: int = ROUNDS) -> float:
    """About how long it takes to measure what is missing; times the reference for that."""
    reference = measure_session(survey, [], device, 3, Silent()).reference_ms / 1e3
    return estimated_seconds(survey, reference, calibration, rounds) / 60


def estimated_seconds(survey: Survey, reference_seconds: float, calibration: int, rounds: int) -> float:
    """The same of a known reference, in seconds."""
    there = {network.choice for network in survey.networks}
    missing = [choice for choice, _ in wanted(survey, calibration) if choice not in there]
    groups = len(batches(survey, missing))
    turns = _DEARER * len(missing) + _REFERENCES * groups
    # Each turn is two inferences, one of them timed.
    return _WRITE_SECONDS * (len(missing) + groups) + 2 * (rounds + 3) * turns * reference_seconds


def open_survey(
    device: Device, space: SearchSpace, size: Size, fingerprint: Fingerprint
) -> tuple[LatencyTable, Survey]:
    """The device's table, and its survey of a space at a size; each begun if it is not there."""
    name = device.target.name
    table = next((t for t in find_tables(name) if t.fingerprint == fingerprint), None)
    table = table or LatencyTable(target=name, fingerprint=fingerprint)
    survey = table.survey(space, size)
    return table, survey or Survey(size=size, space=space, reference=reference_choice(space, device.target))


def build_table(
    device: Device,
    space: SearchSpace,
    size: Size,
    progress: Progress,
    calibration: int = CALIBRATION,
    rounds: int = ROUNDS,
) -> tuple[LatencyTable, Survey]:
    """Measure what the device's table lacks of a space at a size; it is saved after each batch.

    Args:
        device: where to measure.
        space: whose operators.
        size: height and width of the low-resolution image.
        progress: whom to tell.
        calibration: networks at random.
        rounds: turns of each network.

    Raises:
        HwnasError: as `measure_session`; what was measured by then is in the table.
    """
    fingerprint = device.probe().fingerprint
    table, survey = open_survey(device, space, size, fingerprint)
    everything = wanted(survey, calibration)
    there = {network.choice for network in survey.networks}
    purposes = {choice: why for choice, why in everything if choice not in there}
    bar = progress.task("measure", len(everything), len(everything) - len(purposes))
    for batch in batches(survey, list(purposes)):
        started = time.monotonic()
        session = measure_session(survey, batch, device, rounds, Silent())
        require_same(table, session)
        networks = [
            MeasuredNetwork.model_validate({"choice": c, "why": purposes[c], "ratio": r, "rounds": rounds})
            for c, r in zip(batch, session.ratios, strict=True)
        ]
        survey = survey.with_session(session.reference_ms, networks, time.monotonic() - started)
        table = table.with_survey(survey)
        table.save()
        bar.advance(len(batch), reference=f"{session.reference_ms:.3g} ms")
    return table, survey


def require_same(table: LatencyTable, session: Session) -> None:
    """A table is of one device with one runtime.

    Raises:
        HwnasError: if the session is of another.
    """
    if session.fingerprint != table.fingerprint:
        raise HwnasError(
            f"the device has changed: {table.fingerprint.difference(session.fingerprint)}; build the table again for "
            "what it is now"
        )
