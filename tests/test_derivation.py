"""Against brute force on small problems, and against the limit on real ones."""

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hwnas.budget import Budget, parse_budget, parse_budgets
from hwnas.cost_models import cost_model
from hwnas.errors import UsageError
from hwnas.operators import OperatorSpec
from hwnas.searches.derivation import CostLimit, derive, derive_front
from hwnas.searches.feasibility import cost_range, require_feasible
from hwnas.spaces import SPACES, LayerwiseSpace, SpaceOptions

Problem = dict[str, list[float]]


def random_problem(rng: random.Random) -> Problem:
    """Log-probabilities of a softmax, for up to five layers of up to five candidates."""
    problem = {}
    for layer in range(rng.randint(1, 5)):
        logits = torch.tensor([rng.gauss(0, 2) for _ in range(rng.randint(1, 5))], dtype=torch.float64)
        problem[f"layer.{layer}"] = logits.log_softmax(0).tolist()
    return problem


def random_table(rng: random.Random, problem: Problem, whole: bool) -> Problem:
    def draw() -> float:
        return rng.choice([0, rng.randint(1, 20), 1024 * rng.randint(1, 10**6)]) if whole else rng.uniform(0.01, 10)

    return {layer: [draw() for _ in row] for layer, row in problem.items()}


def all_choices(problem: Problem) -> list[dict[str, int]]:
    ranges = [range(len(row)) for row in problem.values()]
    return [dict(zip(problem, indices, strict=True)) for indices in itertools.product(*ranges)]


def score(problem: Problem, choice: dict[str, int]) -> float:
    return math.fsum(problem[layer][i] for layer, i in choice.items())


def brute_force(problem: Problem, limits: Sequence[CostLimit]) -> float | None:
    """The best attainable score, if any choice is within the limits."""
    return max(
        (score(problem, c) for c in all_choices(problem) if all(limit.cost(c) <= limit.limit for limit in limits)),
        default=None,
    )


@pytest.mark.parametrize("whole", [True, False], ids=["integer costs", "float costs"])
@pytest.mark.parametrize("count", [1, 2], ids=["one limit", "two limits"])
@pytest.mark.parametrize("attained", [True, False], ids=["limit attained", "limit anywhere"])
def test_the_derived_choice_is_the_best_that_brute_force_finds(whole: bool, count: int, attained: bool) -> None:
    infeasible = 0
    for seed in range(50):
        rng = random.Random(seed)
        problem = random_problem(rng)
        limits = []
        for _ in range(count):
            table = random_table(rng, problem, whole)
            costs = sorted(CostLimit(table, 0).cost(c) for c in all_choices(problem))
            limit = rng.choice(costs) if attained else rng.uniform(costs[0] * 0.9, costs[-1] * 1.05)
            limits.append(CostLimit(table, limit))
        best, chosen = brute_force(problem, limits), derive(problem, limits)
        if best is None:
            infeasible += 1
            assert chosen is None
        else:
            assert chosen is not None
            assert all(limit.cost(chosen) <= limit.limit for limit in limits)
            assert score(problem, chosen) == pytest.approx(best, abs=1e-9)
    assert infeasible < 40, "most problems should have a solution, or nothing is tested"


def test_without_limits_each_layer_takes_its_most_probable() -> None:
    rng = random.Random(0)
    for _ in range(20):
        problem = random_problem(rng)
        assert derive(problem) == {layer: row.index(max(row)) for layer, row in problem.items()}


def test_nothing_is_derived_where_the_cheapest_is_too_dear() -> None:
    problem = {"a": [-1.0, -2.0], "b": [-1.0, -2.0]}
    table = {"a": [3, 2], "b": [7, 5]}
    assert derive(problem, [CostLimit(table, 7)]) == {"a": 1, "b": 1}
    assert derive(problem, [CostLimit(table, 6.999)]) is None
    assert derive(problem, [CostLimit(table, 0)]) is None
    assert derive(problem, [CostLimit(table, -1)]) is None


def test_limits_that_can_each_be_met_but_not_together_give_nothing() -> None:
    problem = {"a": [-1.0, -1.0]}
    assert derive(problem, [CostLimit({"a": [1, 9]}, 5), CostLimit({"a": [9, 1]}, 5)]) is None


def test_an_infinite_limit_is_none() -> None:
    problem = {"a": [-1.0, -2.0], "b": [-3.0, -0.5]}
    for table in ({"a": [3, 2], "b": [7, 5]}, {"a": [0.3, 0.2], "b": [0.7, 0.5]}):
        assert derive(problem, [CostLimit(table, math.inf)]) == {"a": 0, "b": 1}


def test_the_solver_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    # HiGHS 1.12 prints a line of its own while it solves these.
    space = SPACES["fixed"](SpaceOptions(fixed="srresnet", bits=(2, 4, 8), bicubic=True))
    table, rng = cost_model("bitops").table(space, (32, 32)), np.random.default_rng(21)
    log_p = {layer: np.log(rng.dirichlet(np.full(len(costs), 100.0))).tolist() for layer, costs in table.items()}
    assert derive_front(log_p, table, [CostLimit(table, 20e9)], 8)
    assert capfd.readouterr().out == ""


