"""Does the hybrid help? Random search, NSGA-II, and NSGA-II with the controller, on an exact and instant quality.

    python benchmarks/falsr_ablation.py [--seeds 20] [--evaluations 1024]

The quality of a network is

    30 + log10(multiply-accumulates) + cells + pairs + connections   in dB, where
    cells:       the mean over places of an effect of the cell that stands there, normal with deviation CELLS dB
    pairs:       the mean over neighbours of an effect of the two cells together, deviation PAIRS dB
    connections: the mean over all of an effect of each that is on, deviation CONNECTIONS dB

Each seed draws the effects anew, and they stay fixed for the three searches. What is compared is the hypervolume as the
search states it: over the PSNR above 36 dB and the logarithms of multiply-accumulates and parameters within what the
space has.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon

from hwnas.searches.falsr.evolution import Evolution, Individual, Proposal
from hwnas.searches.falsr.feasibility import cost_range
from hwnas.searches.falsr.problem import Problem
from hwnas.searches.falsr.selection import hypervolume
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.spaces.falsr import FALSRSpace, Genotype

CELLS, PAIRS, CONNECTIONS = 1.0, 0.5, 0.5
WORST = 36.0
SPACE = FALSRSpace(name="falsr")
PROBLEM = Problem(SPACE, ("flops", "params"), ())


class Surrogate:
    """The quality of one seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n = SPACE.cells
        self.cells = rng.normal(0, CELLS, (n, 192))
        self.pairs = rng.normal(0, PAIRS, (n - 1, 192, 192))
        self.connections = rng.normal(0, CONNECTIONS, n * (n + 1) // 2)

    def quality(self, genotype: Genotype, macs: float) -> float:
        places = range(SPACE.cells)
        cells = np.mean([self.cells[i, genotype.cells[i]] for i in places])
        pairs = np.mean([self.pairs[i, genotype.cells[i], genotype.cells[i + 1]] for i in places[:-1]])
        bits = [bit for row in genotype.macro for bit in row]
        return float(30 + math.log10(macs) + cells + pairs + np.mean(self.connections * bits))

    def measure(self, genotypes: Sequence[Genotype]) -> list[dict[int, float]]:
        raise NotImplementedError("all costs are counted")

    def train(self, proposals: Sequence[Proposal], generation: int) -> list[float | None]:
        return [self.quality(p.genotype, p.costs[0]) for p in proposals]


def at_random(surrogate: Surrogate, evaluations: int, seed: int) -> list[Individual]:
    rng, found = random.Random(seed), dict[Genotype, Individual]()
    while len(found) < evaluations:
        genotype = SPACE.sample_genotype(rng)
        costs = PROBLEM.counted(genotype)
        found[genotype] = Individual(genotype, costs, surrogate.quality(genotype, costs[0]))
    return list(found.values())


def evolved(surrogate: Surrogate, evaluations: int, seed: int, exploitation: float) -> list[Individual]:
    population = 64
    settings = FALSRSettings(
        population=population, generations=evaluations // population - 1, exploitation=exploitation
    )
    evolution = Evolution(SPACE, PROBLEM, settings, seed)
    for _ in evolution.generations(surrogate):
        pass
    assert len(evolution.everyone) == evaluations
    return evolution.everyone


def volume(individuals: Sequence[Individual], ranges: Sequence[tuple[float, float]]) -> float:
    shares = [
        [math.log(cost / least) / math.log(most / least) for cost, (least, most) in zip(i.costs, ranges, strict=True)]
        for i in individuals
    ]
    return hypervolume(np.column_stack([[-i.psnr for i in individuals], shares]), np.array([-WORST, 1.0, 1.0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=1024, help="a multiple of 64")
    options = parser.parse_args()
    ranges = [cost_range(SPACE, term) for term in PROBLEM.terms]
    searches = {
        "random": at_random,
        "NSGA-II": lambda *args: evolved(*args, exploitation=0.0),
        "hybrid": lambda *args: evolved(*args, exploitation=FALSRSettings().exploitation),
    }
    volumes: dict[str, list[float]] = {name: [] for name in searches}
    best: dict[str, list[float]] = {name: [] for name in searches}
    seconds = dict.fromkeys(searches, 0.0)
    for seed in range(options.seeds):
        surrogate = Surrogate(seed)
        for name, search in searches.items():
            began = time.perf_counter()
            found = search(surrogate, options.evaluations, seed)
            seconds[name] += time.perf_counter() - began
            volumes[name].append(volume(found, ranges))
            best[name].append(max(individual.psnr for individual in found))
    table = Table(title=f"{options.evaluations} evaluations, {options.seeds} seeds: mean and standard deviation")
    for column in ("search", "hypervolume, dB", "best, dB", "better than NSGA-II", "p (Wilcoxon)", "seconds a search"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for name in searches:
        against = np.array(volumes[name]) - np.array(volumes["NSGA-II"])
        better, p = "", ""
        if name != "NSGA-II":
            better = f"{int((against > 0).sum())} of {options.seeds}"
            p = f"{wilcoxon(against).pvalue:.2g}"
        table.add_row(
            name,
            f"{np.mean(volumes[name]):.3f} ± {np.std(volumes[name], ddof=1):.3f}",
            f"{np.mean(best[name]):.2f} ± {np.std(best[name], ddof=1):.2f}",
            better,
            p,
            f"{seconds[name] / options.seeds:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
