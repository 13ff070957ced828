"""QuantNAS, figures 5 and 6: PSNR by BitOps, over penalties, and the whole front of one search beside it.

    python benchmarks/tables/quantnas_5.py --data t91-bsd200 --test Set14 --docs

The paper has a search for each point. Of one of those, that of the least penalty but nothing, the points of its front
are trained too, for the first seed. The paper's figures are drawn, not told; its penalties are those here, beside an
entropy term that is the preset's, 20 times the published one, since steps are few. With --quick there is one penalty of
each series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from driver import main
from published import RUN, SEARCHED, SMALL, Published, Row, Size

OURS = ("--bits", "4,8", "--bicubic")
SPACES = {
    "with AdaDM": (*OURS, "--residual", "adadm"),
    "without AdaDM": (*OURS, "--residual", "add"),
    "shared weights": (*OURS, "--residual", "add", "--quantization", "shared"),
    "1 cell": (*OURS, "--residual", "adadm", "--cells", "1"),
    "6 cells": (*OURS, "--residual", "adadm", "--cells", "6"),
}
"""Series of the figures: of 3 cells with noise unless said otherwise."""

PENALTIES = ("0", "5e-5", "1e-4", "1e-3")
EDMIPS = ("0", "1e-3", "1e-2", "1e-1")
ONE, POINTS = "5e-5", 8
"""The search whose front is trained, and how many points it has at most."""


def _name(series: str, penalty: str) -> str:
    return f"{series.replace(' ', '-').lower()}-{penalty}"


def _row(series: str, penalty: str, *space: str) -> Row:
    labels = {"series": series, "penalty": penalty}
    return Row(
        _name(series, penalty), labels, (("search", *space, "--penalty", penalty), ("train", RUN)), series=series
    )


def _point(i: int) -> Row:
    command = ("train", SEARCHED, "--candidate", str(i))
    series, point = f"front of the search of {ONE}", (_name("with AdaDM", ONE), i)
    labels = {"series": series, "penalty": ONE, "point": str(i)}
    return Row(f"front-{i}", labels, (command,), point=point, series=series)


def rows(penalties: Sequence[str] = PENALTIES, mixed: Sequence[str] = EDMIPS) -> list[Row]:
    ours = [_row(series, penalty, *space) for series, space in SPACES.items() for penalty in penalties]
    fixed = ("--separate", "--bits", "4,8", "--bicubic", "--quantization", "shared", "--set", "search.entropy=0")
    edmips = [
        _row(f"EdMIPS {name}", penalty, "--fixed", name, *fixed) for name in ("espcn", "srresnet") for penalty in mixed
    ]
    first, others = ours[: len(penalties)], ours[len(penalties) :]
    return [*first, *(_point(i) for i in range(POINTS)), *others, *edmips]


if __name__ == "__main__":
    size = Size(SMALL.search, tuple(s.replace("steps_per_epoch=200", "steps_per_epoch=100") for s in SMALL.train))
    title = "QuantNAS, figures 5 and 6: PSNR by BitOps over penalties"
    note = "The entropy term weighs 0.002 in ours, and 1e-4 in the paper; EdMIPS has none."
    table = Published("quantnas-5", title, rows, size=size, note=note)
    main(table, quick=replace(table, rows=lambda: rows((ONE,), EDMIPS[-1:])))
