"""``candidates.csv``: a row for each candidate that a search tried."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from hwnas.searches.falsr.evolution import Proposal
from hwnas.searches.falsr.log import Trial
from hwnas.searches.falsr.problem import Problem
from hwnas.searches.results import exactly
from hwnas.spaces.falsr import CELLS, Genotype

Tried = Mapping[Genotype, tuple[Proposal, int, Trial]]
"""Each candidate with the proposal it was, its generation, and what became of it."""


def candidates_table(problem: Problem, tried: Tried, front: Mapping[Genotype, int]) -> str:
    """The table as CSV.

    Args:
        problem: whose costs.
        tried: the candidates, in the order of the rows.
        front: number of each on the front that is there.
    """
    names = [t.model.measured_column if t.model.measurable else t.model.name for t in problem.terms]
    rows = []
    for genotype, (proposal, generation, trial) in tried.items():
        row: dict[str, object] = {"generation": generation, "origin": proposal.origin}
        row |= {name: exactly(cost) for name, cost in zip(names, proposal.costs, strict=True)}
        row |= dict.fromkeys(("psnr_db", "front", "steps", "seconds", "stopped"), "")
        if (done := trial.outcome) is not None:
            row |= {"psnr_db": f"{done.psnr:.4f}", "front": front.get(genotype, ""), "steps": done.steps}
            row |= {"seconds": f"{done.seconds:.2f}", "stopped": int(done.stopped)}
        rows.append(
            row | {"error": trial.error or "", "architecture": trial.architecture, "network": describe(genotype)}
        )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def describe(genotype: Genotype) -> str:
    """A network in a line: its cells as the paper writes them, and its rows of connections."""
    rows = ".".join("".join(map(str, row)) for row in genotype.macro)
    return " ".join([*(CELLS[cell].label for cell in genotype.cells), rows])
