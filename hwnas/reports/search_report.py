"""``report.html``: what a search tried and what it found, in pictures that need neither a network nor a server.

The file carries plotly.js with it. A content security policy allows the two scripts that it has, by their hashes, and
no request at all, so that neither the name of a run nor anything else in it can do more than be read.
"""

from __future__ import annotations

import textwrap
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from pathlib import Path

from hwnas.budget import format_quantity
from hwnas.files import write_text
from hwnas.reports.search_figures import CHOSEN, FRONT, GREY, Generation, Objective, Point, as_json, pictures

_HOVER_WIDTH = 40
"""Characters of a line of a hover text: what a phone has room for."""

_ROWS = 8
"""Of the table that says how the search went."""


def write_search_report(
    path: Path,
    title: str,
    subtitle: Sequence[str],
    objectives: Sequence[Objective],
    candidates: Sequence[Point],
    history: Sequence[Generation],
) -> None:
    """Write one HTML file that shows a search.

    Args:
        path: of the file.
        title: of the page; any text.
        subtitle: lines of text beneath it: the target, the budget, how many candidates were rejected or failed.
        objectives: the costs, in the order of `Point.costs`.
        candidates: all that were evaluated.
        history: the generations in their order.

    Raises:
        HwnasError: if the file cannot be written; an earlier one is then as it was.
    """
    # Here, since the command line has to start fast.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["digest"] = lambda script: f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"
    front = sorted((p for p in candidates if p.front is not None), key=lambda p: p.front or 0)
    page = environment.get_template("search.html.j2").render(
        title=title,
        subtitle=subtitle,
        colours={"grey": GREY, "front": FRONT, "chosen": CHOSEN},
        plotly=Markup(get_plotlyjs()),
        hover=Markup(as_json([_hover(objectives, point) for point in candidates])),
        pictures=[(Markup(picture.figure), picture.caption) for picture in pictures(objectives, candidates, history)],
        headings=[objective.heading for objective in objectives],
        front=[(p.front, f"{p.psnr:.2f}", _costs(objectives, p.costs), p.network, p.chosen) for p in front],
        any_chosen=any(point.chosen for point in candidates),
        any_stopped=any(point.stopped for point in candidates),
        candidates=bool(candidates),
        progress=_progress(objectives, history),
    )
    write_text(path, page)


def _hover(objectives: Sequence[Objective], point: Point) -> str:
    """What is said of a candidate where it is pointed at; plotly reads tags in it."""
    place = f"point {point.front} on the front" if point.front is not None else "not on the front"
    lines = [
        f"{place}, chosen" if point.chosen else place,
        f"generation {point.generation}" + ", given up early" * point.stopped,
        f"PSNR {point.psnr:.2f} dB",
        *(f"{o.heading}: {cost}" for o, cost in zip(objectives, _costs(objectives, point.costs), strict=True)),
        *textwrap.wrap(point.network, _HOVER_WIDTH, break_on_hyphens=False),
    ]
    return "<br>".join(escape(line, quote=False) for line in lines)


def _costs(objectives: Sequence[Objective], costs: Sequence[float]) -> list[str]:
    return [format_quantity(cost, o.unit) for o, cost in zip(objectives, costs, strict=True)]


def _progress(objectives: Sequence[Objective], history: Sequence[Generation]) -> list[tuple[int, str, str, list[str]]]:
    """Number, candidates so far, best PSNR and least costs so far of some generations, first and last among them."""
    last = len(history) - 1
    shown = sorted({round(i * last / (_ROWS - 1)) for i in range(_ROWS)}) if history else []
    return [
        (one.number, f"{one.evaluated:,}", f"{one.best_psnr:.2f}", _costs(objectives, one.least))
        for one in (history[i] for i in shown)
    ]
