"""Small trilevel spaces, and a short search of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hwnas.budget import parse_budgets
from hwnas.networks.trilevel import CELL
from hwnas.progress import Progress, Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches import SearchTask
from hwnas.searches.trilevel.settings import TrilevelSettings
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import Choice
from hwnas.spaces.trilevel import CellChoice, TrilevelSpace, pack
from tests.falsr.searching import small_data


def small_space(name: str = "trilevel-b", **options: Any) -> TrilevelSpace:
    """Cells of two layers, of 8 channels."""
    small = {"cells": 2, "channels": 8, "layers": 2, "widths": (4, 8), "scale": 2}
    space = SPACES[name](SpaceOptions.model_validate(small | options))
    assert isinstance(space, TrilevelSpace)
    return space


def everything(space: TrilevelSpace) -> Iterator[Choice]:
    """All choices of a space."""
    operators = list(itertools.product(range(len(space.operators)), repeat=space.layers))
    widths = list(itertools.product(range(len(space.widths)), repeat=space.layers - 1))
    cells = [CellChoice(*parts) for parts in itertools.product(operators, widths)]
    for i, path in enumerate(space.graph.paths):
        for chosen in itertools.product(cells, repeat=path.count(CELL)):
            yield pack(i, chosen)


SHORT = {"epochs": 3, "warmup_epochs": 1, "steps_per_epoch": 4, "batch": 2, "crop": 8, "front_points": 3}


def small_task(
    path: Path,
    budgets: Sequence[str] = (),
    space: TrilevelSpace | None = None,
    progress: Progress | None = None,
    target: str = "cpu",
    **settings: Any,
) -> SearchTask[TrilevelSpace]:
    space = space or small_space(bicubic=True)
    return SearchTask(
        space=space,
        budgets=parse_budgets(budgets, target=target),
        data=small_data(space.scale),
        settings=TrilevelSettings.model_validate(SHORT | {"alpha_learning_rate": 0.05} | settings),
        target=target,
        seed=0,
        run=RunDirectory(path),
        progress=progress or Silent(),
    )
