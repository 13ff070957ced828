"""Costs and choices of small spaces against all that there is to choose from."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.budget import Budget, parse_budget
from hwnas.errors import UsageError
from hwnas.searches.trilevel.chains import best_chains
from hwnas.searches.trilevel.choices import Scores, TrilevelChoices
from hwnas.searches.trilevel.cost import CostTables, TrilevelCost
from hwnas.searches.trilevel.feasibility import cost_range
from hwnas.searches.trilevel.relaxation import PathRelaxation, RelaxedPaths
from hwnas.spaces import named_architecture
from hwnas.spaces.trilevel import TrilevelSpace, pack, unpack
from tests.trilevel.searching import everything, small_space

SPACES = {
    "tree b": small_space("trilevel-b", operators=("skip", "residual")),
    "tree a": small_space("trilevel-a", operators=("conv3x3", "dwsblock")),
    "trellis": small_space("autodeeplab", operators=("skip", "dwsblock"), scale=4),
    "fixed": small_space("agd", operators=("skip", "conv3x3", "residual", "dwsblock")),
}
BUDGETS = [parse_budget(text) for text in ("1GFLOPs@16x16", "1MParams", "1GBitOps@32x32")]


def scores(space: TrilevelSpace, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    cells = sum(module.kind == 0 for module in space.graph.modules)
    return Scores(
        rng.normal(size=len(space.graph.paths)),
        rng.normal(size=(cells, space.layers, len(space.operators))),
        rng.normal(size=(cells, space.layers - 1, len(space.widths))),
    )


@pytest.mark.parametrize("name", SPACES)
def test_a_space_has_as_many_networks_as_it_says_all_of_them_different(name: str) -> None:
    space = SPACES[name]
    choices = TrilevelChoices(space, scores(space, 0))
    every = list(everything(space))
    assert len(every) == space.size
    some = random.Random(0).sample(every, min(300, len(every)))
    assert len({choices.space.chosen(choice).fingerprint for choice in some}) == len(some)
    for choice in some[:20]:
        assert pack(*unpack(choice, space)) == choice


@pytest.mark.parametrize("name", SPACES)
def test_the_choice_of_a_network_is_the_one_that_made_it(name: str) -> None:
    space = SPACES[name]
    for choice in random.Random(0).sample(list(everything(space)), 30):
        assert space.has(choice) and space.choice_of(space.chosen(choice, "mine")) == choice
        for other in ((*choice, 0), choice[:-1], (len(space.graph.paths), *choice[1:]), (*choice[:-1], -1), ()):
            assert not space.has(other)


@pytest.mark.parametrize("change", [{"width": 8}, {"bicubic": True}, {"enlargement": 3}, {"trunk": True}])
def test_a_network_of_another_space_is_none_of_this_one(change: dict[str, object]) -> None:
    space = small_space("trilevel-a", network="fixed", path=(0, 0, 1))
    other = TrilevelSpace.model_validate(space.model_dump() | change)
    choice = random.Random(0).choice(list(everything(space)))
    assert space.choice_of(other.chosen(choice)) is None and other.choice_of(space.chosen(choice)) is None
    deeper, wider = small_space("trilevel-a", layers=3), small_space("trilevel-a", widths=(4, 6))
    assert space.choice_of(deeper.first) is None and space.choice_of(wider.sample(random.Random(3))) is None
    assert space.choice_of(named_architecture("espcn")) is None


@pytest.mark.parametrize("operators", [("conv3x3", "conv3x3_g1"), ("conv3x3_g2", "conv3x3_g02")])
def test_an_operator_that_is_named_twice_is_refused(operators: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="name each once"):
        small_space("trilevel-b", operators=operators)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_what_a_choice_is_said_to_cost_is_what_its_network_costs(name: str, budget: Budget) -> None:
    space = SPACES[name]
    choices = TrilevelChoices(space, scores(space, 0))
    price = choices.price(budget)
    for choice in random.Random(1).sample(list(everything(space)), 30):
        assert price(choice) == budget.model.architecture_cost(choices.space.chosen(choice), budget.input_size).value


@pytest.mark.parametrize("name", SPACES)
def test_the_least_and_the_most_of_a_space_are_those_of_its_networks(name: str) -> None:
    space, budget = SPACES[name], BUDGETS[0]
    choices = TrilevelChoices(space, scores(space, 0))
    costs = [choices.price(budget)(choice) for choice in everything(space)]
    reach = cost_range(space, budget)
    assert (reach.minimum, reach.maximum) == (min(costs), max(costs))


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_the_choice_is_the_best_of_all_within_budgets(name: str, seed: int, first: float, second: float) -> None:
    space = SPACES[name]
    choices = TrilevelChoices(space, scores(space, seed))
    flops, parameters, _ = BUDGETS
    every = list(everything(space))
    prices = [(choices.price(flops)(c), choices.price(parameters)(c)) for c in every]
    limits = [
        min(costs) + share * (max(costs) - min(costs))
        for share, costs in zip((first, second), zip(*prices, strict=True), strict=True)
    ]
    budgets = [replace(flops, limit=limits[0]), replace(parameters, limit=limits[1])]
    for count in (0, 1, 2):
        allowed = [
            choices.score(c)
            for c, price in zip(every, prices, strict=True)
            if all(p <= limit for p, limit in zip(price[:count], limits, strict=False))
        ]
        found = choices.best(budgets[:count])
        if not allowed:
            assert found is None
        else:
            assert found is not None and choices.score(found) == pytest.approx(max(allowed), abs=1e-6)
            assert all(choices.price(b)(found) <= b.limit for b in budgets[:count])
    cheap = [p[0] for p in prices if p[1] <= limits[1]]
    cheapest = choices.cheapest(flops, [budgets[1]])
    assert (cheapest is None) == (not cheap)
    assert cheapest is None or choices.price(flops)(cheapest) == min(cheap)


@pytest.mark.parametrize("name", SPACES)
def test_the_front_ends_with_the_likeliest_and_begins_with_the_cheapest(name: str) -> None:
    space, budget = SPACES[name], BUDGETS[0]
    choices = TrilevelChoices(space, scores(space, 5))
    front = choices.front(budget, [], 6)
    price = choices.price(budget)
    every = list(everything(space))
    assert price(front[0]) == min(map(price, every))
    assert choices.score(front[-1]) == pytest.approx(max(map(choices.score, every)))
    costs, values = [price(c) for c in front], [choices.score(c) for c in front]
    assert costs == sorted(costs) and values == sorted(values)
    for choice in front:
        assert not any(price(c) <= price(choice) and choices.score(c) > choices.score(choice) + 1e-6 for c in every)


def test_chains_keep_what_nothing_beats_in_two_costs_at_once() -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 1, 4), (3, 4, 4), (3, 4, 1)]
    gains = [rng.normal(size=shape) for shape in shapes]
    prices = [[rng.integers(1, 50, size=shape).astype(float) for shape in shapes] for _ in range(2)]
    found = best_chains(gains, prices)
    every = [
        (
            prices[0][0][a, 0, j] + prices[0][1][b, j, k] + prices[0][2][c, k, 0],
            prices[1][0][a, 0, j] + prices[1][1][b, j, k] + prices[1][2][c, k, 0],
            gains[0][a, 0, j] + gains[1][b, j, k] + gains[2][c, k, 0],
        )
        for a in range(3)
        for b in range(3)
        for c in range(3)
        for j in range(4)
        for k in range(4)
    ]
    best = {p for p in every if not any(q[0] <= p[0] and q[1] <= p[1] and q[2] >= p[2] and q != p for q in every)}
    there = {(*costs, score) for costs, score in zip(found.costs.tolist(), found.scores.tolist(), strict=True)}
    assert {tuple(np.round(p, 9)) for p in there} == {tuple(np.round(p, 9)) for p in best}


# Expected costs


def relaxed_of(space: TrilevelSpace, seed: int) -> RelaxedPaths:
    torch.manual_seed(seed)
    paths = PathRelaxation(space.graph, "softmax", "none", 0.0)
    cells = sum(module.kind == 0 for module in space.graph.modules)
    operators = torch.randn(cells, space.layers, len(space.operators), dtype=torch.float64).softmax(-1)
    widths = torch.randn(cells, space.layers - 1, len(space.widths), dtype=torch.float64).softmax(-1)
    return RelaxedPaths(*paths(torch.randn(paths.size, dtype=torch.float64), 0.0), operators, widths)


@pytest.mark.parametrize("name", SPACES)
def test_the_expected_cost_is_the_mean_over_all_networks(name: str) -> None:
    space, budget = SPACES[name], BUDGETS[0]
    relaxed = relaxed_of(space, 0)
    logs = Scores(*(part.log().numpy() for part in (relaxed.paths, relaxed.operators, relaxed.widths)))
    choices = TrilevelChoices(space, logs)
    price = choices.price(budget)
    every = list(everything(space))
    probabilities = [math.exp(choices.score(choice)) for choice in every]
    assert sum(probabilities) == pytest.approx(1)
    mean = sum(p * price(choice) for p, choice in zip(probabilities, every, strict=True))
    cost = TrilevelCost(CostTables(space, budget), relaxed_of(space, 1))
    assert cost.value(relaxed) == pytest.approx(mean, rel=1e-9)


def test_the_expected_cost_of_a_tree_is_that_of_its_nodes_from_the_root() -> None:
    space, budget = SPACES["tree b"], BUDGETS[0]
    relaxed = relaxed_of(space, 2)
    cost = TrilevelCost(CostTables(space, budget), relaxed)
    alone = []
    for i in range(len(space.graph.paths)):
        one = torch.zeros(len(space.graph.paths), dtype=torch.float64)
        one[i] = 1
        modules = torch.zeros(len(space.graph.modules), dtype=torch.float64)
        modules[list(space.graph.members[i])] = 1
        alone.append(cost.value(replace(relaxed, paths=one, modules=modules)))
    assert cost.value(relaxed) == pytest.approx(float(relaxed.paths @ torch.tensor(alone, dtype=torch.float64)))


def test_the_expected_cost_has_the_gradient_of_finite_differences() -> None:
    space, budget = SPACES["tree a"], BUDGETS[0]
    relaxed = relaxed_of(space, 3)
    cost = TrilevelCost(CostTables(space, budget), relaxed)

    def of(operators: torch.Tensor, widths: torch.Tensor, modules: torch.Tensor) -> torch.Tensor:
        return cost.normalised(replace(relaxed, operators=operators, widths=widths, modules=modules))

    inputs = tuple(t.clone().requires_grad_() for t in (relaxed.operators, relaxed.widths, relaxed.modules))
    assert torch.autograd.gradcheck(of, inputs)
