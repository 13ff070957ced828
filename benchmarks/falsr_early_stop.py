"""What giving up hopeless candidates halfway would have cost a search that gave up none, and saved.

    hwnas search --algorithm falsr --data photos/ --workers 2 --out runs/x --set search.evaluation.early_stop=100
    python benchmarks/falsr_early_stop.py runs/x

With a margin of 100 dB nobody is given up, but how good each candidate was halfway is in the log. For several margins,
this says who would have been: in how many of these the rule was wrong, since they are on the front in the end.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hwnas.config import load_config
from hwnas.cost_models import cost_model
from hwnas.run_directory import RunDirectory
from hwnas.searches.falsr.log import Log
from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.searches.falsr.trial import RUNG

MARGINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    settings = FALSRSettings.model_validate(load_config(RunDirectory(run).config).search)
    log = Log(run / "search" / "trials.jsonl")
    with (run / "candidates.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["psnr_db"]]
    columns = [cost_model(o).measured_column if cost_model(o).measurable else o for o in settings.objectives]
    costs = {row["architecture"]: [float(row[column]) for column in columns] for row in rows}
    halfway = {row["architecture"]: log.trials[row["architecture"]].outcome for row in rows}

    def behind(row: dict[str, str]) -> float | None:
        """dB that a candidate was behind the best of earlier generations that cost no more, halfway."""
        mine = row["architecture"]
        rivals = [
            outcome.rung_psnr
            for other in rows
            if int(other["generation"]) < int(row["generation"])
            and all(a <= b for a, b in zip(costs[other["architecture"]], costs[mine], strict=True))
            and (outcome := halfway[other["architecture"]]) is not None
            and outcome.rung_psnr is not None
        ]
        own = halfway[mine]
        return max(rivals) - own.rung_psnr if rivals and own is not None and own.rung_psnr is not None else None

    deficits = [(row, behind(row)) for row in rows]
    front = sum(bool(row["front"]) for row in rows)
    table = Table(title=f"{len(rows)} candidates of {run.name}, {front} of them on the front")
    for column in ("margin, dB", "given up", "steps saved", "of the front given up"):
        table.add_column(column, justify="right")
    for margin in MARGINS:
        given_up = [row for row, deficit in deficits if deficit is not None and deficit > margin]
        saved = len(given_up) * (1 - RUNG) / len(rows)
        lost = sum(bool(row["front"]) for row in given_up)
        table.add_row(f"{margin:g}", str(len(given_up)), f"{saved:.0%}", f"{lost} of {front}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
