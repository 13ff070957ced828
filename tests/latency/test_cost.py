"""Latency as a cost: what is predicted from a table, and what a device says to that."""

from __future__ import annotations

import random

import pytest

from hwnas.budget import parse_budget
from hwnas.errors import HwnasError
from hwnas.latency.cost import LatencyCost, build_command
from hwnas.latency.table import LatencyTable, find_tables
from hwnas.progress import Silent
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import LayerwiseSpace

from .simulated import SIZE, SimulatedDevice, keep

Simulated = type[SimulatedDevice]


def test_costs_are_those_of_the_table(cost: LatencyCost, space: LayerwiseSpace, built: LatencyTable) -> None:
    survey = keep(built)
    architecture = survey.space.chosen(survey.networks[-1].choice)
    found = cost.architecture_cost(architecture, SIZE)
    assert found.value == pytest.approx(survey.networks[-1].ratio * survey.ms, rel=0.05)
    assert sum(layer.value for layer in found.layers) == pytest.approx(found.value)
    table, choice = cost.table(space, SIZE), dict(zip(space.choices, survey.networks[-1].choice, strict=True))
    whole = cost.space_constant(space, SIZE) + sum(table[layer][i] for layer, i in choice.items())
    assert whole == pytest.approx(found.value)
    assert min(min(row) for row in table.values()) >= 0
    slot = space.wiring.slots[3]
    one = cost.operator_cost(space.choices[slot.name][2], SIZE)
    assert slot.count * one == pytest.approx(table[slot.name][2])


def test_what_no_table_has_says_which_command_builds_it(
    cost: LatencyCost, space: LayerwiseSpace, built: LatencyTable
) -> None:
    with pytest.raises(HwnasError, match=r"no latency table of target abacus.*hwnas table build --target abacus"):
        cost.table(space, SIZE)
    with pytest.raises(HwnasError, match=r"hwnas table build .*; that takes about \d+ minutes?"):
        cost.require(space, SIZE)
    built.save()
    cost.require(space, SIZE)
    with pytest.raises(HwnasError, match="at 9x9"):
        cost.table(space, (9, 9))
    other = SPACES["quantnas"](SpaceOptions(cells=2, channels=6, scale=2, bits=(32,)))
    with pytest.raises(HwnasError, match="--cells 2 --channels 6 --residual adadm --no-bicubic"):
        cost.table(other, SIZE)
    with pytest.raises(HwnasError, match="hwnas profile"):
        cost.architecture_cost(other.first, SIZE)
    with pytest.raises(HwnasError, match="hwnas table build"):
        cost.operator_cost(space.choices["head.0"][0], (99, 99))


def test_the_command_names_the_space_as_it_is(space: LayerwiseSpace) -> None:
    command = build_command("cpu", space, (90, 160))
    assert command == (
        "hwnas table build --target cpu --input-size 90x160 --space quantnas --scale 2 --bits 32 --cells 1 "
        "--channels 6 --residual adadm --no-bicubic"
    )


def test_measuring_corrects_what_is_predicted(
    cost: LatencyCost, simulated: Simulated, space: LayerwiseSpace, built: LatencyTable
) -> None:
    built.save()
    simulated.speed, simulated.drift, simulated.outliers = 2.0, 0.0, 0.0
    architectures = [space.sample(random.Random(i)) for i in range(3)]
    before = cost.architecture_cost(architectures[0], SIZE).value
    measured = cost.measure(architectures, SIZE, Silent())
    after = [cost.architecture_cost(architecture, SIZE).value for architecture in architectures]
    assert after[0] == pytest.approx(2 * before, rel=0.1)
    assert after == pytest.approx(measured, rel=0.1)
    (table,) = find_tables("abacus")
    survey, before_it = table.surveys[0], {n.choice: n.why for n in built.surveys[0].networks}
    for network in survey.networks:
        assert network.why == before_it.get(network.choice, "search"), "those at random tell of the uncertainty"
    choices = {survey.space.choice_of(architecture) for architecture in architectures} - {survey.reference}
    assert choices <= {network.choice for network in survey.networks} and choices - set(before_it)


def test_a_budget_in_time_is_of_the_target(simulated: Simulated) -> None:
    budget = parse_budget("8ms@90x160", target="abacus")
    assert (budget.metric, budget.limit, budget.input_size) == ("latency@abacus", 8.0, (90, 160))
    assert str(parse_budget("1200ms", target="abacus")) == "1200 ms at 180x320"
    assert str(budget) == "8 ms at 90x160"
