"""Against finite differences, scipy, and the formulas of the paper written out."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from hwnas.budget import Budget, parse_budget
from hwnas.cost_models import cost_model
from hwnas.searches.differentiable.budget_control import STIFFNESS, budget_loss, next_multiplier
from hwnas.searches.differentiable.pressure import Pressure, make_pressures
from hwnas.searches.quantnas.objective import LayerwiseCost, entropy, entropy_weight
from hwnas.spaces import SPACES, SpaceOptions

TABLE = {"a": [3e9, 1e9, 7e9], "b": [5e8, 2e10]}
CONSTANT = 1e9


def softmax(alphas: dict[str, Tensor]) -> dict[str, Tensor]:
    return {layer: alpha.softmax(0) for layer, alpha in alphas.items()}


def uniform() -> dict[str, Tensor]:
    return softmax({layer: torch.zeros(len(row)) for layer, row in TABLE.items()})


def random_alphas() -> dict[str, Tensor]:
    return {layer: torch.randn(len(row)) for layer, row in TABLE.items()}


def by_hand(probabilities: dict[str, Tensor]) -> float:
    parts = [np.dot(probabilities[layer].double().numpy(), row) for layer, row in TABLE.items()]
    return sum(parts) + CONSTANT


def numerical_gradient(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        e = torch.zeros_like(x)
        e.view(-1)[i] = step
        gradient.view(-1)[i] = (f(x + e) - f(x - e)) / (2 * step)
    return gradient


def test_the_expected_cost_is_the_dot_product_of_costs_and_probabilities() -> None:
    torch.manual_seed(0)
    cost = LayerwiseCost(TABLE, CONSTANT)
    for _ in range(20):
        p = softmax(random_alphas())
        assert cost.value(p) == pytest.approx(by_hand(p), rel=1e-6)


def test_it_is_the_mean_over_architectures_drawn_with_the_probabilities() -> None:
    torch.manual_seed(0)
    p = softmax(random_alphas())
    draws = [torch.tensor(TABLE[layer])[q.multinomial(20_000, replacement=True)] for layer, q in p.items()]
    costs = torch.stack(draws).double().sum(0) + CONSTANT
    error = float(costs.std()) / math.sqrt(len(costs))
    assert abs(LayerwiseCost(TABLE, CONSTANT).value(p) - float(costs.mean())) < 4 * error


def test_it_is_one_where_the_search_starts() -> None:
    cost = LayerwiseCost(TABLE, CONSTANT)
    assert float(cost.normalised(uniform())) == pytest.approx(1, abs=1e-6)
    assert cost.at_uniform == pytest.approx(by_hand(uniform()), rel=1e-6)


def test_one_certain_choice_costs_what_the_cost_model_says() -> None:
    space, model, size = SPACES["quantnas"](SpaceOptions(channels=12)), cost_model("params"), (32, 32)
    cost = LayerwiseCost(model.table(space, size), model.space_constant(space, size))
    chosen = {layer: len(row) - 1 for layer, row in space.choices.items()}
    certain = {layer: torch.eye(len(row))[chosen[layer]] for layer, row in space.choices.items()}
    assert cost.value(certain) == pytest.approx(model.architecture_cost(space.architecture(chosen)).value, rel=1e-6)


def test_its_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    cost = LayerwiseCost(TABLE, CONSTANT)
    cost._table = {layer: row.double() for layer, row in cost._table.items()}  # differences need the digits
    fixed = softmax(random_alphas())["b"].double()
    alpha = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def f(a: Tensor) -> Tensor:
        return cost.normalised({"a": a.softmax(0), "b": fixed})

    (gradient,) = torch.autograd.grad(f(alpha), alpha)
    assert gradient.abs().max() > 0.01
    assert torch.allclose(gradient, numerical_gradient(f, alpha.detach()), atol=1e-8)


def test_entropy_is_scipys_summed_over_the_layers() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        p = softmax(random_alphas())
        assert float(entropy(p)) == pytest.approx(sum(scipy_entropy(q.double().numpy()) for q in p.values()), rel=1e-5)
    assert float(entropy(uniform())) == pytest.approx(math.log(3) + math.log(2), rel=1e-6)


def test_a_certain_choice_has_no_entropy() -> None:
    assert float(entropy({"a": torch.tensor([0.0, 1.0, 0.0])})) == 0


def weight_by_the_paper(epoch: int, epochs: int, coefficient: float) -> float:
    warm_up = epochs // 4
    log = 0 if epoch < warm_up else math.log(epoch - warm_up + 2, epochs - warm_up + 1)
    return coefficient * epoch / (epochs - 1) * log


@pytest.mark.parametrize("coefficient", [1e-3, 1e-4])
@pytest.mark.parametrize("epochs", [2, 3, 4, 7, 20, 100])
def test_the_entropy_weight_follows_the_published_formula(epochs: int, coefficient: float) -> None:
    weights = [entropy_weight(e, epochs, coefficient) for e in range(epochs)]
    assert weights == pytest.approx([weight_by_the_paper(e, epochs, coefficient) for e in range(epochs)], rel=1e-12)
    assert weights[: epochs // 4] == [0] * (epochs // 4)
    assert weights[-1] == pytest.approx(coefficient, rel=1e-12)
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("epochs", "shares"),
    [(1, [0]), (2, [0, 1]), (3, [0, math.log(3) / math.log(4) / 2, 1])],
)
def test_the_entropy_weight_of_very_short_searches(epochs: int, shares: list[float]) -> None:
    assert [entropy_weight(e, epochs, 1.0) for e in range(epochs)] == pytest.approx(shares)


@pytest.mark.parametrize("multiplier", [0.0, 0.003, 0.5])
@pytest.mark.parametrize("excess", [-0.9, -0.31, -0.05, 0.02, 0.4, 3.0])
def test_the_budget_presses_with_the_multiplier_and_the_excess_and_never_pulls(
    multiplier: float, excess: float
) -> None:
    x = torch.tensor(excess, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(budget_loss(x, multiplier), x)
    assert float(gradient) == pytest.approx(max(0.0, multiplier + STIFFNESS * excess), abs=1e-12)
    numerical = numerical_gradient(lambda e: budget_loss(e, multiplier), x.detach())
    assert torch.allclose(gradient, numerical, atol=1e-9)


def test_the_dual_variable_follows_the_excess_and_never_falls_below_zero() -> None:
    assert next_multiplier(2, 0.5) == pytest.approx(2 + STIFFNESS * 0.5)
    assert next_multiplier(2, -0.5) == pytest.approx(2 - STIFFNESS * 0.5)
    assert next_multiplier(0.001, -0.9) == 0


@pytest.mark.parametrize("slope", [0.001, 0.02, 0.1])
def test_a_toy_converges_to_its_budget_and_the_dual_to_what_the_optimum_asks_for(slope: float) -> None:
    """Minimise slope * (x - 2)^2 / 2 with x - 1 <= 0: by KKT, x = 1 and the multiplier is the slope itself."""
    multiplier, x = 0.0, 2.0

    def gradient(at: float, multiplier: float) -> float:
        x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        (slope * (x - 2) ** 2 / 2 + budget_loss(x - 1, multiplier)).backward()
        assert x.grad is not None
        return float(x.grad)

    for _ in range(100):
        x = brentq(gradient, -10, 10, args=(multiplier,))
        multiplier = next_multiplier(multiplier, x - 1)
    assert x == pytest.approx(1, abs=1e-3)
    assert multiplier == pytest.approx(slope, rel=1e-2)


def test_a_toy_whose_optimum_is_within_its_budget_is_left_alone() -> None:
    x = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(budget_loss(x - 1, 0.0), x)
    assert float(gradient) == 0
    assert next_multiplier(0.0, -0.3) == 0


def test_a_search_held_by_its_dual_ends_at_the_budget() -> None:
    """One layer, a small and a large operator, a task that wants the large one: the expected cost meets the budget."""
    torch.manual_seed(0)
    alpha = torch.zeros(2, requires_grad=True)
    budget = Budget("flops", 4.0, (1, 1))
    pressure = Pressure(budget, LayerwiseCost({"a": [2.0, 10.0]}), penalty=None)
    optimiser = torch.optim.SGD([alpha], 1)
    costs = []
    for _ in range(150):
        for _ in range(10):
            p = {"a": alpha.softmax(0)}
            optimiser.zero_grad()
            (0.01 * p["a"][0] + pressure.loss(p)).backward()
            optimiser.step()
        with torch.no_grad():
            p = {"a": alpha.softmax(0)}
            pressure.update(p)
            costs.append(pressure.cost.value(p))
    assert pressure.cost.at_uniform == 6, "it comes from above its budget"
    assert costs[-1] == pytest.approx(4.0, rel=0.02)
    # At the budget the pull of the task, 0.01 for each unit of probability, is that of the budget: 8 / 4 times m.
    assert pressure.multiplier == pytest.approx(0.01 / 2, rel=0.05)


def test_the_bound_comes_down_from_the_average_cost_to_the_budget() -> None:
    """A bound is felt from the cost at which its loss begins to pull."""

    def felt(limit: float, progress: float) -> float:
        pressure = Pressure(Budget("flops", limit, (1, 1)), LayerwiseCost({"a": [2.0, 10.0]}), penalty=None)
        pressure.tighten(progress)
        for expected in torch.linspace(2, 10, 801).tolist():
            share = (expected - 2) / 8
            if float(pressure.loss({"a": torch.tensor([1 - share, share])})) > 1e-9:
                return expected
        return math.inf

    assert [felt(4.0, progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([6, 5, 4, 4], abs=0.02)
    assert [felt(8.0, progress) for progress in (0, 1)] == pytest.approx([8, 8], abs=0.02)


def test_a_constant_penalty_is_the_papers_loss() -> None:
    cost = LayerwiseCost(TABLE, CONSTANT)
    pressure = Pressure(Budget("bitops", math.inf, (32, 32)), cost, penalty=1e-3)
    assert float(pressure.loss(uniform())) == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize(("name", "metric"), [("quantnas", "bitops"), ("quantnas-float", "flops")])
def test_without_a_budget_nothing_presses_but_the_papers_metric_is_watched(name: str, metric: str) -> None:
    space = SPACES[name](SpaceOptions(channels=12))
    (pressure,) = make_pressures(space, (), None, None, partial(LayerwiseCost.of, space))
    p = {layer: torch.full((len(c),), 1 / len(c)) for layer, c in space.choices.items()}
    assert pressure.budget.metric == metric
    assert float(pressure.loss(p)) == 0
    pressure.update(p)
    assert pressure.multiplier == 0
    assert " of " not in pressure.describe(p)


def test_each_budget_presses_by_itself() -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12))
    p = {layer: torch.full((len(c),), 1 / len(c)) for layer, c in space.choices.items()}
    tight, loose = make_pressures(
        space, (parse_budget("1MBitOps"), parse_budget("1TFLOPs")), None, None, partial(LayerwiseCost.of, space)
    )
    assert float(tight.loss(p)) > 0 and float(loose.loss(p)) == 0
    assert tight.describe(p).endswith(" of 1 MBitOps")