def test_the_order_of_the_layers_in_a_table_does_not_matter() -> None:
    problem = {"a": [-1.0, -2.0, -3.0], "b": [-1.0, -2.0]}
    assert derive(problem, [CostLimit({"b": [50, 1], "a": [9, 7, 3]}, 8)]) == {"a": 1, "b": 1}


def random_alphas(space_choices: dict, generator: torch.Generator, spread: float) -> Problem:
    return {
        layer: (torch.randn(len(c), generator=generator, dtype=torch.float64) * spread).log_softmax(0).tolist()
        for layer, c in space_choices.items()
    }


def test_the_derived_network_is_never_over_its_budget() -> None:
    """500 random cases in the published space at the published size; real costs are some 1e9 to 1e10."""
    space = SPACES["quantnas"](SpaceOptions())
    model = cost_model("bitops")
    table = model.table(space, (32, 32))
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(500):
        alphas = random_alphas(space.choices, generator, rng.choice([0.01, 1, 5]))
        tight = sum(min(row) for row in table.values()) * 10 ** rng.uniform(0, 0.8)
        limit = math.floor(tight)
        if rng.random() < 0.5:  # a limit that some architecture attains, to the last BitOp
            limit = CostLimit(table, 0).cost({layer: rng.randrange(len(row)) for layer, row in table.items()})
        chosen = derive(alphas, [CostLimit(table, limit)])
        assert chosen is not None
        assert model.architecture_cost(space.architecture(chosen)).value <= limit


def best_of_the_space(problem: Problem, limit: CostLimit) -> float:
    """The optimum by dynamic programming: layer after layer, all sums that no other beats in both."""
    sums = [(0.0, 0.0)]
    for layer, row in problem.items():
        extended = sorted(
            ((cost + limit.table[layer][i], total + gain) for cost, total in sums for i, gain in enumerate(row)),
            key=lambda pair: (pair[0], -pair[1]),
        )
        sums, best = [], -math.inf
        for cost, total in extended:
            if cost <= limit.limit and total > best:
                sums.append((cost, total))
                best = total
    return sums[-1][1]


def test_the_derived_network_is_the_optimum_of_the_whole_space() -> None:
    space = SPACES["quantnas"](SpaceOptions())
    table = cost_model("bitops").table(space, (32, 32))
    rng, generator = random.Random(1), torch.Generator().manual_seed(1)
    for _ in range(120):
        problem = random_alphas(space.choices, generator, rng.choice([0.01, 0.1, 1, 3]))
        limit = CostLimit(table, rng.uniform(1.4e9, 8e9))
        chosen = derive(problem, [limit])
        assert chosen is not None
        assert score(problem, chosen) == pytest.approx(best_of_the_space(problem, limit), abs=1e-9)


def test_a_limit_a_single_bitop_below_what_thousands_of_architectures_cost_is_met_at_once() -> None:
    """Where all that is more probable is dearer by one part in a billion, less than a solver usually tells apart."""
    space = SPACES["quantnas"](SpaceOptions())
    table = cost_model("bitops").table(space, (32, 32))
    problem = {layer: [cost / 1e9 for cost in row] for layer, row in table.items()}
    limit = CostLimit(table, 6617825280 - 1)
    chosen = derive(problem, [limit])
    assert chosen is not None
    assert limit.cost(chosen) <= limit.limit
    assert score(problem, chosen) == pytest.approx(best_of_the_space(problem, limit), abs=1e-9)


def test_measured_costs_a_trace_above_the_limit_do_not_keep_the_solver_busy() -> None:
    """The same in numbers that are no multiples of anything, which the solver tells apart to a millionth only."""
    space = SPACES["quantnas"](SpaceOptions())
    whole = cost_model("bitops").table(space, (32, 32))
    table = {layer: [cost * math.pi * 1e-12 for cost in row] for layer, row in whole.items()}
    problem = {layer: [cost / 1e9 for cost in row] for layer, row in whole.items()}
    limit = CostLimit(table, (6617825280 - 1) * math.pi * 1e-12)
    chosen = derive(problem, [limit])
    assert chosen is not None
    assert limit.limit * (1 - 1e-3) <= limit.cost(chosen) <= limit.limit


@pytest.mark.parametrize("spread", [0.0, 0.001, 1.0, 10.0])
@pytest.mark.parametrize("unit", [1, 1e-9], ids=["BitOps", "a small unit"])
def test_a_front_costs_more_only_where_it_scores_more(spread: float, unit: float) -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12))
    whole = cost_model("bitops").table(space, (32, 32))
    table = {layer: [cost * unit for cost in row] for layer, row in whole.items()}
    problem = random_alphas(space.choices, torch.Generator().manual_seed(1), spread)
    front = derive_front(problem, table, points=12)
    costs = [CostLimit(table, 0).cost(choice) for choice in front]
    scores = [score(problem, choice) for choice in front]
    assert costs[0] == pytest.approx(sum(min(row) for row in table.values()), rel=1e-12)
    assert all(a < b for a, b in itertools.pairwise(costs))
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(scores))
    best = math.fsum(max(row) for row in problem.values())
    assert scores[-1] == pytest.approx(best, abs=1e-9)
    if spread >= 1:
        assert len(front) >= 9


