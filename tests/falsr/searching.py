"""Small searches: few cells, few pixels, few steps."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.budget import parse_budgets
from hwnas.data.crops import ImagePairs
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.progress import Progress, Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches import Machines, SearchResult, SearchTask
from hwnas.searches.falsr.evolution import Proposal
from hwnas.searches.falsr.search import FALSR
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.spaces.falsr import FALSRSpace, Genotype

TINY = {"steps": 4, "batch": 2, "crop": 8, "learning_rate": 2e-3}


def small_space(**fields: Any) -> FALSRSpace:
    return FALSRSpace.model_validate({"name": "falsr", "cells": 2, "bicubic": True, **fields})


def small_settings(**fields: Any) -> FALSRSettings:
    return FALSRSettings.model_validate({"population": 4, "generations": 2, "evaluation": TINY, **fields})


def picture(seed: int, height: int = 40, width: int = 48) -> ImageArray:
    """Smooth waves of a few frequencies, which a network can learn to enlarge better than bicubic does."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(np.sin(rng.uniform(0.2, 1.2) * x + rng.uniform(0.2, 1.2) * y + c) for c in range(4))
    colours = np.stack([waves * rng.uniform(15, 30) + 128 for _ in range(3)], -1)
    return np.clip(colours, 0, 255).astype(np.uint8)


def small_data(scale: int = 2) -> TrainingData:
    train = ImagePairs.prepare([(f"{seed}", picture(seed)) for seed in range(6)], scale)
    return TrainingData(train, [("v", picture(100)), ("w", picture(101, 44, 36))])


def small_task(
    path: Path, budgets: Sequence[str] = (), progress: Progress | None = None, **settings: Any
) -> SearchTask:
    return SearchTask(
        space=small_space(),
        budgets=parse_budgets(budgets),
        data=small_data(),
        settings=small_settings(**settings),
        target="cpu",
        seed=0,
        run=RunDirectory(path),
        progress=progress or Silent(),
        machines=Machines(workers=1),
    )


def run(path: Path, budgets: Sequence[str] = (), **settings: Any) -> SearchResult:
    return FALSR().run(small_task(path, budgets, **settings))


class Surrogate:
    """An instant `Judge`: quality grows with the logarithm of the cost, and each gene adds its own."""

    def __init__(self, cells: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        self.effects = [[rng.gauss(0, 1) for _ in range(192)] for _ in range(cells)]
        self.trained: list[Proposal] = []
        self.fails: set[int] = set()

    def quality(self, genotype: Genotype, costs: tuple[float, ...]) -> float:
        effect = sum(self.effects[i][cell] for i, cell in enumerate(genotype.cells)) / len(genotype.cells)
        return 30 + math.log10(costs[0]) + 0.5 * effect

    def measure(self, genotypes: Sequence[Genotype]) -> list[dict[int, float]]:
        raise AssertionError("nothing is measured")

    def train(self, proposals: Sequence[Proposal], generation: int) -> list[float | None]:
        self.trained += proposals
        return [None if i in self.fails else self.quality(p.genotype, p.costs) for i, p in enumerate(proposals)]
