"""Searching within a budget in time: predictions propose, the device decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.cost_models import COST_MODELS, CostModel
from hwnas.cost_models.base import Cost
from hwnas.cost_models.target import target_cost_model
from hwnas.devices import open_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters.untrained import write_untrained
from hwnas.latency.table import LatencyTable
from hwnas.operators import OperatorSpec
from hwnas.progress import Progress, Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches.base import SearchTask
from hwnas.searches.differentiable import measured as measured_module
from hwnas.searches.differentiable.measured import Derived, derive_measured
from hwnas.searches.quantnas.choices import LayerwiseChoices
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.results import known_cost
from hwnas.sizes import Size
from hwnas.spaces.space import LayerwiseSpace

from .simulated import SIZE, SimulatedDevice, true_ms

Simulated = type[SimulatedDevice]
Times = dict[tuple[int, ...], float]
Derive = Callable[[float], Derived]


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def built_here(simulated: Simulated, built: LatencyTable) -> Iterator[LatencyTable]:
    target_cost_model.cache_clear()
    built.save()
    yield built
    target_cost_model.cache_clear()


def _task(space: LayerwiseSpace, limit: float, tmp_path: Path) -> SearchTask:
    return SearchTask(
        space=space,
        budgets=(Budget("latency@abacus", limit, SIZE),),
        data=None,  # type: ignore[arg-type]
        settings=QuantNASSettings(),
        target="abacus",
        seed=0,
        run=RunDirectory(tmp_path),
        progress=Lines(),
    )


@pytest.fixture(scope="module")
def truth(space: LayerwiseSpace, tmp_path_factory: pytest.TempPathFactory) -> Times:
    """Milliseconds of all sixteen networks of the space."""
    path, target = tmp_path_factory.mktemp("all") / "n.onnx", load_target("cpu")
    found = {}
    for choice in itertools.product(*(range(len(candidates)) for candidates in space.choices.values())):
        architecture = space.architecture(dict(zip(space.choices, choice, strict=True)))
        write_untrained(architecture, target, SIZE, path)
        found[choice] = true_ms(path)
    return found


def _scores(space: LayerwiseSpace) -> dict[str, list[float]]:
    """What costs more is more probable, so that the budget decides; no two choices are equally probable."""
    return {
        layer: [-1.0 / (1 + i) - 0.01 * n for i in range(len(candidates))]
        for n, (layer, candidates) in enumerate(space.choices.items())
    }


def _best(space: LayerwiseSpace, times: Times, limit: float) -> tuple[int, ...]:
    scores = _scores(space)

    def score(choice: tuple[int, ...]) -> float:
        return math.fsum(scores[layer][i] for layer, i in zip(space.choices, choice, strict=True))

    return max((choice for choice, ms in times.items() if ms <= limit), key=score)


@pytest.fixture
def derive(built_here: LatencyTable, simulated: Simulated, space: LayerwiseSpace, tmp_path: Path) -> Derive:
    """Derives within a limit on a device that is steady."""
    simulated.drift = simulated.outliers = 0.0
    return lambda limit: derive_measured(_task(space, limit, tmp_path), LayerwiseChoices(space, _scores(space)))


@pytest.mark.parametrize(("speed", "slower"), [(1.0, 1.0), (1.6, 1.0), (0.7, 1.0), (1.0, 1.25)])
def test_the_choice_is_the_best_that_is_measured_within(
    speed: float, slower: float, derive: Derive, simulated: Simulated, space: LayerwiseSpace, truth: Times
) -> None:
    """Also on a device that is slower or faster than it was, or on which all but the reference are slower."""
    simulated.speed, simulated.slower = speed, slower
    least = min(truth.values())
    times = {choice: ms * speed * (slower if ms > least else 1) for choice, ms in truth.items()}
    # Between two networks: a prediction cannot tell which side one is on that takes just the limit.
    limit = sum(sorted(times.values())[7:9]) / 2
    derived = derive(limit)
    assert derived.chosen is not None
    chosen = derived.chosen
    assert derived.measured[chosen]["latency@abacus"] == pytest.approx(times[chosen])
    assert chosen == _best(space, times, limit)


def test_what_several_sessions_found_is_told_at_the_speed_of_the_last(
    derive: Derive, simulated: Simulated, space: LayerwiseSpace, truth: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is fast while the first networks are measured, and none is chosen for that."""
    simulated.moods = {1: 0.7}
    monkeypatch.setattr(measured_module, "TOGETHER", 2)
    limit = sum(sorted(truth.values())[7:9]) / 2
    derived = derive(limit)
    assert simulated.sessions > 1, "there were several"
    assert derived.chosen == _best(space, truth, limit)
    for choice, costs in derived.measured.items():
        assert costs["latency@abacus"] == pytest.approx(truth[choice])


