"""What a search leaves in its run directory."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import suppress

from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError
from hwnas.files import write_text
from hwnas.run_directory import RunDirectory
from hwnas.searches.base import SearchResult


def save_result(run: RunDirectory, result: SearchResult, columns: tuple[str, str]) -> None:
    """Write the front, its architectures, and last the chosen one: where that is, the search is complete.

    Args:
        run: where to.
        result: what was found.
        columns: what the candidates' ``score`` and ``psnr`` are called.
    """
    buffer = io.StringIO()
    metrics = list(result.front[0].costs)
    measurable = [m for m in dict.fromkeys((*metrics, *result.front[0].measured)) if cost_model(m).measurable]
    header = [f"{metric}_predicted" if metric in measurable else metric for metric in metrics]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            "point",
            *header,
            *(cost_model(m).measured_column for m in measurable),
            *columns,
            "chosen",
            "architecture",
        ]
    )
    for i, candidate in enumerate(result.front):
        path = run.front_architecture(i)
        candidate.architecture.save(path)
        costs = [exactly(candidate.costs[metric]) for metric in metrics]
        chosen = int(candidate.architecture.fingerprint == result.chosen.fingerprint)
        row = [
            i,
            *costs,
            *(f"{candidate.measured[m]:.6g}" if m in candidate.measured else "" for m in measurable),
            f"{candidate.score:.4f}",
            f"{candidate.psnr:.3f}",
            chosen,
            path.relative_to(run.path),
        ]
        writer.writerow(row)
    write_text(run.front, buffer.getvalue())
    if result.missed is None:
        run.missed.unlink(missing_ok=True)
    else:
        write_text(run.missed, f"{result.missed}\n")
    result.chosen.save(run.architecture)


def exactly(cost: float) -> str:
    """What is counted with all its digits, what is measured with ten."""
    return f"{cost:.0f}" if cost == round(cost) else f"{cost:.10g}"


def known_cost(row: Mapping[str, str], metric: str, *methods: str) -> tuple[float, str]:
    """The best that a row of the front says of a cost, and how that is known.

    Args:
        row: of `read_front`.
        metric: which cost.
        methods: in which order; by default what a device said before what was predicted before what was counted.

    Raises:
        HwnasError: if it says nothing.
    """
    for method in methods or ("measured", "vendor-estimated", "predicted", "counted"):
        value = row.get(metric if method == "counted" else f"{metric}_{method.replace('-', '_')}")
        with suppress(ValueError):
            if value:
                return float(value), method
    raise HwnasError(f"front.csv does not say what {metric} is; restore it, or delete architecture.json to derive both")


def read_front(run: RunDirectory) -> list[dict[str, str]]:
    """The rows of the front as they stand in its file.

    Raises:
        HwnasError: if it is missing or damaged.
    """
    try:
        with run.front.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise HwnasError(f"cannot read {run.front}: {why}; {_restore(run)}") from error
    if not any(row.get("chosen") == "1" for row in rows):
        raise HwnasError(f"{run.front} has no chosen point; {_restore(run)}")
    return rows


def _restore(run: RunDirectory) -> str:
    return f"restore it, or delete {run.architecture} to derive both again"
