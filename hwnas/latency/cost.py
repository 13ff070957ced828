"""Latency on a target: predicted from a table of what was measured there, or measured."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NoReturn

from hwnas.architecture import Architecture
from hwnas.cost_models.base import Cost, LayerCost, Prediction
from hwnas.cost_models.target import TARGET_COST_MODELS, TargetCostModel
from hwnas.devices import DEVICES, Fingerprint, Method, open_device
from hwnas.devices.device import Device
from hwnas.devices.target import Target
from hwnas.errors import HwnasError
from hwnas.latency.build import (
    ROUNDS,
    Session,
    batches,
    estimate_minutes,
    how_many_together,
    measure_in_turn,
    measure_session,
    open_survey,
    require_same,
)
from hwnas.latency.fit import LatencyModel, fit
from hwnas.latency.table import LatencyTable, MeasuredNetwork, Survey, SurveyedSpace, design_of, find_tables, surveyed
from hwnas.operators import OperatorSpec
from hwnas.progress import Progress, Silent
from hwnas.sizes import Size, format_size
from hwnas.spaces.space import SearchSpace

CHANGED = 0.1
"""Share by which a device that is faster or slower than it was is worth a line."""


@dataclass(frozen=True)
class _Fitted:
    table: LatencyTable
    survey: Survey
    target: Target
    speed: float

    @cached_property
    def model(self) -> LatencyModel:
        return fit(self.survey, self.target).at_speed(self.speed)

    @property
    def prediction(self) -> Prediction:
        """How certain it is, and how its networks are known."""
        source = f"{DEVICES[self.target.runtime].method} on {self.table.fingerprint}"
        return Prediction(self.model.uncertainty, source, is_nonsense=self.model.is_nonsense)


class LatencyCost(TargetCostModel):
    """Milliseconds of one image on a target.

    What an operator costs is as of `LatencyModel`; the rest is of the network around them. Only networks of spaces that
    the target's table knows have a cost.

    Args:
        target: name of the target.
        fingerprint: of the device whose table is to be used; None for the newest, until `require` has asked the device.
    """

    family = "latency"
    unit = "ms"
    default_input_size = (180, 320)
    budget_units = ("ms",)
    measurable = True

    def __init__(self, target: str, fingerprint: Fingerprint | None = None) -> None:
        super().__init__(target)
        self._fitted: list[_Fitted] | None = None
        self._fingerprint = fingerprint
        self._in_use: tuple[SurveyedSpace, Size] | None = None
        self._whole: tuple[Architecture, Size] | None = None

    @property
    def how_measured(self) -> Method:
        return DEVICES[self.target.runtime].method

    @property
    def measured_on(self) -> Mapping[str, str]:
        known = {} if self._fingerprint is None else self._fingerprint.model_dump(exclude_none=True)
        return {name: str(value) for name, value in known.items()}

    def surveys(self) -> list[_Fitted]:
        """What can be predicted from: all surveys of the device's table, or of the target's, the newest first."""
        if self._fitted is None:
            tables = [t for t in find_tables(self.target.name) if t.fits(self.target, self._fingerprint)]
            self._fitted = [
                _Fitted(table, survey, self.target, self._speed_of(survey))
                for table in tables
                for survey in table.surveys
                if survey.is_complete
            ]
        return self._fitted

    def _is_in_use(self, survey: Survey) -> bool:
        return self._in_use is not None and survey.covers(*self._in_use)

    def _speed_of(self, survey: Survey) -> float:
        return self.yardstick / survey.ms if self._is_in_use(survey) else 1.0

    def require(self, space: SearchSpace, size: Size) -> None:
        """Find out, before anything takes long, whether the device is there and a table is of what it is now.

        Its reference is measured: predictions are of the speed that the device has now. Of other spaces than
        `SurveyedSpace` there is no table: networks are measured whole, and ``space.first`` is what they are compared
        with.

        Raises:
            HwnasError: if not; without a table with the command that builds it and about how long that takes.
        """
        with open_device(self.target) as device:
            self._fingerprint, self._fitted = device.probe().fingerprint, None
            self._whole = None
            if not isinstance(space, SurveyedSpace):
                self._whole = space.first, size
                self._measure_whole(device, [], Silent())
                return
            try:
                found = self.fitted(space, size)
            except HwnasError as error:
                _, survey = open_survey(device, space, size, self._fingerprint)
                minutes = math.ceil(estimate_minutes(survey, device))
                raise HwnasError(f"{error}; that takes about {minutes} minute{'s' * (minutes != 1)}") from error
            if found.model.is_nonsense:
                raise HwnasError(f"predictions for {self.target.name} are {found.prediction}")
            self._heed(found, [measure_session(found.survey, [], device, ROUNDS, Silent())])

    def measure(self, architectures: Sequence[Architecture], input_size: Size, progress: Progress) -> list[float]:
        """Milliseconds: medians in turn with the reference, times what that takes now.

        They go into the table, where there is one, and predictions to the device's present speed.
        """
        if self._whole is not None:
            with open_device(self.target) as device:
                self._fingerprint = device.probe().fingerprint
                return self._measure_whole(device, architectures, progress)
        sessions = []
        with open_device(self.target) as device:
            # Somebody may have added to the table since, and a resumed search has not asked for the device yet.
            self._fingerprint, self._fitted = device.probe().fingerprint, None
            found = self._of(architectures, input_size)
            survey = found.survey
            choices = [c for architecture in architectures if (c := survey.space.choice_of(architecture)) is not None]
            before = self.yardstick if self._is_in_use(survey) else survey.ms
            for batch in batches(survey, choices):
                sessions.append(measure_session(survey, batch, device, ROUNDS, progress))
                require_same(found.table, sessions[-1])
        ratios = [ratio for session in sessions for ratio in session.ratios]
        networks = [
            MeasuredNetwork(choice=choice, why="search", ratio=ratio, rounds=ROUNDS)
            for choice, ratio in zip(choices, ratios, strict=True)
            if choice != survey.reference
        ]
        found.table.record(survey, networks)
        self._heed(found, sessions)
        if abs(self.yardstick / before - 1) > CHANGED:
            progress.say(
                f"{self.target.name} takes {self.yardstick / before:.2f} times as long now as when it was predicted "
                "from: its speed changes, or something else is running there; predictions follow, and milliseconds are "
                "those of now"
            )
        return [ratio * self.yardstick for ratio in ratios]

    def _measure_whole(self, device: Device, architectures: Sequence[Architecture], progress: Progress) -> list[float]:
        """The same without a table."""
        assert self._whole is not None
        reference, size = self._whole
        together = how_many_together([reference, *architectures], size)
        groups = [architectures[i : i + together] for i in range(0, len(architectures), together)] or [[]]
        sessions = [measure_in_turn(reference, group, size, device, ROUNDS, progress) for group in groups]
        self.yardstick = statistics.median(session.reference_ms for session in sessions)
        return [ratio * self.yardstick for session in sessions for ratio in session.ratios]

    def _heed(self, found: _Fitted, sessions: Sequence[Session]) -> None:
        """Predict at the speed that the device had in these sessions."""
        self._in_use = found.survey.space, found.survey.size
        self.yardstick = statistics.median(session.reference_ms for session in sessions)
        self._fitted = None

    def fitted(self, space: SurveyedSpace, size: Size) -> _Fitted:
        """The survey of a space.

        Raises:
            HwnasError: with the command that makes one.
        """
        found = next((f for f in self.surveys() if f.survey.covers(space, size)), None)
        return found or self._lacks(
            f"space {space.name} at {format_size(size)}{self._instead(space, size)}; "
            f"build it by: {build_command(self.target.name, space, size)}"
        )

    def _instead(self, space: SurveyedSpace, size: Size) -> str:
        """What there is: the beginning of it, one of another device or of this one as it was, or of another space."""
        tables = find_tables(self.target.name)
        ours = [table for table in tables if table.fits(self.target, self._fingerprint)]
        if begun := [survey for table in ours if (survey := table.survey(space, size))]:
            return f" that is complete ({len(begun[0].networks)} networks are there)"
        if self._fingerprint is not None:
            now = LatencyTable.empty(self.target, self._fingerprint)
            for table in tables:
                if table.survey(space, size) and (different := table.difference(now)):
                    return f" (there is one of {different})"
        alike = [s for table in ours for s in table.surveys if (s.space.name, s.size) == (space.name, size)]
        return f" as it is set (there is one of {alike[0]})" if alike else ""

    def _of(self, architectures: Sequence[Architecture], size: Size) -> _Fitted:
        """The survey of a space with these networks: the one in use, if it is such."""
        known = [f for f in self.surveys() if all(f.survey.can_tell(a, size) for a in architectures)]
        known.sort(key=lambda f: not self._is_in_use(f.survey))
        if not known:
            first = architectures[0]
            sizes = {format_size(f.survey.size) for f in self.surveys() if f.survey.can_tell(first, f.survey.size)}
            instead = f"; it has one at {', '.join(sorted(sizes))}" if sizes else ""
            self._lacks(
                f"a space with {first.name} at {format_size(size)}{instead}; measure it by `hwnas profile`, or build a "
                "table of its space by `hwnas table build`"
            )
        return known[0]

    def _lacks(self, what: str) -> NoReturn:
        raise HwnasError(f"no latency table of target {self.target.name} has {what}")

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        for found in self.surveys():
            for (known, resolution), ms in found.model.operators.items():
                if known == spec and (found.survey.size[0] * resolution, found.survey.size[1] * resolution) == size:
                    return ms
        self._lacks(f"{spec.label} at {format_size(size)}; build one by `hwnas table build`")

    def architecture_cost(self, architecture: Architecture, input_size: Size | None = None) -> Cost:
        size = input_size or self.default_input_size
        model = self._of([architecture], size).model
        layers = [
            LayerCost(
                slot.name,
                architecture.operators[slot.name].label,
                slot.count,
                slot.count * model.operators[architecture.operators[slot.name], slot.resolution],
            )
            for slot in architecture.wiring.slots
        ]
        layers.append(LayerCost("(network)", "what every one of its space takes", 1, model.constant))
        return Cost(self.name, sum(layer.value for layer in layers), self.unit, size, tuple(layers))

    def prediction(self, architecture: Architecture, input_size: Size) -> Prediction | None:
        if self._whole is not None:
            return None
        found = self._of([architecture], input_size)
        return replace(found.prediction, speed=found.speed if self._is_in_use(found.survey) else None)

    def wiring_cost(self, architecture: Architecture, size: Size) -> LayerCost | None:
        return self.architecture_cost(architecture, size).layers[-1]

    def space_constant(self, space: SearchSpace, input_size: Size) -> float:
        return self.fitted(surveyed(space), input_size).model.constant

    def prices(self, space: SearchSpace, input_size: Size) -> Callable[[OperatorSpec, int], float]:
        operators = self.fitted(surveyed(space), input_size).model.operators
        return lambda spec, resolution: operators[spec, resolution]


def build_command(target: str, space: SurveyedSpace, size: Size) -> str:
    """The command that builds the table of a published space, or of the space as a user has set it."""
    options = [
        *("--target", target, "--input-size", format_size(size)),
        *(() if getattr(space, "fixed", None) else ("--space", space.name)),
        *("--scale", str(space.scale), "--bits", ",".join(map(str, space.bits))),
        *design_of(space).options(),
    ]
    return shlex.join(["hwnas", "table", "build", *options])


TARGET_COST_MODELS.register(LatencyCost.family)(LatencyCost)
