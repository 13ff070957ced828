"""Holds the front of a FALSR search against random networks of the same space and budgets, trained for as short a time.

hwnas search --algorithm falsr --data photos/ --workers 2 --out runs/x
python benchmarks/falsr_against_random.py runs/x [--networks 20] [--workers 2]
"""

from __future__ import annotations

import argparse
import csv
import os
import random
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console
from rich.table import Table

from hwnas import pipeline
from hwnas.budget import format_quantity
from hwnas.cli.console import progress
from hwnas.config import load_config
from hwnas.run_directory import RunDirectory
from hwnas.searches import Machines, SearchTask
from hwnas.searches.falsr.evolution import Proposal
from hwnas.searches.falsr.judge import TrialJudge, open_workers
from hwnas.searches.falsr.log import Log
from hwnas.searches.falsr.problem import Problem
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.searches.falsr.trial import TrialData
from hwnas.spaces.falsr import FALSRSpace, Genotype


@dataclass(frozen=True)
class Point:
    psnr: float
    costs: tuple[float, ...]

    def is_at_least(self, other: Point) -> bool:
        """Whether it dominates or equals another."""
        return self.psnr >= other.psnr and all(a <= b for a, b in zip(self.costs, other.costs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    config = load_config(RunDirectory(options.run).config)
    space, settings = pipeline.space_of(config), FALSRSettings.model_validate(config.search)
    assert isinstance(space, FALSRSpace)
    budgets = pipeline.budgets_of(config)
    problem = Problem(space, settings.objectives, budgets, pipeline.input_size_of(config))
    if problem.measured:
        parser.error("random networks are not measured; name a run whose costs are counted")
    scratch = RunDirectory(options.run / "random")
    with progress() as tell:
        data = pipeline.load_data(config, space.scale, tell)
        task = SearchTask(
            space, budgets, data, settings, config.target, config.seed, scratch, tell, Machines(options.workers)
        )
        rng, proposals = random.Random(options.seed), list[Proposal]()
        while len(proposals) < options.networks:
            genotype: Genotype = space.sample_genotype(rng)
            if not problem.is_over(costs := problem.counted(genotype)):
                proposals.append(Proposal(genotype, costs, "random", genotype))
        images = tuple(data.train.room_for(settings.evaluation.crop, tell.say))
        bar = tell.task("random networks", len(proposals))
        log = Log(scratch.path / "trials.jsonl")
        with open_workers(task, TrialData.of(data, space.scale, settings.evaluation.validation_crop)) as workers:
            judge = TrialJudge(task, problem, settings.evaluation, log, workers, images, bar)
            qualities = judge.train(proposals, 0)
    terms = [problem.terms[i] for i in problem.objectives]
    with (options.run / "candidates.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["front"]]
    front = [Point(float(row["psnr_db"]), tuple(float(row[t.model.name]) for t in terms)) for row in rows]
    table = Table(
        title=f"{options.networks} random networks against the {len(front)} of the front of {options.run.name}"
    )
    for column in ("random", *(term.model.name for term in terms), "PSNR dB", "points that are at least as good"):
        table.add_column(column, justify="right")
    behind = 0
    for i, (proposal, psnr) in enumerate(zip(proposals, qualities, strict=True)):
        if psnr is None:
            continue
        one = Point(round(psnr, 4), tuple(proposal.costs[t] for t in problem.objectives))
        better = sum(point.is_at_least(one) for point in front)
        behind += better > 0
        costs = [format_quantity(cost, term.model.unit) for cost, term in zip(one.costs, terms, strict=True)]
        table.add_row(str(i), *costs, f"{one.psnr:.3f}", str(better))
    console = Console(width=120)
    console.print(table)
    console.print(f"dominated or equalled: {behind} of {options.networks}")


if __name__ == "__main__":
    main()
