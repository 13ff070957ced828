"""Latency tables of trilevel spaces: few numbers tell of many operators, and a search is held to a budget in time."""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.budget import Budget
from hwnas.cli.runs import new_config
from hwnas.cli.settings import space_settings
from hwnas.cost_models import cost_model
from hwnas.cost_models.target import target_cost_model
from hwnas.devices import open_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.untrained import write_untrained
from hwnas.latency.build import build_table
from hwnas.latency.cost import LatencyCost, build_command
from hwnas.latency.fit import fit
from hwnas.latency.table import LatencyTable, MeasuredNetwork, Survey
from hwnas.latency.trilevel import TrilevelDesign
from hwnas.pipeline import space_of
from hwnas.progress import Silent
from hwnas.searches.differentiable.measured import derive_measured
from hwnas.searches.trilevel.choices import Scores, TrilevelChoices
from hwnas.searches.trilevel.feasibility import cost_range, require_feasible
from hwnas.searches.trilevel.search import Trilevel
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import Choice
from hwnas.spaces.trilevel import TrilevelSpace
from tests.trilevel.searching import everything, small_space, small_task

from .simulated import SIZE, SimulatedDevice, true_ms

CPU = load_target("cpu")
NAMES = ["trilevel-a", "trilevel-b", "autodeeplab", "agd"]

Simulated = type[SimulatedDevice]


def of_tiny(name: str, **options: object) -> TrilevelSpace:
    """A space as the preset tiny has it."""
    space = SPACES[name](SpaceOptions.model_validate({"cells": 3, "channels": 16, "layers": 3} | options))
    assert isinstance(space, TrilevelSpace)
    return space


Times = Callable[[Choice], float]


def plausible_times(space: TrilevelSpace, seed: int) -> Times:
    """Milliseconds of networks whose operators take time for being there, for what they read and write, and compute."""
    rng, macs = random.Random(seed), cost_model("flops").operator_cost
    speeds: dict[tuple[object, ...], list[float]] = {}

    def ms(choice: Choice) -> float:
        total, network = 20.0, space.chosen(choice)
        for slot in network.wiring.slots:
            spec, area = network.operators[slot.name], slot.resolution**2
            if slot.name.startswith("cell"):
                key = spec.kind, spec.kernel, slot.resolution
                layer, read, write, multiply = speeds.setdefault(key, [rng.uniform(0.2, 1) for _ in range(4)])
                amounts = spec.in_channels * read + spec.out_channels * write + macs(spec, (1, 1)) * multiply / 50
                total += layer + area * amounts / 16
            elif slot.name.startswith("up"):
                total += 3.0
        return total

    return ms


def survey_of(space: TrilevelSpace, times: Times, noise: float = 0.0, calibration: int = 40) -> Survey:
    rng, survey = random.Random(0), Survey.begun(space, SIZE, CPU)
    purposes = dict.fromkeys(survey.design.calibration(calibration), "calibration")
    purposes |= dict.fromkeys(survey.design.operators(survey.reference), "operator")
    purposes.pop(survey.reference, None)
    whole = times(survey.reference)
    networks = [
        MeasuredNetwork.model_validate(
            {"choice": c, "why": why, "rounds": 9, "ratio": times(c) / whole * (1 + rng.gauss(0, noise))}
        )
        for c, why in purposes.items()
    ]
    return survey.with_networks(networks).model_copy(update={"reference_ms": (whole,)})


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_is_measured_at_every_resolution(name: str) -> None:
    space = of_tiny(name)
    design = TrilevelDesign(space)
    chosen = design.operators(design.reference(CPU))
    assert len(chosen) == len(set(chosen)) and all(space.has(choice) for choice in chosen)
    there, wanted = set(), set()
    for choice in [*chosen, design.reference(CPU)]:
        network = space.chosen(choice)
        there |= {(s.kind, s.kernel, slot.resolution) for slot, s in _of_cells(network)}
    rng = random.Random(0)
    for network in (space.sample(rng) for _ in range(100)):
        wanted |= {(s.kind, s.kernel, slot.resolution) for slot, s in _of_cells(network)}
    assert wanted <= there


def _of_cells(network):  # type: ignore[no-untyped-def]
    return [(slot, network.operators[slot.name]) for slot in network.wiring.slots if slot.name.startswith("cell")]


