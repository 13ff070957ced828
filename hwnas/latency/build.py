"""Measuring the networks of a table, batch by batch, so that what is done stays done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.architecture import Architecture
from hwnas.cost_models.memory import MemoryCost
from hwnas.devices.device import Device, Timing
from hwnas.devices.measurement import Fingerprint
from hwnas.devices.runner.timing import paired_ratios, quantile
from hwnas.devices.target import Target
from hwnas.errors import HwnasError
from hwnas.exporters.untrained import untrained_suffix, write_untrained
from hwnas.latency.design import CALIBRATION
from hwnas.latency.table import MOST, LatencyTable, MeasuredNetwork, Purpose, Survey, SurveyedSpace, find_tables
from hwnas.progress import Progress, Silent, Task
from hwnas.sizes import Size
from hwnas.spaces.space import Choice

ROUNDS = 15
"""Turns of each network."""

_REFERENCES = 3
"""Turns of the reference in each round: all others are compared with their mean, so they are not to add noise."""

_BATCH = 9
_BATCH_BYTES = 2_000_000_000
"""Networks that are loaded together at most, and how much memory they may take."""

_DEARER = 2.5
"""For estimates: how many times as long as the reference one takes on average."""

_WARM_UP = 2
"""For estimates: what is not timed, in turns."""


@dataclass(frozen=True, slots=True)
class Session:
    """Networks that took turns with the reference.

    Attributes:
        fingerprint: what they were measured on.
        reference_ms: median of the reference.
        ratios: for each network, its time as a multiple of the reference's; the median over the rounds.
        clock_ms: medians of each network.
    """

    fingerprint: Fingerprint
    reference_ms: float
    ratios: tuple[float, ...]
    clock_ms: tuple[float, ...]


def measure_session(
    survey: Survey, choices: Sequence[Choice], device: Device, rounds: int, progress: Progress
) -> Session:
    """`measure_in_turn` for networks of a survey's space and its reference."""
    reference, *others = (survey.space.chosen(choice) for choice in (survey.reference, *choices))
    return measure_in_turn(reference, others, survey.size, device, rounds, progress)


def measure_in_turn(
    reference_network: Architecture,
    networks: Sequence[Architecture],
    size: Size,
    device: Device,
    rounds: int,
    progress: Progress,
) -> Session:
    """Write networks as they would be deployed, and measure them in turn with one that all are compared with.

    Args:
        reference_network: that one.
        networks: the others.
        size: height and width of the low-resolution image.
        device: where to measure.
        rounds: turns of each.
        progress: whom to tell.

    Raises:
        HwnasError: if one cannot be written, or as `Device.measure`.
    """
    with TemporaryDirectory(prefix="hwnas-") as folder:
        reference, *others = (
            _written(network, size, device.target, Path(folder) / str(i))
            for i, network in enumerate((reference_network, *networks))
        )
        timing = Timing(size, rounds, precision=0.0, seconds=0.0)
        found = device.measure([*[reference] * _REFERENCES, *others], timing, progress)
    references, measurements = found[:_REFERENCES], found[_REFERENCES:]
    # Their mean in each round, as one network.
    per_round = [
        [sum(quantile(turn, 0.5) for turn in turns) / _REFERENCES]
        for turns in zip(*(one.rounds_ms for one in references), strict=True)
    ]
    ratios = tuple(quantile(paired_ratios(one.rounds_ms, per_round), 0.5) for one in measurements)
    if not all(1 / MOST <= ratio <= MOST for ratio in ratios):
        raise HwnasError(
            f"{device.target.name} says that a network takes {max(ratios):.3g} or {min(ratios):.3g} times as long as "
            "the smallest; it cannot be right"
        )
    return Session(
        fingerprint=references[0].fingerprint,
        reference_ms=quantile([ms for one in references for ms in one.samples_ms], 0.5),
        ratios=ratios,
        clock_ms=tuple(one.p50 for one in measurements),
    )


def _written(network: Architecture, size: Size, target: Target, stem: Path) -> Path:
    path = stem.with_suffix(untrained_suffix(target))
    write_untrained(network, target, size, path)
    return path


def batches(survey: Survey, choices: Sequence[Choice]) -> list[list[Choice]]:
    """So many networks of a survey's space together as the device's memory may bear."""
    together = how_many_together([survey.space.chosen(choice) for choice in choices], survey.size)
    return [list(choices[i : i + together]) for i in range(0, len(choices), together)]


def how_many_together(networks: Sequence[Architecture], size: Size) -> int:
    """How many of these networks may be loaded at once."""
    most = max((MemoryCost().architecture_cost(network, size).value for network in networks), default=1)
    return max(1, min(_BATCH, int(_BATCH_BYTES / most) - _REFERENCES))


