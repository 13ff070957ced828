"""Budgets as users write them: ``5GBitOps``, ``30GFLOPs@256x256``, ``300KParams``, ``8ms@180x320``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context

from hwnas.cost_models import COST_MODELS, CostModel, cost_model, target_cost_models
from hwnas.errors import UsageError
from hwnas.sizes import Size, parse_size

_PREFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_WHOLE_UNITS = ("ms",)
"""Units that have their prefix already."""

_GRAMMAR = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[A-Za-z]+)(?:@(?P<size>.+))?")


def format_quantity(value: float, unit: str, rounding: str = ROUND_HALF_EVEN) -> str:
    """A number with an SI prefix and its unit: ``4.629 GBitOps``; ``rounding`` is one of the decimal module's."""
    prefixes = () if unit in _WHOLE_UNITS else ("T", "G", "M", "k")
    prefix = next((p for p in prefixes if abs(value) >= _PREFIX[p.lower()]), "")
    four_digits = Context(prec=4, rounding=rounding).create_decimal_from_float(value / _PREFIX[prefix.lower()])
    return f"{float(four_digits):.4g} {prefix}{unit}"


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper bound on one cost.

    Attributes:
        metric: name of the cost model.
        limit: in the model's unit.
        input_size: low-resolution height and width at which the cost is taken.
    """

    metric: str
    limit: float
    input_size: Size

    @property
    def model(self) -> CostModel:
        return cost_model(self.metric)

    def __str__(self) -> str:
        return f"{self.format(self.limit)}{self.model.at(self.input_size)}"

    def is_missed(self, value: float) -> bool:
        """Whether a cost of ``value`` is over the limit."""
        return value > self.limit

    def format(self, value: float, rounding: str = ROUND_HALF_EVEN) -> str:
        """``value`` in the budget's unit, for people."""
        return format_quantity(value, self.model.unit, rounding)


def parse_budget(text: str, input_size: Size | None = None, target: str = "cpu") -> Budget:
    """A budget from its text.

    Args:
        text: number, SI prefix, unit, and optionally ``@HxW``.
        input_size: for a text without ``@HxW``; None for the metric's own (the papers').
        target: whose time is meant.

    Raises:
        UsageError: naming what is wrong and the units there are.

    Example:
        >>> parse_budget("5GBitOps")
        Budget(metric='bitops', limit=5000000000.0, input_size=(32, 32))
    """
    units = {unit.lower(): (name, unit) for name in COST_MODELS for unit in cost_model(name).budget_units}
    for family in (models := target_cost_models()):
        units |= {u.lower(): (f"{family}@{target}", u) for u in models[family].budget_units}
    known = ", ".join(unit for _, unit in units.values())
    match = _GRAMMAR.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a budget; write a number and a unit ({known}), for instance 5GBitOps@32x32")
    unit = match["unit"].lower()
    prefix = "" if unit in units else unit[:1]
    if prefix not in _PREFIX or unit.removeprefix(prefix) not in units:
        raise UsageError(
            f"budget {text!r}: no cost is counted in {match['unit']!r}; the units are {known}, with K, M, G, T but for "
            "ms"
        )
    model = cost_model(units[unit.removeprefix(prefix)][0])
    limit = float(match["number"]) * _PREFIX[prefix]
    if limit <= 0:
        raise UsageError(f"budget {text!r} is zero; nothing fits into it")
    size = parse_size(match["size"]) if match["size"] else input_size or model.default_input_size
    return Budget(model.name, limit, size)


def parse_budgets(texts: Iterable[str], input_size: Size | None = None, target: str = "cpu") -> tuple[Budget, ...]:
    """Several budgets; all of them must be met. Errors as `parse_budget`, and if one metric is bounded twice."""
    budgets = tuple(parse_budget(text, input_size, target) for text in texts)
    metrics = [budget.metric for budget in budgets]
    if twice := sorted({metric for metric in metrics if metrics.count(metric) > 1}):
        sizes = {budget.input_size for budget in budgets if budget.metric == twice[0]}
        keep = "the tighter one" if len(sizes) == 1 else "that of one input size"
        raise UsageError(f"two budgets bound {twice[0]}; keep {keep}")
    return budgets
