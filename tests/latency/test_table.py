"""Building a table on a device, and what can happen to it."""

from __future__ import annotations

import json
import math
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.budget import Budget
from hwnas.cost_models.counting import BitOpsCost
from hwnas.cost_models.memory import MemoryCost
from hwnas.devices import open_device
from hwnas.devices.target import add_target, load_target
from hwnas.errors import HwnasError, UsageError
from hwnas.latency import build as building
from hwnas.latency import table as table_module
from hwnas.latency.build import build_table
from hwnas.latency.cost import LatencyCost
from hwnas.latency.fit import fit
from hwnas.latency.layerwise import LayerwiseDesign
from hwnas.latency.table import LatencyTable, MeasuredNetwork, Survey, find_tables, read_table
from hwnas.latency.validate import validate
from hwnas.progress import Silent
from hwnas.searches.feasibility import require_feasible
from hwnas.spaces.space import LayerwiseSpace

from .simulated import SIZE, SimulatedDevice, keep, simulated_target

Simulated = type[SimulatedDevice]


def _build(space: LayerwiseSpace, calibration: int = 6, rounds: int = 9) -> tuple[LatencyTable, Survey]:
    with open_device(load_target("abacus")) as device:
        return build_table(device, space, SIZE, Silent(), calibration, rounds)