def test_somebody_who_builds_the_table_meanwhile_changes_no_speed(
    built_here: LatencyTable, derive: Derive, simulated: Simulated, space: LayerwiseSpace, truth: Times,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On a machine that is slow then: the median of all that the reference ever took moves."""
    monkeypatch.setattr(measured_module, "TOGETHER", 1)
    simulated.moods = {1: 0.7}
    measure, survey = simulated.measure, built_here.surveys[0]

    def measure_beside_others(self: SimulatedDevice, *arguments: object) -> object:
        for _ in range(5):
            built_here.record(survey, [], 2 * survey.ms)
        return measure(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated, "measure", measure_beside_others)
    limit = sum(sorted(truth.values())[7:9]) / 2
    derived = derive(limit)
    assert simulated.sessions > 1
    for choice, costs in derived.measured.items():
        assert costs["latency@abacus"] == pytest.approx(truth[choice])


def test_what_a_front_says_of_a_cost_is_told_with_how_it_is_known() -> None:
    row = {"latency@a_predicted": "3.5", "latency@a_measured": "3.25", "bitops": "12", "psnr": ""}
    assert known_cost(row, "latency@a") == (3.25, "measured") and known_cost(row, "bitops") == (12.0, "counted")
    assert known_cost(row, "latency@a", "predicted") == (3.5, "predicted")
    assert known_cost(row | {"latency@a_measured": ""}, "latency@a") == (3.5, "predicted")
    assert known_cost({"latency@a_vendor_estimated": "1"}, "latency@a") == (1.0, "vendor-estimated")
    for damaged in ({}, {"bitops": "many"}, {"bitops": ""}):
        with pytest.raises(HwnasError, match=r"front\.csv does not say what bitops is"):
            known_cost(damaged, "bitops")


def test_other_budgets_hold_besides_one_in_time(
    built_here: LatencyTable, simulated: Simulated, space: LayerwiseSpace, truth: Times, tmp_path: Path
) -> None:
    """Of every pair of limits: the most probable of all networks within both."""
    simulated.drift = simulated.outliers = 0.0
    task = _task(space, 0.0, tmp_path)
    named = {choice: space.architecture(dict(zip(space.choices, choice, strict=True))) for choice in truth}
    parameters = {c: COST_MODELS["params"].architecture_cost(network).value for c, network in named.items()}
    by_time, by_size = sorted(truth.values()), sorted(parameters.values())
    for i, j in itertools.product((3, 7, 11), (2, 8, 12)):
        limits = sum(by_time[i : i + 2]) / 2, sum(by_size[j : j + 2]) / 2
        both = {choice: ms for choice, ms in truth.items() if parameters[choice] <= limits[1]}
        if min(both.values()) > limits[0]:
            continue
        budgets = Budget("params", limits[1], SIZE), Budget("latency@abacus", limits[0], SIZE)
        derived = derive_measured(replace(task, budgets=budgets), LayerwiseChoices(space, _scores(space)))
        assert derived.chosen == _best(space, both, limits[0])
        assert all(parameters[choice] <= limits[1] for choice in derived.measured), "nothing else is worth a turn"


def test_the_best_of_the_front_are_measured_though_the_budget_does_not_bind(
    derive: Derive, space: LayerwiseSpace, truth: Times
) -> None:
    derived = derive(10 * max(truth.values()))
    best = _best(space, truth, math.inf)
    assert derived.chosen == best and len(derived.measured) == 5
    times = [truth[choice] for choice in derived.measured]
    assert times == sorted(times, reverse=True), "each next one is faster"
    for choice in derived.measured:
        assert choice == _best(space, truth, truth[choice]), "and the most probable of its time"


class Stubborn(CostModel):
    """Predicts the parameters, and what it measures changes nothing of that.

    Args:
        factor: of what is measured.
        quirk: a number of parameters, and the factor of the network that has so many.
        at_least: what every other network takes.
    """

    name, unit, default_input_size, measurable, sized = "stubborn", "ms", SIZE, True, False

    def __init__(self, factor: float, quirk: tuple[float, float] = (-1.0, 1.0), at_least: float = 0.0) -> None:
        self.factor, self.quirk, self.at_least = factor, quirk, at_least

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return COST_MODELS["params"].operator_cost(spec, size)

    def measure(self, architectures: Sequence[Architecture], input_size: Size, progress: Progress) -> list[float]:
        predicted = [self.architecture_cost(architecture).value for architecture in architectures]
        return [
            value * self.quirk[1] if value == self.quirk[0] else max(value * self.factor, self.at_least)
            for value in predicted
        ]


@pytest.fixture
def derived_by(
    space: LayerwiseSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Stubborn, float], Derived]]:
    # The front of sixteen networks is short: five at once would be all of it.
    monkeypatch.setattr(measured_module, "TOGETHER", 2)

    def derive(model: Stubborn, limit: float) -> Derived:
        COST_MODELS.register(model.name)(model)
        task = replace(_task(space, 0.0, tmp_path), budgets=(Budget(model.name, limit, SIZE),))
        return derive_measured(task, LayerwiseChoices(space, _scores(space)))

    yield derive
    COST_MODELS.remove(Stubborn.name)


@pytest.fixture
def parameters(space: LayerwiseSpace) -> Times:
    choices = itertools.product(*(range(len(candidates)) for candidates in space.choices.values()))
    model = Stubborn(1.0)
    return {
        choice: model.architecture_cost(space.architecture(dict(zip(space.choices, choice, strict=True)))).value
        for choice in choices
    }


def test_predictions_that_do_not_learn_are_corrected_by_a_factor(
    space: LayerwiseSpace,
    parameters: Times,
    derived_by: Callable[[Stubborn, float], Derived],
) -> None:
    limit = sum(sorted(parameters.values())[7:9]) / 2
    found = derived_by(Stubborn(1.6), 1.6 * limit).chosen
    assert found == _best(space, parameters, limit)


class Weightless(Stubborn):
    """Predicts less than nothing of the smallest networks, as a noisy table does of networks of microseconds."""

    def space_constant(self, space: LayerwiseSpace, input_size: Size) -> float:
        return -1e4

    def architecture_cost(self, architecture: Architecture, input_size: Size | None = None) -> Cost:
        found = super().architecture_cost(architecture, input_size)
        return replace(found, value=found.value - 1e4)

    def measure(self, architectures: Sequence[Architecture], input_size: Size, progress: Progress) -> list[float]:
        return [1.0 for _ in architectures]


def test_predictions_of_less_than_nothing_have_an_end(
    space: LayerwiseSpace, parameters: Times, derived_by: Callable[[Stubborn, float], Derived]
) -> None:
    assert max(parameters.values()) < 1e4
    best = _best(space, parameters, math.inf)
    assert derived_by(Weightless(1.0), 2.0).chosen == best


def test_the_fastest_is_measured_when_nothing_else_helps(
    space: LayerwiseSpace,
    parameters: Times,
    derived_by: Callable[[Stubborn, float], Derived],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever else is measured is a trace over the limit."""
    monkeypatch.setattr(measured_module, "TOGETHER", 1)
    fastest, limit = min(parameters, key=lambda choice: parameters[choice]), max(parameters.values())
    model = Stubborn(1.0, quirk=(parameters[fastest], 1.0), at_least=1.01 * limit)
    derived = derived_by(model, limit)
    assert derived.chosen == fastest


def test_a_network_that_is_just_over_by_prediction_is_measured_too(
    space: LayerwiseSpace,
    parameters: Times,
    derived_by: Callable[[Stubborn, float], Derived],
) -> None:
    """One that takes 3 % less than is predicted, of a limit that the prediction is 2 % over."""
    best = _best(space, parameters, math.inf)
    model = Stubborn(1.0, quirk=(parameters[best], 0.97))
    assert derived_by(model, parameters[best] * 0.98).chosen == best


def test_a_budget_that_nothing_meets_on_the_device_says_so(
    built_here: LatencyTable,
    simulated: Simulated,
    space: LayerwiseSpace,
    truth: Times,
    tmp_path: Path,
) -> None:
    simulated.speed, simulated.drift = 100.0, 0.0
    task = _task(space, max(truth.values()), tmp_path)
    with pytest.raises(HwnasError, match=r"was found within .* ms at 8x8; raise the budget"):
        derive_measured(task, LayerwiseChoices(space, _scores(space)))
    said = [line for line in task.progress.lines if "predictions are corrected" in line]  # type: ignore[attr-defined]
    assert said
    fastest = min(truth.values()) * 100
    assert f"the fastest {fastest:.4g} ms" in said[-1], "the fastest of all is among those that were measured"


def test_a_device_that_has_gone_is_an_error_and_no_guess(
    built_here: LatencyTable, simulated: Simulated, space: LayerwiseSpace, tmp_path: Path
) -> None:
    simulated.dies_after = 0
    with pytest.raises(HwnasError, match="went away"):
        derive_measured(_task(space, 100.0, tmp_path), LayerwiseChoices(space, _scores(space)))
    with open_device(load_target("abacus")) as device:
        assert device.missing() is None
