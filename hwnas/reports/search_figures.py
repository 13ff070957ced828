"""The pictures of a search: its candidates by each pair of objectives, and its hypervolume."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any

from hwnas.budget import format_quantity

# Okabe and Ito's blue and vermilion, which the colour-blind tell apart; shapes say the same once more.
GREY, FRONT, CHOSEN = "#8c8c8c", "#0072b2", "#d55e00"

_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
_QUALITY = "PSNR after short training (dB)"


@dataclass(frozen=True, slots=True)
class Objective:
    """A cost that was minimised; the quality is always PSNR.

    Attributes:
        name: for people: "multiply-accumulates".
        unit: as of the cost model.
        sized_at: at which input it is taken, "256x256"; empty where it does not depend on that.
    """

    name: str
    unit: str
    sized_at: str

    @property
    def heading(self) -> str:
        return f"{self.name} at {self.sized_at}" if self.sized_at else self.name


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate that was evaluated.

    Attributes:
        generation: in which it was.
        psnr: after the short training, in dB.
        costs: one for each objective, in its unit.
        front: its number on the Pareto front of all objectives, which ``hwnas train --candidate`` takes; None if it is
            not there.
        chosen: whether it is what the search recommends.
        stopped: given up early; its PSNR is of that moment.
        network: its genotype, for people.
    """

    generation: int
    psnr: float
    costs: tuple[float, ...]
    front: int | None
    chosen: bool
    stopped: bool
    network: str


@dataclass(frozen=True, slots=True)
class Generation:
    """How far the search was after a generation.

    Attributes:
        number: of the generation.
        evaluated: candidates so far.
        hypervolume: of the front so far.
        best_psnr: so far, in dB.
        least: of each cost so far, of candidates that meet the constraints.
    """

    number: int
    evaluated: int
    hypervolume: float
    best_psnr: float
    least: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as JSON, and what one sees on it."""

    figure: str
    caption: str


def pictures(
    objectives: Sequence[Objective], candidates: Sequence[Point], history: Sequence[Generation]
) -> list[Picture]:
    """All of them; none of what there is nothing of."""
    found = [_scatter(objectives, candidates, pair) for pair in _pairs(objectives)] if candidates else []
    return [*found, _hypervolume(history)] if history else found


def _pairs(objectives: Sequence[Objective]) -> Iterable[tuple[int, int | None]]:
    """Horizontal and vertical cost of each picture; None is the quality."""
    costs = range(len(objectives))
    return [*((i, None) for i in costs), *combinations(costs, 2)]


def _scatter(objectives: Sequence[Objective], candidates: Sequence[Point], pair: tuple[int, int | None]) -> Picture:
    """All candidates by two objectives."""
    across, up = pair
    marked = [i for i, point in enumerate(candidates) if point.front is not None or point.chosen]
    others = sorted(set(range(len(candidates))) - set(marked))
    # Many are small, so that they are told apart and the line is seen.
    size = 3 if len(others) > 2000 else 5 if len(others) > 300 else 7
    front_size = 9 if len(marked) <= 60 else 6

    def trace(name: str, indices: Sequence[int], marker: Mapping[str, Any]) -> dict[str, Any]:
        points = [candidates[i] for i in indices]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [point.costs[across] for point in points],
            "y": [point.psnr if up is None else point.costs[up] for point in points],
            # The texts are the same on every picture: the page's script puts them in the place of these indices.
            "customdata": indices,
            "hoverinfo": "text",
            "marker": marker,
        }

    traces = [
        trace(
            "given up",
            [i for i in others if candidates[i].stopped],
            {"symbol": "circle-open", "color": GREY, "size": size, "opacity": 0.6, "line": {"width": 1}},
        ),
        trace(
            "candidates",
            [i for i in others if not candidates[i].stopped],
            {"color": GREY, "size": size, "opacity": 0.45},
        ),
    ]
    if up is None:
        steps = _steps((p.costs[across], p.psnr) for p in candidates if p.front is not None)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "front of the pair",
                "x": [cost for cost, _ in steps],
                "y": [psnr for _, psnr in steps],
                "line": {"shape": "hv", "color": FRONT, "width": 1.5},
                "hoverinfo": "skip",
            }
        )
    traces += [
        trace(
            "front",
            [i for i in marked if not candidates[i].chosen],
            {"color": FRONT, "size": front_size, "line": {"color": "white", "width": 1}},
        ),
        trace(
            "chosen",
            [i for i in marked if candidates[i].chosen],
            {"symbol": "diamond", "color": CHOSEN, "size": 14, "line": {"color": "white", "width": 1.5}},
        ),
    ]
    horizontal = objectives[across]
    if up is None:
        vertical = {"title": _title(_QUALITY)}
        caption = (
            f"PSNR against {horizontal.heading}; up and left is better. "
            "The line is the best PSNR of the front at up to each cost."
        )
        if len(objectives) > 1:
            caption += " Points of the front beneath it are cheaper in something else."
    else:
        vertical = _cost_axis(objectives[up], [point.costs[up] for point in candidates])
        caption = (
            f"{_capitalised(objectives[up].heading)} against {horizontal.heading}; down and left is cheaper. "
            "What is on the front and not cheapest has a higher PSNR."
        )
    across_axis = _cost_axis(horizontal, [point.costs[across] for point in candidates])
    return Picture(_figure(traces, across_axis, vertical), caption)


def _steps(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The front of cost and quality alone, cheapest first."""
    steps: list[tuple[float, float]] = []
    for cost, psnr in sorted(points, key=lambda point: (point[0], -point[1])):
        if not steps or psnr > steps[-1][1]:
            steps.append((cost, psnr))
    return steps


