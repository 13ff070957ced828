"""Turns of networks, and what is certain of them."""

from __future__ import annotations

import math
import random
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .common import LAYER_RUNS, Layer, Model


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def median_interval(values: Sequence[float]) -> Optional[Tuple[float, float]]:
    """The 95 % confidence interval of the median, whatever the distribution; None of too few values.

    The number of values below the median is binomial, so the interval is between two of the ordered values. Values that
    are like those before them, since a clock drifts or something else runs for a while, are worth fewer: the interval
    is as wide as of so many independent ones (n (1 - r) / (1 + r), with r the correlation of being above the median
    with being so in the next turn), if they are more alike than chance has it 19 times in 20.

    Args:
        values: in the order in which they were found.
    """
    n, ordered = len(values), sorted(values)
    if n < 6:
        return None
    width = (n / 2 - _rank(n)) * _likeness(values)
    k = math.floor(n / 2 - width)
    return (ordered[k - 1], ordered[n - k]) if k > 0 else None


def _rank(n: int) -> int:
    """The k-th smallest and largest of n values have the median between them 19 times in 20."""
    if n > 500:  # where the binomial is normal, and its smallest probabilities are too small for a float
        return math.floor(n / 2 - 1.96 * math.sqrt(n) / 2)
    outside, below = 0.0, 0.5**n
    k = 0
    while outside + below <= 0.025:
        outside += below
        k += 1
        below *= (n - k + 1) / k
    return k


def _likeness(values: Sequence[float]) -> float:
    """How many times as wide an interval is as that of independent values."""
    middle = quantile(values, 0.5)
    above = [1.0 if value > middle else -1.0 if value < middle else 0.0 for value in values]
    square = sum(side * side for side in above)
    r = sum(side * after for side, after in zip(above, above[1:])) / square if square else 0.0
    return math.sqrt((1 + r) / (1 - r)) if r > 1.645 / math.sqrt(len(values)) else 1.0


def paired_ratios(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> List[float]:
    """Of two networks, for each round the median of the one's turn over that of the other's."""
    assert len(ours) == len(theirs), "they took turns"
    return [quantile(own, 0.5) / quantile(other, 0.5) for own, other in zip(ours, theirs)]


def uncertainty(samples: Sequence[float]) -> float:
    """Half the confidence interval of the median, as a share of it."""
    interval = median_interval(samples)
    return math.inf if interval is None else (interval[1] - interval[0]) / 2 / quantile(samples, 0.5)


def time_all(
    models: Sequence[Model], job: Mapping[str, Any], told: Callable[[int, float], None]
) -> List[List[List[float]]]:
    """Samples of each network in each round, in milliseconds.

    All take turns, in another order each time, so that a device that is slow for a while is slow for all. There are
    ``rounds`` of the job at least. There are more until every median is as certain as its ``precision`` asks for and
    there are ``enough`` samples, or its ``seconds`` are over. Of several networks it is the ratio to the first that has
    to be certain.

    Args:
        models: the networks; one may be there several times.
        job: with ``rounds``, ``precision``, ``seconds`` and ``enough``.
        told: called after each round that another one follows, with their number and the seconds since the first began.
    """
    for model in dict.fromkeys(models):
        model.warm_up()
    found: List[List[List[float]]] = [[] for _ in models]
    order, generator = list(range(len(models))), random.Random(0)
    started, rounds, next_look = time.monotonic(), 0, job["rounds"]
    while True:
        generator.shuffle(order)
        for i in order:
            found[i].append(models[i].samples())
        rounds += 1
        spent = time.monotonic() - started
        # Looking takes time too, in which caches go cold.
        if rounds >= next_look or (rounds >= job["rounds"] and spent >= job["seconds"]):
            next_look = rounds + max(1, rounds // 10)
            ratios = [paired_ratios(of_one, found[0]) for of_one in found[1:]]
            worst = max(map(uncertainty, ratios or [[quantile(turn, 0.5) for turn in found[0]]]))
            fewest = min(sum(map(len, of_one)) for of_one in found)
            if spent >= job["seconds"] or (worst <= job["precision"] and fewest >= job["enough"]):
                return found
        told(rounds, spent)


def medians(rows: Sequence[Tuple[str, str, float]]) -> List[Layer]:
    """Of (name, kind, milliseconds) one layer for each name, with the median of its last times."""
    times: Dict[str, List[float]] = {}
    kinds = {}
    for name, kind, ms in rows:
        times.setdefault(name, []).append(ms)
        kinds[name] = kind
    return [{"name": n, "kind": kinds[n], "ms": quantile(t[-LAYER_RUNS:], 0.5)} for n, t in times.items()]
