"""The evolution itself: who is proposed, who survives, what the controller learns. It trains nothing by itself."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np

from hwnas.searches.falsr.controller import Controller
from hwnas.searches.falsr.costs import Costs
from hwnas.searches.falsr.crossover import crossover
from hwnas.searches.falsr.feasibility import cheapest_chains
from hwnas.searches.falsr.initialisation import first_genotypes
from hwnas.searches.falsr.mutation import Roulette, random_mutation
from hwnas.searches.falsr.problem import Problem
from hwnas.searches.falsr.selection import Floats, Ranking, rank
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.spaces.falsr import FALSRSpace, Genotype

TRIES = 200
"""Proposals for each place of a generation, after which it stays empty: the space within the budgets may be small."""

MEASURED = 4
"""Times that the places of a generation that are left are proposed for, where costs are measured: that takes long."""

FREE = 1e-9
"""What is taken for nothing: there is no logarithm of that."""

FIRST = 50
"""Proposals for each place of the first generation, after which those next to the cheapest networks are proposed."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A network that nobody has tried yet, and that is within the budgets.

    Attributes:
        genotype: canonical.
        costs: of each term of the problem.
        origin: what made it: ``first``, ``random``, ``roulette-1``, ``roulette-2`` or ``controller``.
        drawn: the genes as they were drawn, of the same network.
    """

    genotype: Genotype
    costs: Costs
    origin: str
    drawn: Genotype


@dataclass(frozen=True, slots=True)
class Individual:
    """A network that has been tried.

    Attributes:
        genotype: its genes.
        costs: of each term of the problem.
        psnr: after the short training, in dB.
    """

    genotype: Genotype
    costs: Costs
    psnr: float


class Judge(Protocol):
    """Who says how good networks are."""

    def measure(self, genotypes: Sequence[Genotype]) -> list[dict[int, float]]:
        """The costs that cannot be counted, by the number of their term; asked for only where there are such."""
        ...

    def train(self, proposals: Sequence[Proposal], generation: int) -> list[float | None]:
        """PSNR of each in dB; None where it could not be trained."""
        ...


@dataclass
class Evolution:
    """NSGA-II with a hybrid controller.

    Attributes:
        space: where it searches.
        problem: what it seeks.
        settings: its rates.
        seed: of everything random.
        population: those who survived so far.
        everyone: all who were tried.
        rejected: how many proposals were duplicates, and how many over a budget.
    """

    space: FALSRSpace
    problem: Problem
    settings: FALSRSettings
    seed: int
    population: list[Individual] = field(default_factory=list)
    everyone: list[Individual] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._seen: set[Genotype] = set()
        self._controller = Controller(self.space.cells, self.settings.controller, self.seed)
        self._roulettes = [
            Roulette(self.problem.prices_of_cells(i, otherwise)) for i, otherwise in enumerate(("flops", "params"))
        ]

    def generations(self, judge: Judge) -> Iterator[int]:
        """Evolve; yields the number of each generation when it is done. Ends early where nothing new is left."""
        for generation in range(self.settings.generations + 1):
            source = self._children() if self.population else self._first()
            proposals = self._fill(source, judge)
            if not proposals:
                return
            qualities = judge.train(proposals, generation)
            tried = [(p, psnr) for p, psnr in zip(proposals, qualities, strict=True) if psnr is not None]
            own = [(proposal.drawn, psnr) for proposal, psnr in tried if proposal.origin == "controller"]
            self._controller.learn([drawn for drawn, _ in own], [psnr for _, psnr in own])
            new = [Individual(proposal.genotype, proposal.costs, psnr) for proposal, psnr in tried]
            self.everyone += new
            candidates = self.population + new
            if not candidates:
                continue
            survivors = self.ranking(candidates).best(self.settings.population)
            self.population = [candidates[i] for i in survivors]
            yield generation

    def ranking(self, individuals: Sequence[Individual]) -> Ranking:
        """Ranks and crowding among some."""
        return rank(self.values(individuals), np.array([self.violation(i) for i in individuals]))

    def values(self, individuals: Sequence[Individual]) -> Floats:
        """What is to be minimised, [N, 1 + objectives]: PSNR, negated, and the logarithm of each cost.

        Logarithms change no rank, and have the crowding spread the front over networks of all sizes.
        """
        rows = [[-i.psnr, *(math.log(max(i.costs[t], FREE)) for t in self.problem.objectives)] for i in individuals]
        return np.array(rows, float).reshape(len(rows), 1 + len(self.problem.objectives))

    def violation(self, individual: Individual) -> float:
        """dB that are missing to the smallest PSNR that is asked for; budgets are never violated here."""
        least = self.settings.min_psnr
        return 0.0 if least is None else max(0.0, least - individual.psnr)

    def _first(self) -> Iterator[tuple[Genotype, str]]:
        for genotype in islice(first_genotypes(self.space, self.settings, self._rng), FIRST * self.settings.population):
            yield genotype, "first"
        # Nearly nothing is within the budgets: what is cheapest, and its neighbours.
        cheapest = [genotype for _, genotype in cheapest_chains(self.problem.candidate_costs)]
        within = deque((g for g in cheapest if self._is_within(g)), maxlen=self.settings.population)
        while within:
            for genotype in list(within):
                yield genotype, "first"
                mutated = random_mutation(genotype, self._rng).canonical
                if self._is_within(mutated):
                    within.append(mutated)

    def _is_within(self, genotype: Genotype) -> bool:
        return not self.problem.is_over(self.problem.counted(genotype))

    def _children(self) -> Iterator[tuple[Genotype, str]]:
        ranking = self.ranking(self.population)
        while True:
            if self._rng.random() < self.settings.exploitation:
                yield self._controller.sample(), "controller"
                continue
            child = self.population[ranking.tournament(self._rng)].genotype
            if self._rng.random() < self.settings.crossover:
                child = crossover(child, self.population[ranking.tournament(self._rng)].genotype, self._rng)
            yield self._explored(child)

    def _explored(self, genotype: Genotype) -> tuple[Genotype, str]:
        p = self._rng.random()
        if p < self.settings.random_mutation:
            return random_mutation(genotype, self._rng), "random"
        which = 0 if p < self.settings.random_mutation + self.settings.flops_roulette else 1
        return self._roulettes[which](genotype, self._rng), f"roulette-{which + 1}"

    def _fill(self, source: Iterator[tuple[Genotype, str]], judge: Judge) -> list[Proposal]:
        """A generation of networks that are new and within the budgets."""
        wanted, accepted = self.settings.population, list[Proposal]()
        tries, rounds = TRIES * wanted, MEASURED
        while len(accepted) < wanted and tries > 0 and rounds > 0:
            rounds -= 1
            drawn: list[Proposal] = []
            while len(accepted) + len(drawn) < wanted and tries > 0:
                tries -= 1
                as_drawn, origin = next(source, (None, ""))
                if as_drawn is None:
                    tries = 0
                    break
                genotype = as_drawn.canonical
                if genotype in self._seen:
                    self.rejected["duplicate"] += 1
                    continue
                self._seen.add(genotype)
                costs = self.problem.counted(genotype)
                if self.problem.is_over(costs):
                    self.rejected["over budget"] += 1
                    continue
                drawn.append(Proposal(genotype, costs, origin, as_drawn))
            accepted += self._within_measured(drawn, judge)
        return accepted

    def _within_measured(self, drawn: list[Proposal], judge: Judge) -> list[Proposal]:
        if not self.problem.measured or not drawn:
            return drawn
        found = judge.measure([proposal.genotype for proposal in drawn])
        whole = [
            replace(p, costs=tuple(measured.get(i, cost) for i, cost in enumerate(p.costs)))
            for p, measured in zip(drawn, found, strict=True)
        ]
        within = [proposal for proposal in whole if not self.problem.is_over(proposal.costs)]
        self.rejected["over budget"] += len(whole) - len(within)
        return within