def _title(text: str) -> dict[str, Any]:
    """Of an axis; small enough for the whole of it to be on a phone."""
    return {"text": text, "font": {"size": 13}}


def _cost_axis(objective: Objective, costs: Sequence[float]) -> dict[str, Any]:
    # Milliseconds have their prefix already; d3 would write 0.5 of them as "500m".
    prefixed = format_quantity(1000, objective.unit).startswith("1 k")
    return {
        "title": _title(escape(f"{objective.heading} ({objective.unit})", quote=False)),
        # A logarithm shows nothing of what is free.
        "type": "log" if min(costs) > 0 else "linear",
        "tickformat": "~s" if prefixed else ",~r",
        # More than this, and plotly writes 6G, 7G, 8G and 9G over each other.
        "nticks": 3,
    }


def _hypervolume(history: Sequence[Generation]) -> Picture:
    trace = {
        "type": "scatter",
        "mode": "lines+markers" if len(history) <= 40 else "lines",
        "name": "hypervolume",
        "x": [generation.number for generation in history],
        "y": [generation.hypervolume for generation in history],
        "text": [
            f"generation {g.number}<br>hypervolume {g.hypervolume:.4g}<br>{g.evaluated:,} candidates so far"
            f"<br>best PSNR {g.best_psnr:.2f} dB"
            for g in history
        ],
        "hoverinfo": "text",
        "line": {"color": FRONT, "width": 1.5},
        "marker": {"size": 5},
    }
    caption = (
        "Hypervolume of the front after each generation: what the best network within budgets gains, averaged over all "
        "budgets. Where the line is level, the search found nothing better."
    )
    across: dict[str, Any] = {"title": _title("generation"), "tickformat": ",d", "rangemode": "nonnegative"}
    # Whole numbers only: there is no generation 1.5.
    if len(history) < 8:
        across["dtick"] = 1
    up = {"title": _title("hypervolume (dB)"), "rangemode": "nonnegative"}
    return Picture(_figure([trace], across, up), caption)


def _figure(traces: Sequence[Mapping[str, Any]], across: Mapping[str, Any], up: Mapping[str, Any]) -> str:
    """JSON of a figure; plotly holds its properties against those there are."""
    from plotly import graph_objects

    axis = {"gridcolor": "#e6e6e6", "linecolor": "#666", "ticks": "outside", "tickcolor": "#666", "zeroline": False}
    layout = {
        "template": "none",
        "xaxis": {**axis, "showline": True, "automargin": True, **across},
        "yaxis": {**axis, "showline": True, "automargin": True, **up},
        "font": {"family": _FONT, "size": 13, "color": "#222"},
        "margin": {"l": 50, "r": 24, "t": 12, "b": 50},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#666",
            "font": {"size": 12, "color": "#222"},
            "align": "left",
        },
    }
    return as_json(graph_objects.Figure(data=traces, layout=layout).to_plotly_json())


def as_json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it ends that."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    """JSON has no word for what is not a number but null."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
