"""The evolution on an instant judge: what it proposes, whom it keeps, and what it must never do."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from hwnas.budget import Budget, parse_budgets
from hwnas.cost_models import COST_MODELS, CostModel
from hwnas.operators import OperatorSpec
from hwnas.searches.falsr.controller import Controller
from hwnas.searches.falsr.evolution import Evolution, Proposal
from hwnas.searches.falsr.problem import Problem
from hwnas.sizes import Size
from hwnas.spaces.falsr import CELLS, FALSRSpace, Genotype
from tests.falsr.searching import Surrogate, small_settings, small_space


def evolve(
    judge: Any = None, budgets: Sequence[str] = (), space: FALSRSpace | None = None, seed: int = 0, **settings: Any
) -> tuple[Evolution, Any]:
    space = space or small_space(cells=4)
    judge = judge or Surrogate(space.cells)
    defaults = {"population": 16, "generations": 6}
    problem = Problem(space, ("flops", "params"), parse_budgets(budgets))
    evolution = Evolution(space, problem, small_settings(**defaults | settings), seed)
    for _ in evolution.generations(judge):
        pass
    return evolution, judge


def test_nothing_is_tried_twice_and_nothing_over_a_budget() -> None:
    evolution, judge = evolve(budgets=["40KParams", "200MFLOPs@64x64"])
    assert len(judge.trained) == 16 * 7 == len(evolution.everyone)
    fingerprints = {evolution.space.architecture(p.genotype).fingerprint for p in judge.trained}
    assert len(fingerprints) == len(judge.trained)
    for budget in parse_budgets(["40KParams", "200MFLOPs@64x64"]):
        for proposal in judge.trained:
            architecture = evolution.space.architecture(proposal.genotype)
            assert budget.model.architecture_cost(architecture, budget.input_size).value <= budget.limit
    assert evolution.rejected["over budget"] > 0


def test_the_same_seed_gives_the_same_search() -> None:
    (a, _), (b, _), (c, _) = evolve(seed=1), evolve(seed=1), evolve(seed=2)
    assert a.everyone == b.everyone
    assert a.everyone != c.everyone


def test_all_kinds_of_mutation_take_part_in_their_shares() -> None:
    _, judge = evolve(
        space=small_space(cells=7),
        population=100,
        generations=4,
        exploitation=0.4,
        random_mutation=0.5,
        flops_roulette=0.25,
    )
    kinds = Counter(proposal.origin for proposal in judge.trained[100:])
    total = sum(kinds.values())
    # Duplicates are drawn again, so that shares are near those asked for, not equal.
    expected = {"controller": 0.4, "random": 0.3, "roulette-1": 0.15, "roulette-2": 0.15}
    assert {kind: round(kinds[kind] / total, 1) for kind in expected} == pytest.approx(expected, abs=0.06)
    assert all(proposal.origin == "first" for proposal in judge.trained[:100])


def test_nobody_who_survives_is_dominated_while_there_is_room_for_those_who_dominate() -> None:
    evolution, _ = evolve()
    assert len(evolution.population) == 16
    ranking = evolution.ranking(evolution.everyone)
    best = ranking.best(16)
    assert {evolution.everyone[i].genotype for i in best} == {i.genotype for i in evolution.population}


def test_evolution_beats_as_many_random_networks() -> None:
    evolution, judge = evolve(population=16, generations=12)
    rng = random.Random(7)
    random_best = max(
        judge.quality(genotype, evolution.problem.counted(genotype))
        for genotype in (evolution.space.sample_genotype(rng) for _ in range(len(evolution.everyone)))
    )
    assert max(i.psnr for i in evolution.everyone) > random_best


def test_a_small_space_within_a_tight_budget_is_searched_to_its_end() -> None:
    space = small_space(cells=1)
    evolution, judge = evolve(space=space, budgets=["5.3KParams"], population=32, generations=4)
    tried = {proposal.genotype for proposal in judge.trained}
    model, (budget,) = evolution.problem, parse_budgets(["5.3KParams"])
    within = {
        genotype
        for cell in range(192)
        for bit in (0, 1)
        if not model.is_over(model.counted(genotype := Genotype((cell,), ((bit,),)).canonical))
    }
    assert 0 < len(within) < 32 * 5
    assert tried == within
    assert budget.limit == 5300


def test_the_cheapest_network_alone_is_found_where_nothing_else_fits() -> None:
    space = small_space(cells=7)
    evolution, judge = evolve(space=space, budgets=["5.658KParams"], population=4, generations=1)
    assert [evolution.problem.counted(p.genotype)[1] for p in judge.trained] == [5657.0]


def test_candidates_that_could_not_be_trained_do_not_live_on() -> None:
    judge = Surrogate(4)
    judge.fails = {0, 3}
    evolution, _ = evolve(judge, generations=2)
    assert len(evolution.everyone) == 3 * 14
    failed = {judge.trained[16 * g + i].genotype for g in range(3) for i in (0, 3)}
    assert not failed & {individual.genotype for individual in evolution.population}


def test_a_smallest_psnr_ranks_those_below_it_last_and_by_how_much() -> None:
    anyone, _ = evolve(generations=2)
    least = sorted(individual.psnr for individual in anyone.everyone)[len(anyone.everyone) // 2]
    evolution, _ = evolve(min_psnr=least, generations=2)
    ranking = evolution.ranking(evolution.everyone)
    below = [(i.psnr, rank) for i, rank in zip(evolution.everyone, ranking.ranks, strict=True) if i.psnr < least]
    above = [rank for i, rank in zip(evolution.everyone, ranking.ranks, strict=True) if i.psnr >= least]
    assert below and above
    assert max(above) < min(rank for _, rank in below)
    assert [rank for _, rank in sorted(below, reverse=True)] == sorted(rank for _, rank in below)


class Measuring(Surrogate):
    """A judge with a device: the time of a network is its parameters over a thousand, in ms."""

    def __init__(self, cells: int) -> None:
        super().__init__(cells)
        self.measured: list[Genotype] = []

    def measure(self, genotypes: Sequence[Genotype]) -> list[dict[int, float]]:
        self.measured += genotypes
        return [{0: _milliseconds(genotype)} for genotype in genotypes]


def _milliseconds(genotype: Genotype) -> float:
    return 1.0 + sum(genotype.cells) / 100


def test_costs_that_are_measured_bound_what_is_trained() -> None:
    space = small_space(cells=4)
    judge = Measuring(4)
    problem = Problem(space, ("latency@cpu", "params"), parse_budgets(["4ms@24x32"]))
    assert problem.measured == (0,)
    evolution = Evolution(space, problem, small_settings(population=8, generations=3), 0)
    for _ in evolution.generations(judge):
        pass
    assert all(_milliseconds(p.genotype) <= 4 and p.costs[0] == _milliseconds(p.genotype) for p in judge.trained)
    assert len(judge.measured) == len(set(judge.measured)) > len(judge.trained)
    assert not any(math.isnan(cost) for individual in evolution.everyone for cost in individual.costs)


def test_proposals_carry_the_costs_of_their_network() -> None:
    evolution, judge = evolve(generations=1)
    for proposal in judge.trained:
        assert isinstance(proposal, Proposal)
        architecture = evolution.space.architecture(proposal.genotype)
        for term, cost in zip(evolution.problem.terms, proposal.costs, strict=True):
            assert cost == term.model.architecture_cost(architecture, term.size).value


class _Kernels(CostModel):
    """Cheap where kernels are 3x3."""

    name = "kernels"
    unit = "Kernels"
    default_input_size = (8, 8)

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return 1.0 if spec.kernel == 3 else 1000.0


@pytest.mark.parametrize(("share", "favours_3x3"), [(1.0, True), (0.0, False)])
def test_each_roulette_goes_by_its_own_objective(share: float, favours_3x3: bool) -> None:
    COST_MODELS.register("kernels")(_Kernels())
    try:
        space = small_space(cells=7)
        rates = {"crossover": 0, "exploitation": 0, "random_mutation": 0, "flops_roulette": share}
        judge = Surrogate(7)
        problem = Problem(space, ("kernels", "params"), ())
        evolution = Evolution(space, problem, small_settings(population=40, generations=1, **rates), 0)
        for _ in evolution.generations(judge):
            pass
    finally:
        COST_MODELS.remove("kernels")
    drawn = [cell for proposal in judge.trained[40:] for cell in proposal.genotype.cells]
    of_3x3 = sum(CELLS[cell].kernel == 3 for cell in drawn) / len(drawn)
    # Weights 1 + ln 1000 to 1, against parameters, of which 3x3 kernels have more.
    assert of_3x3 > 0.8 if favours_3x3 else of_3x3 < 0.5


def test_where_an_objective_has_no_price_of_cells_the_papers_is_taken() -> None:
    timed, counted = (Problem(small_space(), (first, "params"), ()) for first in ("latency@cpu", "flops"))
    assert timed.prices_of_cells(0, "flops") == counted.prices_of_cells(0, "flops")
    alone = Problem(small_space(), ("flops",), ())
    assert alone.prices_of_cells(1, "params") == counted.prices_of_cells(1, "params") != alone.prices_of_cells(0, "x")


def test_the_controller_learns_from_what_it_drew_itself_and_from_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[tuple[Genotype, float]] = []

    def learn(self: Controller, genotypes: Sequence[Genotype], rewards: Sequence[float]) -> None:
        learned.extend(zip(genotypes, rewards, strict=True))

    monkeypatch.setattr(Controller, "learn", learn)
    drawn: list[Genotype] = []
    sample = Controller.sample

    def noted(self: Controller) -> Genotype:
        drawn.append(sample(self))
        return drawn[-1]

    monkeypatch.setattr(Controller, "sample", noted)
    _, judge = evolve()
    own = [proposal for proposal in judge.trained if proposal.origin == "controller"]
    assert own and [genotype for genotype, _ in learned] == [proposal.drawn for proposal in own]
    assert {genotype for genotype, _ in learned} <= set(drawn)
    assert any(genotype != genotype.canonical for genotype, _ in learned)
    for proposal, (_, reward) in zip(own, learned, strict=True):
        assert reward == judge.quality(proposal.genotype, proposal.costs)


def test_a_network_that_just_attains_a_budget_is_within_it() -> None:
    space = small_space(cells=3)
    genotype = space.sample_genotype(random.Random(0))
    (cost,) = Problem(space, ("params",), ()).counted(genotype)
    exact, less = (Problem(space, ("params",), (Budget("params", limit, (8, 8)),)) for limit in (cost, cost - 1))
    assert not exact.is_over(exact.counted(genotype)) and less.is_over(less.counted(genotype))


def test_measuring_is_given_up_where_nothing_is_within_the_budget() -> None:
    space = small_space(cells=4)
    judge = Measuring(4)
    problem = Problem(space, ("latency@cpu", "params"), parse_budgets(["0.5ms@24x32"]))
    evolution = Evolution(space, problem, small_settings(population=4, generations=3), 0)
    assert list(evolution.generations(judge)) == [] and not evolution.everyone
    assert len(judge.measured) <= 4 * 4


def test_a_generation_in_which_nobody_could_be_trained_is_passed() -> None:
    judge = Surrogate(4)
    judge.fails = set(range(16))
    evolution, _ = evolve(judge, generations=1)
    assert not evolution.everyone and len(judge.trained) == 32
