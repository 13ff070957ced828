"""What every cost model gives: the cost of one operator, of an architecture, and of every choice in a space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hwnas.architecture import Architecture
from hwnas.errors import UsageError
from hwnas.operators import OperatorSpec
from hwnas.progress import Progress
from hwnas.registry import Registry
from hwnas.sizes import Size, format_size

if TYPE_CHECKING:
    from hwnas.spaces.space import LayerwiseSpace, SearchSpace


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A row of a cost table: one slot, all its copies together."""

    layer: str
    operator: str
    count: int
    value: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What an architecture costs.

    Attributes:
        metric: name of the cost model.
        value: the total, in ``unit``.
        unit: "BitOps", "MACs", ...
        input_size: low-resolution height and width it was computed at.
        layers: the parts, in the order of computation; they add up to ``value``.
    """

    metric: str
    value: float
    unit: str
    input_size: Size
    layers: tuple[LayerCost, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """How a cost is known that is predicted.

    Attributes:
        uncertainty: share by which 19 of 20 predictions are off at most; None if too little was measured to say.
        source: how that was found that it is predicted from, and on what, for people.
        speed: how many times as long the device takes now as when that was found, and the prediction is of now; None
            where it has not been asked.
        is_nonsense: whether what was measured is too noisy to predict anything from.
    """

    uncertainty: float | None
    source: str
    speed: float | None = None
    is_nonsense: bool = False

    def __str__(self) -> str:
        if self.is_nonsense:
            return (
                "nonsense: the fastest network would take no time at all, so noisy is the table; go on with building "
                "it, with --calibration 40 and more --rounds"
            )
        if self.uncertainty is None:
            return "too few networks at random were measured to say how certain; --calibration 40 builds more"
        return f"19 of 20 times within {self.uncertainty:.1%} in turn with the table's reference"


class CostModel(ABC):
    """A price for operators; the contract all searches build on.

    An *additive* model prices a network as the sum over its operators (``slot.count`` times each), plus a constant of
    the wiring. Searches need additive models: their expected cost is then linear in the probabilities, and the
    derivation under a budget an exact integer program. A model that is not additive overrides `architecture_cost`.

    A model that is ``measurable`` tells what it expects, and `measure` what is: a search decides by the latter.

    ``budget_units`` are the units, without SI prefix, in which users write budgets for it; none if it has no budgets.
    ``sized`` says whether the cost depends on the input size at all.

    Implementations are deterministic, and memoise: the same spec at the same size is never traced or measured twice.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    default_input_size: ClassVar[Size]
    budget_units: ClassVar[tuple[str, ...]] = ()
    additive: ClassVar[bool] = True
    sized: ClassVar[bool] = True
    measurable: ClassVar[bool] = False
    yardstick: float = 1.0
    """What all that `measure` finds is proportional to, since a device is not always as fast: it is found anew each
    time, and what was measured before is multiplied by the present one over the one of then to compare."""

    @abstractmethod
    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        """Cost of one copy of ``spec`` reading a map of ``size`` (height, width), in ``unit``; >= 0."""

    def wiring_cost(self, architecture: Architecture, size: Size) -> LayerCost | None:
        """The part of the cost that no operator carries, where there is one; the same for a whole space."""
        return None

    def architecture_cost(self, architecture: Architecture, input_size: Size | None = None) -> Cost:
        """Cost at a low-resolution ``input_size`` (default: `default_input_size`)."""
        size = input_size or self.default_input_size
        layers = [
            LayerCost(
                slot.name,
                architecture.operators[slot.name].label,
                slot.count,
                slot.count * self.operator_cost(architecture.operators[slot.name], _scaled(size, slot.resolution)),
            )
            for slot in architecture.wiring.slots
        ]
        if (rest := self.wiring_cost(architecture, size)) is not None:
            layers.append(rest)
        return Cost(self.name, sum(layer.value for layer in layers), self.unit, size, tuple(layers))

    def prices(self, space: SearchSpace, input_size: Size) -> Callable[[OperatorSpec, int], float]:
        """What one copy of an operator costs in a space: by it, and by its resolution as of `Slot`."""
        return lambda spec, resolution: self.operator_cost(spec, _scaled(input_size, resolution))

    def table(self, space: LayerwiseSpace, input_size: Size) -> Mapping[str, list[float]]:
        """Cost of every candidate of every layer, copies included: ``[layer][candidate]``.

        Raises:
            ValueError: if the model is not additive.
        """
        if not self.additive:
            raise ValueError(f"{self.name} does not add up over operators, so it has no table")
        price = self.prices(space, input_size)
        return {
            slot.name: [slot.count * price(spec, slot.resolution) for spec in space.choices[slot.name]]
            for slot in space.wiring.slots
        }

    def require(self, space: SearchSpace, input_size: Size) -> None:
        """Find out, before anything takes long, whether all that a search needs is there.

        Raises:
            HwnasError: if not, with what to do.
        """
        return None

    def measure(self, architectures: Sequence[Architecture], input_size: Size, progress: Progress) -> list[float]:
        """What each architecture was found to cost now, in ``unit``; what is predicted next takes it into account.

        Raises:
            ValueError: if the model is not measurable.
            HwnasError: if it cannot be measured now.
        """
        raise ValueError(f"{self.name} is counted, not measured")

    @property
    def how_measured(self) -> str:
        """How what `measure` tells is known: ``measured``, or ``vendor-estimated``."""
        return "measured"

    @property
    def measured_on(self) -> Mapping[str, str]:
        """What `measure` measured last, by what decides about it; what differs does not compare."""
        return {}

    @property
    def measured_column(self) -> str:
        """Name of what `measure` tells, in tables of figures."""
        return f"{self.name}_{self.how_measured.replace('-', '_')}"

    def prediction(self, architecture: Architecture, input_size: Size) -> Prediction | None:
        """What the cost of an architecture is predicted from, and how certain that is; None for what is counted."""
        return None

    def at(self, input_size: Size) -> str:
        """`` at 32x32``, for people; nothing where the cost does not depend on it."""
        return f" at {format_size(input_size)}" if self.sized else ""

    def space_constant(self, space: SearchSpace, input_size: Size) -> float:
        """What every architecture of ``space`` costs besides its operators."""
        rest = self.wiring_cost(space.first, input_size)
        return 0.0 if rest is None else rest.value


def _scaled(size: Size, resolution: int) -> Size:
    return size[0] * resolution, size[1] * resolution


COST_MODELS: Registry[CostModel] = Registry("metric", "hwnas.cost_models")
"""Cost models by name; an entry is an instance, so that what it has traced is kept for the life of the process."""


def cost_model(name: str) -> CostModel:
    """The cost model called ``name``: ``bitops``, ``latency@jetson``.

    Raises:
        UsageError: if there is none; the message lists those there are.
    """
    # Some of those of targets are told by means of the others, so they are imported late.
    from hwnas.cost_models.target import target_cost_model, target_cost_models

    family, at, target = name.partition("@")
    if at:
        return target_cost_model(family, target)
    try:
        return COST_MODELS[name]
    except UsageError as error:
        raise UsageError(
            f"{error}; and, of a target: {', '.join(f'{name}@TARGET' for name in target_cost_models())}"
        ) from error


def is_metric(name: str) -> bool:
    """Whether there is a cost model of that name."""
    try:
        cost_model(name)
    except UsageError:
        return False
    return True
