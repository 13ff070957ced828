"""What candidates cost, and what they can cost at all, against whole networks and brute force."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.budget import parse_budgets
from hwnas.cost_models import COST_MODELS, CostModel, cost_model
from hwnas.errors import UsageError
from hwnas.operators import OperatorSpec
from hwnas.searches import SEARCHES
from hwnas.searches.falsr.costs import CandidateCosts
from hwnas.searches.falsr.feasibility import DISTINCT, cheapest_chains, dearest
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.sizes import Size
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.falsr import CELLS, FALSRSpace, Genotype

METRICS = ("flops", "params", "bitops", "effective-bitops@jetson", "memory")


def falsr(**options: object) -> FALSRSpace:
    space = SPACES["falsr"](SpaceOptions.model_validate(options))
    assert isinstance(space, FALSRSpace)
    return space


SPACE = falsr(cells=3, bits=(8,), scale=3)
COSTS = CandidateCosts(SPACE, [(cost_model(metric), (24, 40)) for metric in METRICS])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_costs_from_genes_are_those_of_the_network(seed: int) -> None:
    genotype = SPACE.sample_genotype(random.Random(seed))
    architecture = SPACE.architecture(genotype)
    expected = [cost_model(metric).architecture_cost(architecture, (24, 40)).value for metric in METRICS]
    assert list(COSTS(genotype)) == expected


class _Quadratic(CostModel):
    """Adds up over operators, but is no line in the channels they read."""

    name = "quadratic"
    unit = "Squares"
    default_input_size: Size = (8, 8)
    budget_units = ()

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return spec.in_channels**2


def test_a_cost_that_is_no_line_is_asked_for_at_each_width() -> None:
    model = _Quadratic()
    costs = CandidateCosts(SPACE, [(model, (8, 8))])
    rng = random.Random(3)
    for _ in range(20):
        genotype = SPACE.sample_genotype(rng)
        assert costs(genotype) == (model.architecture_cost(SPACE.architecture(genotype), (8, 8)).value,)


class _Padded(CostModel):
    """Channels are padded to multiples of 32, as tensor cores do."""

    name = "padded"
    unit = "Channels"
    default_input_size: Size = (8, 8)

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return math.ceil(spec.in_channels / 32) * 32


def test_a_cost_of_padded_channels_is_no_line_either() -> None:
    costs, rng = CandidateCosts(SPACE, [(_Padded(), (8, 8))]), random.Random(4)
    for _ in range(50):
        genotype = SPACE.sample_genotype(rng)
        assert costs(genotype) == (_Padded().architecture_cost(SPACE.architecture(genotype), (8, 8)).value,)


def everyone(cells: int) -> list[Genotype]:
    """All networks of a few of the cells."""
    few = [DISTINCT[i] for i in (0, 17, 40, 77, 101, 130, 159)]
    bits = cells * (cells + 1) // 2
    found = []
    for chosen in itertools.product(few, repeat=cells):
        for macro in itertools.product((0, 1), repeat=bits):
            rows, left = [], list(macro)
            for i in range(cells):
                rows.append(tuple(left[: cells - i]))
                left = left[cells - i :]
            found.append(Genotype(chosen, tuple(rows)))
    return found


def test_the_cheapest_and_the_dearest_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [DISTINCT[i] for i in (0, 17, 40, 77, 101, 130, 159)]
    monkeypatch.setattr("hwnas.searches.falsr.feasibility.DISTINCT", few)
    space = falsr(cells=2)
    costs = CandidateCosts(space, [(cost_model("flops"), (16, 16)), (cost_model("params"), (16, 16))])
    all_costs = [costs(genotype) for genotype in everyone(2)]
    chains = cheapest_chains(costs)
    for term in range(2):
        assert min(price[term] for price, _ in chains) == min(cost[term] for cost in all_costs)
        assert dearest(costs, term) == max(cost[term] for cost in all_costs)
    for price, genotype in chains:
        assert costs(genotype) == price
    # Whatever the two limits are: a chain is within both if any network is.
    rng = random.Random(0)
    for _ in range(200):
        limits = [rng.choice(all_costs)[0] * 1.01, rng.choice(all_costs)[1] * 1.01]
        fits = any(all(c <= limit for c, limit in zip(cost, limits, strict=True)) for cost in all_costs)
        chain_fits = any(all(c <= limit for c, limit in zip(price, limits, strict=True)) for price, _ in chains)
        assert fits == chain_fits


def refused(*budgets: str, **options: object) -> str:
    with pytest.raises(UsageError) as error:
        SEARCHES["falsr"].check(falsr(**options), parse_budgets(budgets), FALSRSettings())
    return str(error.value)


def test_a_budget_that_nothing_meets_is_refused_with_the_nearest_that_something_does() -> None:
    message = refused("5KParams")
    assert "no architecture of space falsr meets 5 kParams: its minimum is 5.658 kParams" in message
    SEARCHES["falsr"].check(falsr(), parse_budgets(["5.658KParams"]), FALSRSettings())
    # The smallest FALSR network: seven 1x1 convolutions of 16 filters in 4 groups, counted by hand.
    smallest = (9 * 32 + 32) + (32 * 16 // 4 + 16) + 6 * (16 * 16 // 4 + 16) + (9 * 16 * 32 + 32) + (9 * 8 + 1)
    assert smallest == 5657


def test_budgets_that_cannot_be_met_together_are_refused_with_the_nearest() -> None:
    # Bits trade with nothing here: parameters and multiply-accumulates fall together, up to what stands at the ends.
    class Odd(CostModel):
        name = "odd"
        unit = "Odds"
        default_input_size: Size = (8, 8)
        budget_units = ("Odds",)

        def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
            return 1.0 if spec.kernel == 3 else 10.0

    COST_MODELS.register("odd")(Odd())
    try:
        message = refused("12Odds", "6KParams", cells=7)
        assert "12 Odds at 8x8 and 6 kParams can be met in space falsr, but not all together" in message
        nearest = message.split("the nearest is ")[1]
        raised = nearest.split(" in the place of")[0]
        other = "6KParams" if "Odds" in raised else "12Odds"
        SEARCHES["falsr"].check(falsr(), parse_budgets([raised.replace(" ", ""), other]), FALSRSettings())
    finally:
        COST_MODELS.remove("odd")


@pytest.mark.slow
def test_the_range_of_a_space_holds_its_networks() -> None:
    (budget,) = parse_budgets(["1GFLOPs@100x100"])
    reach = SEARCHES["falsr"].cost_range(falsr(), budget)
    assert reach.centre is not None and reach.maximum is not None
    rng = random.Random(1)
    values = [budget.model.architecture_cost(falsr().sample(rng), budget.input_size).value for _ in range(30)]
    assert reach.minimum <= min(values) and max(values) <= reach.maximum
    assert reach.centre == pytest.approx(math.fsum(values) / 30, rel=0.3)


def test_another_space_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="falsr searches the spaces falsr and falsr-rgb, not quantnas"):
        SEARCHES["falsr"].check(SPACES["quantnas"](SpaceOptions()), (), FALSRSettings())
    with pytest.raises(UsageError, match="falsr is not"):
        SEARCHES["quantnas"].check(falsr(), parse_budgets(["1GFLOPs"]), SEARCHES["quantnas"].Settings())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": 8}, "has no channels"),
        ({"residual": "adadm"}, "has no residual"),
        ({"bits": (4, 8)}, "one bit width for all layers"),
        ({"bits": (9,)}, "weight_bits = 9 is not supported"),
        ({"cells": 0}, "cells"),
        ({"cells": 33}, "cells"),
        ({"scale": 5}, "enlargement"),
    ],
)
def test_an_option_that_the_space_does_not_have_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        falsr(**options)


def test_the_size_of_the_space_is_the_papers_less_what_is_the_same() -> None:
    assert falsr().size == 160**7 * 2**28
    assert len({cell.canonical for cell in CELLS}) == 160


def test_samples_are_of_the_space_and_as_many_as_asked_for() -> None:
    rng = random.Random(0)
    sampled = [falsr(cells=2, bits=(8,)).sample(rng) for _ in range(200)]
    assert len({architecture.fingerprint for architecture in sampled}) > 190
    assert all(architecture.is_fully_quantised for architecture in sampled)