def test_a_table_predicts_networks_that_it_has_not_seen(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    table, survey = built, keep(built)
    assert read_table(table.path) == table
    with open_device(load_target("abacus")) as device:
        simulated.speed = 3.0  # slower now: in turn with the reference that does not matter
        found = validate(device, table, survey, 5, Silent(), rounds=9)
    assert found.accuracy.within_5 == 1.0 and found.accuracy.rho > 0.98 and len(found.predicted_ms) == 5
    assert found.accuracy_by_the_clock.within_10 == 0.0
    assert found.reference_ms[0] == pytest.approx(3 * survey.ms)


def test_what_is_measured_stays_when_the_device_goes_away(simulated: Simulated, space: LayerwiseSpace) -> None:
    simulated.dies_after = 1
    with pytest.raises(HwnasError, match="went away"):
        _build(space, calibration=8)
    (table,) = find_tables("abacus")
    first = table.surveys[0].networks
    assert len(first) > 0 and not table.surveys[0].is_complete
    simulated.dies_after, simulated.sessions = 10**6, 0
    table, survey = _build(space, calibration=8)
    assert survey.networks[: len(first)] == first and survey.is_complete
    before = simulated.sessions
    assert _build(space, calibration=8)[1] == survey and simulated.sessions == before, "nothing is measured again"


def test_what_had_fewer_turns_takes_them_anew(simulated: Simulated, space: LayerwiseSpace, built: LatencyTable) -> None:
    before = keep(built)
    assert _build(space, rounds=5)[1] == before and simulated.sessions == 0
    _, survey = _build(space, rounds=12)
    assert [(n.choice, n.why) for n in survey.networks] == [(n.choice, n.why) for n in before.networks]
    assert {n.rounds for n in survey.networks} == {12} and len(survey.reference_ms) > len(before.reference_ms)


def test_two_fingerprints_are_never_mixed(
    simulated: Simulated, space: LayerwiseSpace, cost: LatencyCost, built: LatencyTable
) -> None:
    old = built
    old.save()
    simulated.version = "2"
    with pytest.raises(HwnasError, match=r"of runtime_version 1, now 2\); build it by: hwnas table build "):
        cost.require(space, SIZE)
    new, _ = _build(space)
    assert old.path != new.path and read_table(old.path) == old
    cost.require(space, SIZE)
    assert cost.fitted(space, SIZE).table == new


def test_a_device_that_changes_in_between_is_noticed(
    cost: LatencyCost,
    simulated: Simulated,
    space: LayerwiseSpace,
    built: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    survey, changed = keep(built), "the device has changed: runtime_version 1, now 2"
    simulated.changes_after = 0
    with open_device(load_target("abacus")) as device, pytest.raises(HwnasError, match=changed):
        validate(device, built, survey, 3, Silent(), rounds=3)
    simulated.sessions = 0
    with pytest.raises(HwnasError, match=changed):
        cost.measure([survey.space.chosen(survey.networks[0].choice)], SIZE, Silent())
    assert read_table(built.path) == built
    simulated.sessions, simulated.changes_after = 0, 1
    monkeypatch.setattr(building, "_BATCH", 2)
    with pytest.raises(HwnasError, match=changed):
        _build(space, calibration=14)
    assert read_table(built.path).surveys[0].networks[: len(survey.networks)] == survey.networks
    assert len(find_tables("abacus")) == 1


def _narrow(space: LayerwiseSpace) -> LayerwiseSpace:
    """The space without its cheapest candidate of one layer: another constant, and other numbers for operators."""
    layer = "body.1"
    dearer = sorted(space.choices[layer], key=lambda spec: BitOpsCost().operator_cost(spec, SIZE))[1:]
    return space.model_copy(update={"choices": {**space.choices, layer: tuple(dearer)}})


def test_a_space_within_another_is_told_by_its_own_survey(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    built.save()
    simulated.speed = 3.0  # when the second one is measured
    narrow = _narrow(space)
    _, survey = _build(narrow)
    cost, target = LatencyCost("abacus"), load_target("abacus")
    cost.require(narrow, SIZE)
    model, architecture = fit(survey, target), narrow.sample(random.Random(1))
    assert cost.architecture_cost(architecture, SIZE).value == pytest.approx(model.predict(architecture), rel=0.05)
    table = cost.table(narrow, SIZE)
    choice = {layer: narrow.choices[layer].index(spec) for layer, spec in architecture.operators.items()}
    whole = cost.space_constant(narrow, SIZE) + sum(table[layer][i] for layer, i in choice.items())
    assert whole == pytest.approx(cost.architecture_cost(architecture, SIZE).value)
    cost.require(space, SIZE)
    assert cost.architecture_cost(architecture, SIZE).value == pytest.approx(
        3 * fit(built.surveys[0], target).predict(architecture), rel=0.1
    ), "the wide one again, at the speed of now"


def test_two_that_write_at_once_lose_nothing(
    simulated: Simulated, space: LayerwiseSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one space is measured, another is."""
    monkeypatch.setattr(building, "_BATCH", 4)
    narrow, begun = _narrow(space), []
    measure = SimulatedDevice.measure

    def measure_and_be_disturbed(self: SimulatedDevice, *arguments: object) -> object:
        if not begun:
            begun.append(True)
            _build(narrow)
        return measure(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated, "measure", measure_and_be_disturbed)
    table, survey = _build(space)
    assert survey.is_complete and len(table.surveys) == 2 and all(s.is_complete for s in table.surveys)
    assert find_tables("abacus") == [table]


def test_many_that_record_at_once_lose_nothing(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    survey = keep(built)
    choices = LayerwiseDesign(space).held_out(6, {network.choice for network in survey.networks}, seed=0)
    networks = [MeasuredNetwork(choice=choice, why="search", ratio=1.5, rounds=9) for choice in choices]
    with ThreadPoolExecutor(len(networks)) as pool:
        list(pool.map(lambda network: built.record(survey, [network]), networks))
    (found,) = find_tables("abacus")
    assert {network.choice for network in found.surveys[0].networks} >= set(choices) and len(choices) > 2


def test_without_a_device_any_table_that_has_the_space_tells(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    """Also if another one, of other spaces, is newer."""
    built.save()
    simulated.version = "2"
    _build(_narrow(space))
    assert len(find_tables("abacus")) == 2
    assert LatencyCost("abacus").fitted(space, SIZE).table == built


def test_a_table_that_is_nothing_but_noise_predicts_nothing(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable, cost: LatencyCost
) -> None:
    """It would say of the fastest network that it takes less than no time."""
    survey, chance = built.surveys[0], random.Random(0)
    noisy = [n.model_copy(update={"ratio": math.exp(chance.gauss(0, 2.5))}) for n in survey.networks]
    built.with_survey(survey.model_copy(update={"networks": tuple(noisy)})).save()
    with pytest.raises(HwnasError, match="predictions for abacus are nonsense.*more --rounds"):
        cost.require(space, SIZE)


def test_a_folder_that_cannot_be_written_is_named(
    simulated: Simulated, built: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "file"))
    with pytest.raises(HwnasError, match="cannot write .*; set HWNAS_HOME to another folder"):
        built.record(built.surveys[0], [])


def test_predictions_are_of_the_speed_that_the_device_has_now(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable, cost: LatencyCost
) -> None:
    """A budget that the device meets today is not refused for what it took when the table was built."""
    built.save()
    simulated.drift = simulated.outliers = 0.0
    least = cost.space_constant(space, SIZE) + sum(map(min, cost.table(space, SIZE).values()))
    simulated.speed = 0.5
    budget = Budget("latency@abacus", 0.6 * least, SIZE)
    with pytest.raises(UsageError, match="its predicted minimum is"):
        require_feasible(space, [budget])
    cost.require(space, SIZE)
    require_feasible(space, [budget])
    require_feasible(space, [replace(budget, limit=0.48 * least)])  # may be: predictions err
    with pytest.raises(UsageError, match="its predicted minimum is"):
        require_feasible(space, [replace(budget, limit=0.3 * least)])


def test_a_resumed_search_asks_the_device_which_table_is_its(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    """The newest table is of the device as it was in between, on battery."""
    built.save()
    simulated.version = "2"
    _build(space)
    simulated.version = "1"
    cost = LatencyCost("abacus")  # of a new process, which has asked for nothing yet
    architecture = space.sample(random.Random(0))
    assert (
        cost.measure([architecture], SIZE, Silent()) and cost.fitted(space, SIZE).table.fingerprint == built.fingerprint
    )


def test_a_table_of_other_files_is_not_used(
    simulated: Simulated, space: LayerwiseSpace, built: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is written in another form is another one, though its name and its device are the same."""
    built.save()
    assert LatencyCost("abacus").fitted(space, SIZE)
    add_target(load_target("abacus").model_copy(update={"profile": "openvino"}))
    with pytest.raises(HwnasError, match="no latency table"):
        LatencyCost("abacus").fitted(space, SIZE)
    with pytest.raises(HwnasError, match=r"there is one of profile onnxruntime-cpu, now openvino"):
        LatencyCost("abacus").require(space, SIZE)
    for changes in ({"threads": 4}, {"accelerator": "larger"}, {"provider": "gpu"}):
        add_target(simulated_target().model_copy(update=changes))
        with pytest.raises(HwnasError, match="no latency table"):
            LatencyCost("abacus").fitted(space, SIZE)
    add_target(simulated_target())
    assert LatencyCost("abacus").fitted(space, SIZE)
    monkeypatch.setattr(table_module, "GRAPHS", 99)
    with pytest.raises(HwnasError, match="no latency table"):
        LatencyCost("abacus").fitted(space, SIZE)


@pytest.mark.slow
def test_no_more_networks_are_together_than_memory_bears(
    cost: LatencyCost, simulated: Simulated, full_space: LayerwiseSpace, space: LayerwiseSpace, built: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    choices = LayerwiseDesign(full_space).held_out(20, (), seed=3)
    for side in (100, 1000, 2000, 8000):
        survey = Survey(size=(side, side), space=full_space, reference=choices[0])
        groups = building.batches(survey, choices)
        assert [c for group in groups for c in group] == choices
        most = max(MemoryCost().architecture_cost(survey.space.chosen(c), survey.size).value for c in choices)
        assert all(len(group) == 1 or (len(group) + 3) * most <= 2e9 for group in groups)
    survey = keep(built)
    monkeypatch.setattr(building, "_BATCH", 2)
    found = cost.measure([survey.space.chosen(n.choice) for n in survey.networks[:5]], SIZE, Silent())
    assert len(found) == 5 and simulated.most == 3 + 2 and simulated.sessions == 3


def test_the_minutes_that_are_announced_are_about_those_it_takes(
    simulated: Simulated, space: LayerwiseSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a device that takes its time, before the turns and in each of them."""
    simulated.seconds_per_file, simulated.seconds_per_turn = 0.1, 0.02
    with open_device(load_target("abacus")) as device:
        _, survey = building.open_survey(device, space, SIZE, device.probe().fingerprint)
        building.estimate_minutes(survey, device)  # what is loaded for the first network of the process
        announced = 60 * building.estimate_minutes(survey, device, calibration=6, rounds=5)
        started = time.monotonic()
        build_table(device, space, SIZE, Silent(), calibration=6, rounds=5)
    assert 0.4 < announced / (time.monotonic() - started) < 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: text.replace('"schema_version":1', '"schema_version":2'),
        lambda text: text.replace('"ratio":', '"ratio":-'),
        lambda text: re.sub(r'"ratio":[0-9.e-]+', '"ratio":1e-300', text),
        lambda text: re.sub(r'"cores":null', '"cores":NaN', text),
        lambda text: text.replace('"reference":[', '"reference":[99,'),
        lambda text: text.replace('"kind":"quantnas"', '"kind":"os.system"'),
        lambda text: text.replace('"fingerprint":{', '"fingerprint":{"more":1,'),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(
    damage: object, simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    table = built
    table.save()
    table.path.write_text(damage(table.path.read_text()))  # type: ignore[operator]
    with pytest.raises(HwnasError, match=rf"{table.path.name}.* damaged .*; delete it, and build it again"):
        find_tables("abacus")


def test_tables_can_be_given_away(
    simulated: Simulated, space: LayerwiseSpace, tmp_path: Path, built: LatencyTable
) -> None:
    """Nothing of the machine that built one is in it but its fingerprint."""
    table = built
    table.save()
    content = json.loads(table.path.read_text())
    assert str(tmp_path) not in table.path.read_text()
    assert set(content) == {
        "schema_version",
        "target",
        "fingerprint",
        "artifact",
        "profile",
        "accelerator",
        "graphs",
        "surveys",
    }
