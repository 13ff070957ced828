"""A short search of a small space, and a record of the crops it drew and the steps it took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hwnas.budget import Budget
from hwnas.checkpoints import load_state
from hwnas.data.crops import ImagePairs
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.progress import Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches import SearchResult, SearchTask
from hwnas.searches.feasibility import cost_range
from hwnas.searches.quantnas.search import QuantNAS
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.spaces import SPACES, LayerwiseSpace, SpaceOptions

CORNERS = ((0, 150), (100, 180), (200, 250), (380, 60), (300, 300))


@dataclass(frozen=True)
class Draw:
    """The images that a batch was drawn from, None for all, and its crops."""

    images: frozenset[int] | None
    lr: Tensor
    hr: Tensor


@dataclass(frozen=True, eq=False)
class RecordedPairs(ImagePairs):
    """Image pairs that remember what was drawn of them."""

    draws: list[Draw] = field(default_factory=list)

    def sample(
        self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        lr, hr = super().sample(rng, batch, crop, indices)
        self.draws.append(Draw(None if indices is None else frozenset(indices), lr, hr))
        return lr, hr


@dataclass(frozen=True)
class Step:
    """An optimiser's step as it begins, and the images that the batch before it was drawn from."""

    of: Literal["alphas", "weights"]
    options: dict[str, Any]
    values: list[Tensor]
    gradients: list[Tensor]
    images: frozenset[int] | None


class Listener(Silent):
    """Keeps the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@dataclass(frozen=True)
class Searched:
    """A search that is over."""

    result: SearchResult
    steps: list[Step]
    draws: list[Draw]
    run: RunDirectory
    said: list[str]

    def of(self, parameters: str) -> list[Step]:
        """The steps of one optimiser."""
        return [step for step in self.steps if step.of == parameters]

    @property
    def state(self) -> dict[str, Any]:
        return load_state(self.run.search_state)

    def scalars(self, name: str) -> list[float]:
        """What TensorBoard shows, one value an epoch."""
        events = EventAccumulator(str(self.run.events / "search"))
        events.Reload()
        return [event.value for event in events.Scalars(f"search/{name}")]


@contextmanager
def every_step_noted(pairs: RecordedPairs) -> Iterator[list[Step]]:
    steps: list[Step] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        steps.append(
            Step(
                # The alphas are one vector a layer; the weights are convolutions too.
                "alphas" if all(p.dim() == 1 for p in group["params"]) else "weights",
                {name: value for name, value in group.items() if name != "params"},
                [p.detach().clone() for p in group["params"]],
                [p.grad.clone() for p in group["params"]],
                pairs.draws[-1].images,
            )
        )

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


def photographs(*sides: int) -> list[tuple[str, ImageArray]]:
    picture: ImageArray = data.astronaut()
    return [(f"{i}", picture[y : y + s, x : x + s]) for i, (s, (y, x)) in enumerate(zip(sides, CORNERS, strict=False))]


def small_space(name: str = "quantnas", **options: object) -> LayerwiseSpace:
    """A published space with its 3x3 and 5x5 convolutions alone: few enough architectures to look at all of them."""
    fields = {"channels": 6, "cells": 1, "scale": 2, "residual": "add"} | options
    space = SPACES[name](SpaceOptions.model_validate(fields))
    choices = {
        layer: tuple(s for s in candidates if s.kind == "conv" and s.groups == 1 and s.kernel > 1)
        for layer, candidates in space.choices.items()
    }
    return LayerwiseSpace(name=name, wiring=space.wiring, choices=choices)


VALIDATION = [("held out", photographs(48)[0][1])]


def search(
    path: Path,
    space: LayerwiseSpace,
    budgets: tuple[Budget, ...] = (),
    sides: Sequence[int] = (32, 32, 32),
    **settings: Any,
) -> Searched:
    """A search of two epochs of two steps where the settings do not say otherwise."""
    pairs = RecordedPairs.prepare(photographs(*sides), space.wiring.scale)
    assert isinstance(pairs, RecordedPairs)
    fields = {"epochs": 2, "steps_per_epoch": 2, "batch": 2, "crop": 8, "front_points": 2} | settings
    run = RunDirectory.create(path) if not path.exists() else RunDirectory(path)
    listener = Listener()
    task = SearchTask(
        space=space,
        budgets=budgets,
        data=TrainingData(pairs, VALIDATION),
        settings=QuantNASSettings.model_validate(fields),
        target="cpu",
        seed=0,
        run=run,
        progress=listener,
    )
    with every_step_noted(pairs) as steps:
        result = QuantNAS().run(task)
    return Searched(result, steps, pairs.draws, run, listener.lines)


def centre(space: LayerwiseSpace, metric: str) -> float:
    """Expected cost where all candidates are equally probable."""
    return cost_range(space, Budget(metric, math.inf, (32, 32))).centre