def wanted(survey: Survey, calibration: int) -> list[tuple[Choice, Purpose]]:
    """Networks that a complete survey has, and what each is for."""
    operators = survey.design.operators(survey.reference)
    at_random = survey.design.calibration(calibration)
    purposes: dict[Choice, Purpose] = dict.fromkeys(at_random, "calibration")
    purposes |= dict.fromkeys(operators, "operator")
    purposes.pop(survey.reference, None)
    return list(purposes.items())


def missing(survey: Survey, calibration: int, rounds: int) -> dict[Choice, Purpose]:
    """Those of `wanted` that have not been measured in so many turns."""
    there = {network.choice for network in survey.networks if network.rounds >= rounds}
    return {choice: why for choice, why in wanted(survey, calibration) if choice not in there}


class Rounds(Silent):
    """Shows the rounds of a session in the bar of all of them."""

    def __init__(self, bar: Task, networks: int) -> None:
        self._bar, self._networks = bar, networks

    def task(self, description: str, total: int, done: int = 0) -> Task:
        return self

    def advance(self, units: int = 1, /, **figures: str) -> None:
        self._bar.advance(units * self._networks)


class _Turns(Silent):
    """Notes when the rounds of a session end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def task(self, description: str, total: int, done: int = 0) -> Task:
        return self

    def advance(self, units: int = 1, /, **figures: str) -> None:
        self.ends.append(time.monotonic())


def estimate_minutes(survey: Survey, device: Device, calibration: int = CALIBRATION, rounds: int = ROUNDS) -> float:
    """About how long it takes to measure what is missing: measures the reference by itself for that."""
    lacking = list(missing(survey, calibration, rounds))
    turns = _Turns()
    with TemporaryDirectory(prefix="hwnas-") as folder:
        target = device.target
        reference = _written(survey.space.chosen(survey.reference), survey.size, target, Path(folder) / "reference")
        started = time.monotonic()  # after what the first of all networks takes besides: libraries are loaded for it
        for choice in lacking[:1]:
            _written(survey.space.chosen(choice), survey.size, target, Path(folder) / "other")
        device.measure([reference], Timing(survey.size, 3, precision=0.0, seconds=0.0), turns)
        whole = time.monotonic() - started
    # Compilers have no turns, and not every device tells of them.
    one_turn = turns.ends[1] - turns.ends[0] if len(turns.ends) > 1 else 0.0
    before = turns.ends[0] - started - (1 + _WARM_UP) * one_turn if turns.ends else whole
    return estimated_seconds(survey, lacking, max(before, 0.0), one_turn, rounds) / 60


def estimated_seconds(survey: Survey, lacking: Sequence[Choice], before: float, one_turn: float, rounds: int) -> float:
    """The same of a known device.

    Args:
        survey: what there is.
        lacking: networks that are to be measured.
        before: seconds before the turns of a network: to write it, to send it, to load it or build an engine of it.
        one_turn: seconds of a turn of the reference.
        rounds: turns of each network.
    """
    groups = len(batches(survey, lacking))
    turns = (rounds + _WARM_UP) * _DEARER * len(lacking) + (_REFERENCES * rounds + _WARM_UP) * groups
    return before * (len(lacking) + groups) + turns * one_turn


def open_survey(
    device: Device, space: SurveyedSpace, size: Size, fingerprint: Fingerprint
) -> tuple[LatencyTable, Survey]:
    """The device's table, and its survey of a space at a size; each begun if it is not there."""
    target = device.target
    table = next((t for t in find_tables(target.name) if t.fits(target, fingerprint)), None)
    table = table or LatencyTable.empty(target, fingerprint)
    survey = table.survey(space, size)
    return table, survey or Survey.begun(space, size, target)


def build_table(
    device: Device,
    space: SurveyedSpace,
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
    purposes, everything = missing(survey, calibration, rounds), len(wanted(survey, calibration))
    bar = progress.task("measure", rounds * everything, rounds * (everything - len(purposes)))
    for batch in batches(survey, list(purposes)):
        started = time.monotonic()
        session = measure_session(survey, batch, device, rounds, Rounds(bar, len(batch)))
        require_same(table, session)
        networks = [
            MeasuredNetwork(choice=choice, why=purposes[choice], ratio=ratio, rounds=rounds)
            for choice, ratio in zip(batch, session.ratios, strict=True)
        ]
        table, survey = table.record(survey, networks, session.reference_ms, time.monotonic() - started)
        bar.advance(0, kept=f"{len(survey.networks)} networks", reference=f"{session.reference_ms:.3g} ms")
    return table, survey


def require_same(table: LatencyTable, session: Session) -> None:
    """A table is of one device with one runtime.

    Raises:
        HwnasError: if the session is of another.
    """
    now = table.model_copy(update={"fingerprint": session.fingerprint})
    if different := table.difference(now):
        raise HwnasError(f"the device has changed: {different}; build the table again for what it is now")