def test_networks_at_random_have_all_paths_equally_often() -> None:
    space = of_tiny("trilevel-b")
    paths = [choice[0] for choice in TrilevelDesign(space).calibration(2 * len(space.graph.paths))]
    assert sorted(paths) == sorted([*range(len(space.graph.paths))] * 2)
    few = [choice[0] for choice in TrilevelDesign(space).calibration(6)]
    assert len(set(few)) == 6 and max(few) > 6, "not only the shortest"


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", NAMES)
def test_times_that_are_plausible_are_found(name: str, bits: int) -> None:
    """Of networks that were not measured; about one operator in five was."""
    space = of_tiny(name, bits=(bits,))
    times = plausible_times(space, seed=3)
    survey = survey_of(space, times)
    model = fit(survey, CPU)
    assert survey.is_complete and min(model.operators.values()) >= 0
    for choice in survey.design.held_out(30, (network.choice for network in survey.networks), seed=1):
        assert model.predict(space.chosen(choice)) == pytest.approx(times(choice), rel=1e-2)
    assert model.uncertainty is not None and model.uncertainty < 1e-2


KERNELS = {"conv_cell": 1, "residual_block": 3, "depthwise_block": 4}


def launches(space: TrilevelSpace) -> Times:
    """Milliseconds where starting kernels is what takes time, as of small networks on a GPU."""
    macs = cost_model("flops").operator_cost

    def ms(choice: Choice) -> float:
        total, network = 0.5, space.chosen(choice)
        for slot in network.wiring.slots:
            spec = network.operators[slot.name]
            if slot.name.startswith("cell"):
                total += 0.05 * KERNELS[spec.kind] + 2e-8 * macs(spec, (1, 1)) * slot.resolution**2
            elif slot.name.startswith("up"):
                total += 0.05
        return total

    return ms


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("agd", {}),
        ("autodeeplab", {}),
        ("trilevel-a", {"cells": 1}),
        ("trilevel-b", {"network": "fixed", "path": (0, 0, 0)}),
        ("trilevel-b", {"network": "trellis"}),
    ],
)
def test_where_all_networks_have_as_many_cells_sums_are_right_too(name: str, options: dict[str, object]) -> None:
    """There a layer's time and the time that all take are not to be told apart, and neither may be negative."""
    space = of_tiny(name, **options)
    times = launches(space)
    survey = survey_of(space, times)
    model = fit(survey, CPU)
    assert model.constant > 0 and min(model.operators.values()) >= 0
    choices = survey.design.held_out(50, (network.choice for network in survey.networks), seed=1)
    errors = [model.predict(space.chosen(choice)) / times(choice) - 1 for choice in choices]
    assert model.uncertainty is not None and model.uncertainty < 0.03
    assert abs(np.mean(errors)) < 0.005 and np.mean(np.abs(errors) <= 1.5 * model.uncertainty) >= 0.9


