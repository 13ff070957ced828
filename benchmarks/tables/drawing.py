"""The pictures of tables: PSNR over what rows are compared by."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.files import atomic_path

Figures = Mapping[str, float]
"""What was measured of a run, by column."""

SEVERAL = 4
"""Ratio of costs from which on they are drawn on a logarithmic scale; below it such a scale has hardly a number."""


def draw(path: Path, title: str, x: str, series: Mapping[str, Sequence[Sequence[Figures]]]) -> None:
    """One picture for each benchmark that was scored; none where nothing was.

    Args:
        path: of a PNG file.
        title: above all.
        x: the column to draw over; on a logarithmic scale where the largest is several times the smallest.
        series: for each its rows, and for each row its runs; means are joined, runs are dots.
    """
    runs = [run for rows in series.values() for row in rows for run in row]
    scored = list(dict.fromkeys(name for run in runs for name in run if name.endswith(" dB")))
    if not scored:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    costs = [run[x] for run in runs]
    is_wide = max(costs) > SEVERAL * min(costs)
    figure, axes = pyplot.subplots(1, len(scored), figsize=(6.4 * len(scored), 4.8), squeeze=False)
    for axis, column in zip(axes[0], scored, strict=True):
        axis.set(xlabel=x, ylabel=f"PSNR on {column.removesuffix(' dB')}, dB", xscale="log" if is_wide else "linear")
        for name, rows in series.items():
            there = [[(run[x], run[column]) for run in row if column in run] for row in rows]
            means = sorted(tuple(map(statistics.fmean, zip(*row, strict=True))) for row in there if row)
            if not means:
                continue
            (line,) = axis.plot(*zip(*means, strict=True), marker="o", label=name)
            axis.scatter(*zip(*(point for row in there for point in row), strict=True), color=line.get_color(), s=8)
        if is_wide:
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.ticklabel_format(axis="y", useOffset=False)
        bicubic = [run[other] for run in runs if (other := column.replace(" dB", " bicubic")) in run]
        if bicubic:
            axis.axhline(statistics.fmean(bicubic), color="grey", linestyle=":", label="bicubic enlargement")
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize="small")
    figure.suptitle(textwrap.fill(title, 60 * len(scored)))
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)
