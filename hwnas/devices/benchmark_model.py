"""What LiteRT's benchmark_model prints, in the form that its documentation shows."""

from __future__ import annotations

import re

from hwnas.devices.runner.common import Layer
from hwnas.errors import HwnasError


def parse_mean(said: str) -> float:
    """Milliseconds of ``Inference timings in us: Init: 1230, ..., Inference (avg): 40567.8``.

    Raises:
        HwnasError: if there is no such line.
    """
    found = re.search(r"Inference \(avg\): ([0-9.e+]+)", said)
    try:
        if found is not None:
            return float(found[1]) / 1e3
    except ValueError:
        pass
    raise HwnasError("benchmark_model has told no time of an inference; this release of it may be too new")


def parse_memory(said: str) -> int | None:
    """Bytes of ``Overall peak memory footprint (MB) via periodic monitoring: 12.3``, or of the growth that it tells."""
    found = re.search(r"Overall peak memory footprint \(MB\)[^:]*: ([0-9.]+)", said) or re.search(
        r"Memory footprint delta from the start of the tool \(MB\):.*overall=([0-9.]+)", said
    )
    try:
        return round(float(found[1]) * 2**20) if found else None
    except (ValueError, OverflowError):  # of dots alone
        return None


def parse_layers(said: str) -> list[Layer]:
    """The table ``Run Order`` of ``--enable_op_profiling``, whose columns are named in its first line."""
    # Before it there is another of the same form, of the initialisation.
    _, _, regular = said.partition("Operator-wise Profiling Info for Regular Benchmark Runs")
    _, _, table = regular.partition(" Run Order ")
    rows = table.partition("=\n")[2].splitlines()
    if not rows:
        return []
    names = re.findall(r"\[([^\]]+)\]", rows[0])
    found = []
    for row in rows[1:]:
        cells = row.strip().split("\t")
        if len(cells) != len(names):
            break
        fields = dict(zip(names, (cell.strip() for cell in cells), strict=True))
        try:
            milliseconds = float(fields["avg ms"])
        except (KeyError, ValueError):
            break
        found.append(
            {"name": fields.get("Name", "").strip("[]"), "kind": fields.get("node type", ""), "ms": milliseconds}
        )
    return found