def test_what_no_kind_explains_is_told_of_each_operator() -> None:
    """Vectors of eight channels take as long half filled, and what reads sixteen is twice as slow for no reason."""
    space = of_tiny("trilevel-b")

    def ms(choice: Choice) -> float:
        total, network = 3.0, space.chosen(choice)
        for slot in network.wiring.slots:
            spec = network.operators[slot.name]
            if slot.name.startswith("cell"):
                rows = -(-spec.in_channels // 8) * -(-spec.out_channels // 8)
                total += rows * (0.4 if spec.in_channels == 16 else 0.2) * KERNELS[spec.kind] * spec.kernel / 3
        return total

    survey = survey_of(space, ms, calibration=200)
    model = fit(survey, CPU)
    choices = survey.design.held_out(50, (network.choice for network in survey.networks), seed=1)
    errors = [model.predict(space.chosen(choice)) / ms(choice) - 1 for choice in choices]
    assert np.mean(np.abs(errors)) < 0.02


def test_noise_is_told() -> None:
    space = of_tiny("trilevel-b")
    times = plausible_times(space, seed=3)
    noisy = fit(survey_of(space, times, noise=0.05, calibration=100), CPU)
    assert noisy.uncertainty is not None and 0.08 < noisy.uncertainty < 0.2
    assert min(noisy.operators.values()) == 0, "what is cheap may be noise, and takes no time rather than less"
    assert fit(survey_of(space, times, noise=0.05, calibration=18), CPU).uncertainty is None


def test_the_uncertainty_is_that_of_networks_left_out_of_the_fit() -> None:
    space = of_tiny("trilevel-a")
    survey = survey_of(space, plausible_times(space, seed=3), noise=0.05, calibration=19)
    errors = []
    for left_out in survey.networks:
        if left_out.why == "calibration":
            others = tuple(network for network in survey.networks if network is not left_out)
            without = fit(survey.model_copy(update={"networks": others}), CPU)
            errors.append(abs(1 - without.predict(space.chosen(left_out.choice)) / (left_out.ratio * survey.ms)))
    found = fit(survey, CPU).uncertainty
    assert found == pytest.approx(max(errors), rel=1e-2)


def test_what_is_not_complete_is_not_fitted() -> None:
    space = of_tiny("trilevel-b")
    survey = survey_of(space, plausible_times(space, seed=3))
    few = survey.model_copy(update={"networks": survey.networks[:45]})
    assert not few.is_complete
    with pytest.raises(HwnasError, match="lacks .* networks that tell operators; go on with building it"):
        fit(few, CPU)


def test_a_survey_is_read_as_it_was_written_and_its_choices_are_checked() -> None:
    space = of_tiny("trilevel-a")
    survey = survey_of(space, plausible_times(space, seed=3))
    text = survey.model_dump_json()
    again = Survey.model_validate_json(text)
    assert again == survey and again.covers(space.model_copy(update={"name": "mine"}), SIZE)
    assert not again.covers(of_tiny("trilevel-a", layers=2), SIZE) and not again.covers(space, (9, 9))
    for wrong in ([99, *survey.reference[1:]], survey.reference[:-1], [], [0, *[9] * 5], [-1, *survey.reference[1:]]):
        with pytest.raises(ValueError, match="no network of the space"):
            Survey.model_validate({**survey.model_dump(mode="json"), "reference": wrong})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in NAMES),
        ("trilevel-a", {"network": "fixed", "path": (0, 1, 0, 1), "bicubic": True}),
        ("trilevel-b", {"network": "trellis", "widths": (4, 6), "operators": ("skip", "conv3x3_g2"), "bits": (8,)}),
        ("agd", {"cells": 2, "scale": 3}),
    ],
)
def test_the_command_that_is_told_is_of_the_same_space(name: str, options: dict[str, object]) -> None:
    space = of_tiny(name, **options)
    words = shlex.split(build_command("cpu", space, SIZE))
    assert words[:3] == ["hwnas", "table", "build"] and ("--set" in words)
    given: dict[str, object] = {"assignments": []}
    rest = iter(words[3:])
    for word in rest:
        if word.endswith("bicubic"):
            given["bicubic"] = word == "--bicubic"
        elif word == "--set":
            given["assignments"].append(next(rest))  # type: ignore[attr-defined]
        else:
            value = next(rest)
            given[word[2:].replace("-", "_")] = int(value) if value.isdigit() and word != "--bits" else value
    assert space_of(new_config(space_settings(**given))) == space  # type: ignore[arg-type]


@pytest.fixture
def space() -> TrilevelSpace:
    """Of one resolution, since the simulated device counts weights."""
    return small_space("trilevel-b", cells=1, operators=("skip", "conv3x3", "residual"))


@pytest.fixture
def built(space: TrilevelSpace, simulated: Simulated) -> Iterator[LatencyTable]:
    simulated.drift = simulated.outliers = 0.0
    target_cost_model.cache_clear()
    with open_device(load_target("abacus")) as device:
        yield build_table(device, space, SIZE, Silent(), calibration=19, rounds=3)[0]
    target_cost_model.cache_clear()


def _truth(space: TrilevelSpace, folder: Path) -> dict[Choice, float]:
    path, found = folder / "network.onnx", {}
    for choice in everything(space):
        write_untrained(space.chosen(choice), CPU, SIZE, path)
        found[choice] = true_ms(path)
    return found


def test_costs_of_a_space_are_those_of_its_table(space: TrilevelSpace, built: LatencyTable, tmp_path: Path) -> None:
    budget = Budget("latency@abacus", 2.0, SIZE)
    truth, cells = _truth(space, tmp_path), len(space.graph.cells)
    choices = TrilevelChoices(
        space,
        Scores(
            np.zeros(len(space.graph.paths)),
            np.zeros((cells, space.layers, len(space.operators))),
            np.zeros((cells, space.layers - 1, len(space.widths))),
        ),
    )
    price = choices.price(budget)
    for choice, ms in truth.items():
        assert price(choice) == pytest.approx(ms, rel=0.03)
        assert budget.model.architecture_cost(space.chosen(choice), SIZE).value == pytest.approx(price(choice))
    reach = cost_range(space, budget)
    assert reach.minimum == pytest.approx(min(map(price, truth))) and reach.maximum == pytest.approx(
        max(map(price, truth))
    )