def test_a_front_meets_the_other_limits_at_every_point() -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12))
    table = cost_model("bitops").table(space, (32, 32))
    parameters = cost_model("params").table(space, (32, 32))
    problem = random_alphas(space.choices, torch.Generator().manual_seed(2), 2.0)
    limit = CostLimit(parameters, sum(min(row) for row in parameters.values()) * 1.5)
    free = derive_front(problem, table)
    assert any(limit.cost(choice) > limit.limit for choice in free), "the limit has to bind"
    held = derive_front(problem, table, [limit])
    assert held
    assert all(limit.cost(choice) <= limit.limit for choice in held)


def test_the_range_of_a_space_is_its_cheapest_mean_and_dearest_architecture() -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12, cells=1))
    model, rng = cost_model("params"), random.Random(0)
    reach = cost_range(space, Budget("params", 1, (32, 32)))
    costs = [model.architecture_cost(space.sample(rng)).value for _ in range(3000)]
    spread = torch.tensor(costs, dtype=torch.float64).std().item()
    assert reach.minimum <= min(costs) <= max(costs) <= reach.maximum
    assert abs(sum(costs) / len(costs) - reach.centre) < 4 * spread / math.sqrt(len(costs))
    for bound, pick in ((reach.minimum, min), (reach.maximum, max)):
        table = model.table(space, (32, 32))
        chosen = {layer: row.index(pick(row)) for layer, row in table.items()}
        assert model.architecture_cost(space.architecture(chosen)).value == bound


def test_a_budget_below_the_space_is_refused_with_its_minimum_centre_and_maximum() -> None:
    space = SPACES["quantnas"](SpaceOptions())
    budget = parse_budget("1MBitOps@16x16")
    reach = cost_range(space, budget)
    with pytest.raises(UsageError) as caught:
        require_feasible(space, [budget])
    message = str(caught.value)
    for part in (
        "space quantnas",
        "1 MBitOps at 16x16",
        f"minimum is {budget.format(reach.minimum)}",
        f"centre {budget.format(reach.centre)}",
        f"maximum {budget.format(reach.maximum)}",
        "raise the budget",
    ):
        assert part in message


@pytest.mark.parametrize("metric", ["bitops", "flops", "params"])
def test_the_cheapest_architecture_itself_is_a_feasible_budget_and_one_less_is_not(metric: str) -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12))
    minimum = cost_range(space, Budget(metric, 1, (32, 32))).minimum
    require_feasible(space, [Budget(metric, minimum, (32, 32))])
    with pytest.raises(UsageError, match="no architecture of space quantnas meets"):
        require_feasible(space, [Budget(metric, minimum - 1, (32, 32))])


def test_budgets_that_exclude_each_other_are_named_together() -> None:
    """With the small operator wide and the large one narrow, few BitOps take the large, few parameters the small."""
    plain = SPACES["quantnas"](SpaceOptions(channels=12, bits=(8,)))
    choices = {layer: (c[0].with_bits(8), c[1].with_bits(2)) for layer, c in plain.choices.items()}
    skip = OperatorSpec(kind="conv", in_channels=12, out_channels=12, kernel=1)
    choices["skip"] = (skip.with_bits(8), skip.model_copy(update={"kernel": 3}).with_bits(2))
    space = LayerwiseSpace(name="opposed", wiring=plain.wiring, choices=choices)
    budgets = [Budget(m, cost_range(space, Budget(m, 1, (32, 32))).minimum, (32, 32)) for m in ("bitops", "params")]
    for budget in budgets:
        require_feasible(space, [budget])
    with pytest.raises(UsageError, match=r"each of .*BitOps.* and .*Params.* can be met .*not all together"):
        require_feasible(space, budgets)


def test_generous_budgets_pass() -> None:
    space = SPACES["quantnas"](SpaceOptions())
    require_feasible(space, parse_budgets(["5GBitOps", "300KParams", "30GFLOPs"]))
    require_feasible(space, [])


def test_a_front_has_no_two_points_of_the_same_score() -> None:
    """Where candidates tie, as they do before a search has learned anything, the dearer ones are no points of it."""
    for seed in range(60):
        rng = random.Random(seed)
        problem = {f"layer.{i}": [float(rng.randint(-2, 0)) for _ in range(4)] for i in range(4)}
        table = {layer: [rng.randint(1, 1000) for _ in row] for layer, row in problem.items()}
        front = derive_front(problem, table)
        costs = [CostLimit(table, 0).cost(choice) for choice in front]
        scores = [score(problem, choice) for choice in front]
        assert all(a < b for a, b in itertools.pairwise(costs))
        assert all(a < b for a, b in itertools.pairwise(scores))
