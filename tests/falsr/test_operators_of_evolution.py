"""Initialisation, crossover, mutation, selection and the controller, each against its definition."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.searches.falsr.controller import Controller
from hwnas.searches.falsr.crossover import crossover
from hwnas.searches.falsr.initialisation import first_connections, first_genotypes
from hwnas.searches.falsr.mutation import Roulette, random_mutation
from hwnas.searches.falsr.selection import Ranking, fronts, hypervolume, rank
from hwnas.searches.falsr.settings import ControllerSettings, FALSRSettings
from hwnas.spaces.falsr import CANONICAL, CELLS, FALSRSpace, Genotype, unconnected

SPACE = FALSRSpace(name="falsr")
genotypes = st.integers(0, 10**6).map(lambda seed: SPACE.sample_genotype(random.Random(seed)))
seeds = st.integers(0, 10**6)


def first(count: int, seed: int = 0, **rates: float) -> list[Genotype]:
    settings = FALSRSettings.model_validate(rates)
    return list(itertools.islice(first_genotypes(SPACE, settings, random.Random(seed)), count))


def test_the_first_networks_repeat_one_cell_and_no_two_the_same() -> None:
    found = first(160)
    assert all(len(set(genotype.cells)) == 1 for genotype in found)
    assert len({genotype.cells for genotype in found}) == 160
    # Then there are no cells left, and networks are arbitrary.
    assert all(len(set(genotype.cells)) > 1 for genotype in first(200)[160:])


@pytest.mark.parametrize(("p_random", "p_dense"), [(0.5, 0.2), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_first_connections_come_in_the_shares_asked_for(p_random: float, p_dense: float) -> None:
    shares = FALSRSettings(random_connections=p_random, dense_connections=p_dense)
    rng = random.Random(1)
    kinds: Counter[str] = Counter()
    on = []
    for _ in range(4000):
        bits = [bit for row in first_connections(7, shares, rng) for bit in row]
        kinds["dense" if all(bits) else "none" if not any(bits) else "random"] += 1
        if 0 < sum(bits) < 28:
            on.append(sum(bits))
    expected = {"random": p_random, "dense": p_dense, "none": 1 - p_random - p_dense}
    for kind, share in expected.items():
        assert kinds[kind] / 4000 == pytest.approx(share, abs=0.03)
    if on:
        assert sum(on) / len(on) == pytest.approx(14, abs=0.3)


@settings(max_examples=60, deadline=None)
@given(a=genotypes, b=genotypes, seed=seeds)
def test_crossover_takes_one_cell_and_one_row_of_the_second_parent(a: Genotype, b: Genotype, seed: int) -> None:
    child = crossover(a, b, random.Random(seed))
    cells = [i for i in range(7) if child.cells[i] != a.cells[i]]
    rows = [i for i in range(7) if child.macro[i] != a.macro[i]]
    assert len(cells) <= 1 and len(rows) <= 1
    assert all(child.cells[i] == b.cells[i] for i in cells) and all(child.macro[i] == b.macro[i] for i in rows)


def test_crossover_reaches_every_position() -> None:
    a, b = Genotype((0,) * 7, unconnected(7)), Genotype((5,) * 7, tuple((1,) * (7 - i) for i in range(7)))
    children = [crossover(a, b, random.Random(seed)) for seed in range(1000)]
    rows = [next(i for i, row in enumerate(child.macro) if any(row)) for child in children]
    # Two draws that have nothing to do with each other.
    assert len({(child.cells.index(5), row) for child, row in zip(children, rows, strict=True)}) == 49


@settings(max_examples=60, deadline=None)
@given(genotype=genotypes, seed=seeds)
def test_a_random_mutation_changes_one_cell_and_at_most_one_row(genotype: Genotype, seed: int) -> None:
    mutated = random_mutation(genotype, random.Random(seed))
    changed = [(a, b) for a, b in zip(genotype.cells, mutated.cells, strict=True) if a != b]
    assert len(changed) == 1 and CANONICAL[changed[0][0]] != CANONICAL[changed[0][1]]
    assert sum(a != b for a, b in zip(genotype.macro, mutated.macro, strict=True)) <= 1
    assert [len(row) for row in mutated.macro] == [7, 6, 5, 4, 3, 2, 1]


def test_a_random_mutation_switches_one_connection_or_draws_a_row_anew() -> None:
    genotype = SPACE.sample_genotype(random.Random(0))
    changed = Counter[int]()
    for seed in range(2000):
        mutated = random_mutation(genotype, random.Random(seed))
        bits = [(a, b) for x, y in zip(genotype.macro, mutated.macro, strict=True) for a, b in zip(x, y, strict=True)]
        changed[sum(a != b for a, b in bits)] += 1
    assert set(range(7)) <= set(changed)
    # Half of them switch one; of rows of 1 to 7 bits drawn anew, seven in 64 more do.
    expected = 0.5 + 0.5 * sum(k / 2**k for k in range(1, 8)) / 7
    assert changed[1] / 2000 == pytest.approx(expected, abs=0.04)


def test_a_roulette_favours_cheap_cells_by_the_logarithm_and_keeps_connections() -> None:
    costs = [math.exp(i % 4) for i in range(192)]
    roulette = Roulette(costs)
    genotype = SPACE.sample_genotype(random.Random(0))
    rng = random.Random(1)
    drawn = [roulette(genotype, rng) for _ in range(4000)]
    assert all(child.macro == genotype.macro for child in drawn)
    counts = Counter(cell % 4 for child in drawn for cell in child.cells)
    # e^3 is the dearest, with weight 1; each factor of e less has 1 more.
    for kind, weight in enumerate((4, 3, 2, 1)):
        assert counts[kind] / sum(counts.values()) == pytest.approx(weight / 10, abs=0.01)


points = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=25)


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@settings(max_examples=80, deadline=None)
@given(values=points)
def test_fronts_are_those_of_the_definition(values: list[tuple[int, ...]]) -> None:
    left, expected = set(range(len(values))), []
    while left:
        front = {i for i in left if not any(dominates(values[j], values[i]) for j in left)}
        expected.append(front)
        left -= front
    assert [set(map(int, front)) for front in fronts(np.array(values, float))] == expected


@settings(max_examples=60, deadline=None)
@given(values=points, seed=seeds)
def test_constrained_domination_ranks_by_deb(values: list[tuple[int, ...]], seed: int) -> None:
    rng = random.Random(seed)
    violations = np.array([rng.choice([0.0, 0.0, 0.5, 1.5]) for _ in values])
    ranks = rank(np.array(values, float), violations).ranks
    for i, j in itertools.permutations(range(len(values)), 2):
        if violations[i] < violations[j]:
            assert ranks[i] < ranks[j]
        elif violations[i] == violations[j] > 0:
            assert ranks[i] == ranks[j]
        elif violations[i] == violations[j] == 0 and dominates(values[i], values[j]):
            assert ranks[i] < ranks[j]


def test_crowding_is_that_of_nsga_ii() -> None:
    # One front of two objectives, by the formula of Deb et al.: distances between neighbours over the range, summed.
    values = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    ranking = rank(values, np.zeros(4))
    assert ranking.ranks.tolist() == [0, 0, 0, 0]
    per_objective = 2  # pymoo takes the mean over objectives, which ranks the same
    expected = [math.inf, (4 - 0) / 10 + (10 - 5) / 10, (10 - 1) / 10 + (6 - 0) / 10, math.inf]
    assert ranking.crowding.tolist() == pytest.approx([value / per_objective for value in expected])
    assert ranking.best(3) == [0, 3, 2]


def test_a_tournament_of_two_takes_the_better_rank_and_then_the_lonelier() -> None:
    ranking = Ranking(np.array([0, 0, 1]), np.array([0.1, 0.9, 5.0]))
    rng = random.Random(0)
    won = Counter(ranking.tournament(rng) for _ in range(9000))
    # Of nine pairs, the second of the three wins in five, the first in three, the last against itself alone.
    assert [won[i] / 9000 for i in range(3)] == pytest.approx([3 / 9, 5 / 9, 1 / 9], abs=0.02)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=8))
def test_the_hypervolume_is_the_number_of_dominated_boxes(values: list[tuple[int, ...]]) -> None:
    boxes = sum(
        any(all(v <= c for v, c in zip(value, corner, strict=True)) for value in values)
        for corner in itertools.product(range(5), repeat=3)
    )
    found = hypervolume(np.array(values, float).reshape(-1, 3), np.full(3, 5.0))
    assert found == pytest.approx(boxes)


# The controller


def controller(cells: int = 2, seed: int = 0, **settings: float) -> Controller:
    return Controller(cells, ControllerSettings.model_validate({"hidden": 8, **settings}), seed)


def test_probabilities_of_all_networks_add_up_to_one() -> None:
    one = controller(cells=1)
    everything = [Genotype((cell,), ((bit,),)) for cell in range(192) for bit in (0, 1)]
    with torch.no_grad():
        assert one.log_probability(everything).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_it_draws_with_the_probabilities_that_it_states() -> None:
    one = controller(cells=1)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(3)  # far from uniform
        everything = [Genotype((cell,), ((bit,),)) for cell in range(192) for bit in (0, 1)]
        stated = dict(zip(everything, one.log_probability(everything).exp().tolist(), strict=True))
    drawn = Counter(one.sample() for _ in range(6000))
    for genotype, count in drawn.most_common(20):
        share = stated[genotype]
        assert count / 6000 == pytest.approx(share, abs=4 * math.sqrt(share / 6000) + 1e-3)


def test_the_same_seed_draws_the_same_and_leaves_torchs_own_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = controller(cells=7, seed=3), controller(cells=7, seed=3)
    assert [a.sample() for _ in range(5)] == [b.sample() for _ in range(5)]
    assert controller(cells=7, seed=4).sample() != controller(cells=7, seed=3).sample()
    assert torch.equal(before, torch.get_rng_state())


def test_its_step_follows_the_reinforce_gradient() -> None:
    """Equation 6: the sum of advantage times the gradient of the log-probability, here by finite differences."""
    one = controller(cells=2, seed=1)
    one.baseline = 1.0
    drawn, rewards = [one.sample() for _ in range(3)], [2.0, 0.5, 1.5]
    weight = one.cell.weight
    index = (drawn[0].cells[0], 3)

    def objective() -> float:
        with torch.no_grad():
            advantages = torch.tensor([reward - 1.0 for reward in rewards])
            return float((advantages * one.log_probability(drawn)).mean())

    step, values = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[index] += sign * step
            values.append(objective())
            weight[index] -= sign * step
    one.learn(drawn, rewards)
    assert weight.grad is not None
    assert -weight.grad[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02, abs=1e-4)


def test_the_baseline_is_a_moving_average() -> None:
    one = controller(baseline=0.25)
    drawn = [one.sample() for _ in range(2)]
    one.learn(drawn, [1.0, 3.0])
    assert one.baseline == pytest.approx(((2.0 * 0.75 + 0.25 * 1.0) * 0.75) + 0.25 * 3.0)
    one.learn([], [])
    assert one.baseline == pytest.approx(((2.0 * 0.75 + 0.25 * 1.0) * 0.75) + 0.25 * 3.0)


def test_it_learns_what_is_rewarded() -> None:
    one = controller(cells=2, seed=0, learning_rate=0.02)

    def reward(genotype: Genotype) -> float:
        return sum(CELLS[cell].filters == 64 for cell in genotype.cells) + sum(map(sum, genotype.macro)) / 3

    def mean() -> float:
        return sum(reward(one.sample()) for _ in range(200)) / 200

    before = mean()
    for _ in range(150):
        drawn = [one.sample() for _ in range(16)]
        one.learn(drawn, [reward(genotype) for genotype in drawn])
    assert before < 1.3 and mean() > 2.4