def test_a_search_meets_a_budget_in_time(
    space: TrilevelSpace, built: LatencyTable, simulated: Simulated, tmp_path: Path
) -> None:
    """By what is measured, on a device that has become slower since; the front says both."""
    truth = _truth(space, tmp_path)
    simulated.speed = 1.5
    limit = 1.5 * sorted(truth.values())[len(truth) // 3] + 1e-6
    task = small_task(tmp_path / "run", [f"{limit}ms@{SIZE[0]}x{SIZE[1]}"], space, target="abacus")
    Trilevel().check(space, task.budgets, task.settings)
    found = Trilevel().run(task)
    choice = space.choice_of(found.chosen)
    assert choice is not None and 1.5 * truth[choice] <= limit
    (chosen,) = [one for one in found.front if one.architecture.fingerprint == found.chosen.fingerprint]
    assert chosen.measured["latency@abacus"] == pytest.approx(1.5 * truth[choice], rel=1e-3)


def test_of_the_networks_within_the_likeliest_is_chosen(
    space: TrilevelSpace, built: LatencyTable, tmp_path: Path
) -> None:
    truth, rng = _truth(space, tmp_path), np.random.default_rng(0)
    cells = len(space.graph.cells)
    choices = TrilevelChoices(
        space,
        Scores(
            rng.normal(size=len(space.graph.paths)),
            rng.normal(size=(cells, space.layers, len(space.operators))),
            rng.normal(size=(cells, space.layers - 1, len(space.widths))),
        ),
    )
    ordered = sorted(truth.values())
    for share in (0.1, 0.5, 0.9):
        place = int(share * len(ordered))
        limit = sum(ordered[place : place + 2]) / 2
        task = small_task(tmp_path / str(share), [f"{limit}ms@{SIZE[0]}x{SIZE[1]}"], space, target="abacus")
        derived = derive_measured(task, choices)
        assert derived.chosen == max((c for c, ms in truth.items() if ms <= limit), key=choices.score)


def test_without_a_table_the_command_is_told_before_anything_is_trained(
    space: TrilevelSpace, simulated: Simulated, tmp_path: Path
) -> None:
    target_cost_model.cache_clear()
    task = small_task(tmp_path, [f"2ms@{SIZE[0]}x{SIZE[1]}"], space, target="abacus")
    with pytest.raises(HwnasError, match=r"hwnas table build .* --space trilevel-b .*; that takes about \d+ minute"):
        Trilevel().check(space, task.budgets, task.settings)


def test_a_time_that_nothing_takes_is_refused_with_what_is_predicted(
    space: TrilevelSpace, built: LatencyTable, tmp_path: Path
) -> None:
    task = small_task(tmp_path, [f"0.001ms@{SIZE[0]}x{SIZE[1]}"], space, target="abacus")
    with pytest.raises(UsageError, match="its predicted minimum is"):
        Trilevel().check(space, task.budgets, task.settings)


def test_what_predictions_may_be_off_by_is_for_the_device_to_decide(simulated: Simulated) -> None:
    target_cost_model.cache_clear()
    space, budget = of_tiny("trilevel-b"), Budget("latency@abacus", 100.0, SIZE)
    target = load_target("abacus")
    with open_device(target) as device:
        table = LatencyTable.empty(target, device.probe().fingerprint)
    table.with_survey(survey_of(space, plausible_times(space, seed=3), noise=0.03)).save()
    minimum, known = cost_range(space, budget).minimum, budget.model.prediction(space.first, SIZE)
    assert known is not None and known.uncertainty
    require_feasible(space, [replace(budget, limit=minimum / (1 + 0.9 * known.uncertainty))])
    with pytest.raises(UsageError, match="its predicted minimum is"):
        require_feasible(space, [replace(budget, limit=minimum / (1 + 1.1 * known.uncertainty))])


def test_there_are_no_tables_of_networks_of_genes(simulated: Simulated) -> None:
    genes = SPACES["falsr"](SpaceOptions())
    with pytest.raises(UsageError, match="spaces as those of quantnas and trilevel, which falsr is not"):
        LatencyCost("abacus").prices(genes, SIZE)
