"""What relaxations and orderings make of a TrilevelNAS search: the same search, with one of them changed at a time.

    python benchmarks/trilevel_relaxations.py --data photos/ --space trilevel-b --budget 2GFLOPs --out results.json

For each: how certain operators are (mean of the largest weight of each layer), how many paths are left, what cutting
the supernet to its likeliest network costs (validation PSNR of the mixture and of the one path, both of the supernet's
weights, not trained any further), what the likeliest within the budget has, how many pairs of neighbours on a path are
in order, and how much of the longest path is pruned. A second seed is a second search.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console
from rich.table import Table

from hwnas import pipeline
from hwnas.cli.console import progress
from hwnas.config import load_preset, make_config
from hwnas.run_directory import RunDirectory
from hwnas.searches import SearchTask
from hwnas.searches.trilevel.choices import TrilevelChoices
from hwnas.searches.trilevel.relaxation import mean_largest
from hwnas.searches.trilevel.search import TrilevelSession, scores_of
from hwnas.searches.trilevel.settings import TrilevelSettings
from hwnas.spaces.trilevel import TrilevelSpace

SEARCHES = (
    {"relaxation": "sparsestmax", "ordering": "hinge"},
    {"relaxation": "softmax", "ordering": "hinge"},
    {"relaxation": "sparsemax", "ordering": "hinge"},
    {"relaxation": "sparsestmax", "ordering": "projected"},
    {"relaxation": "sparsestmax", "ordering": "literal"},
)
"""What is compared; the first is the default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--space", default="trilevel-b")
    parser.add_argument("--budget", default="2GFLOPs")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    asked = {"algorithm": "trilevel", "space_name": options.space, "budgets": [options.budget], "data": options.data}
    rows = []
    with progress() as tell:
        for seed in range(options.seeds):
            for search in SEARCHES:
                config = make_config([load_preset(options.preset), asked, {"seed": seed, "search": search}])
                space, settings = pipeline.space_of(config), TrilevelSettings.model_validate(config.search)
                assert isinstance(space, TrilevelSpace)
                data = pipeline.load_data(config, space.scale, tell)
                budgets = pipeline.budgets_of(config)
                with TemporaryDirectory() as folder:
                    run = RunDirectory(Path(folder))
                    task = SearchTask(space, budgets, data, settings, config.target, seed, run, tell)
                    rows.append({"seed": seed, **search, **searched(task, settings)})
                if options.out is not None:
                    options.out.write_text(json.dumps(rows, indent=1))
    table = Table(title=f"{options.space}, {options.budget}, preset {options.preset}, {options.data}")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=200).print(table)


def searched(task: SearchTask[TrilevelSpace], settings: TrilevelSettings) -> dict[str, float | int | str]:
    """One search, and what became of it."""
    session = TrilevelSession(task, settings)
    session.run()
    supernet, space = session.supernet, task.space
    relaxed = supernet.relaxed()
    mixture = session.validation.psnr(supernet)
    choices = TrilevelChoices(space, scores_of(supernet))
    likeliest, choice = choices.best(()), choices.best(task.budgets)
    assert likeliest is not None and choice is not None
    supernet.choose(likeliest)
    cut = session.validation.psnr(supernet)
    supernet.choose(choice)
    within = session.validation.psnr(supernet)
    paths = space.graph.paths
    path = paths[likeliest[0]]
    return {
        "mean_largest_operator": mean_largest(relaxed.operators.detach()),
        "paths_left": int((relaxed.paths > 0).sum()),
        "largest_path": float(relaxed.paths.detach().max()),
        "mixture_db": mixture,
        "likeliest_db": cut,
        "drop_db": mixture - cut,
        "within_budget_db": within,
        "in_order": supernet.paths.ordered_share(relaxed.paths.detach()),
        "pruned_steps": max(map(len, paths)) - len(path),
        "path": "".join(map(str, path)),
        "likeliest_over_budget": choices.price(task.budgets[0])(likeliest) / task.budgets[0].limit,
    }


if __name__ == "__main__":
    main()
