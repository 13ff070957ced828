"""Search spaces as data."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from hwnas.architecture import Architecture
from hwnas.errors import UsageError
from hwnas.networks import Wiring, parse_wiring
from hwnas.operators import OperatorSpec
from hwnas.registry import Registry


class SearchSpace(BaseModel, ABC):
    """What may be chosen.

    Attributes:
        name: for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str

    @property
    @abstractmethod
    def scale(self) -> int:
        """Enlargement of all its networks."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of architectures."""

    @property
    @abstractmethod
    def bits(self) -> tuple[int, ...]:
        """Widths that layers may have, in ascending order."""

    @property
    @abstractmethod
    def first(self) -> Architecture:
        """One architecture, always the same."""

    @abstractmethod
    def sample(self, rng: random.Random) -> Architecture:
        """A uniformly random architecture."""


Choice = tuple[int, ...]
"""A network of a space, as numbers whose meaning is the space's."""


class ChoiceSpace(SearchSpace):
    """A space whose networks can be written as numbers. Latency tables are of such spaces, and keep networks so."""

    @abstractmethod
    def has(self, choice: Choice) -> bool:
        """Whether these numbers are a choice."""

    @abstractmethod
    def chosen(self, choice: Choice, name: str | None = None) -> Architecture:
        """The network of a choice."""

    @abstractmethod
    def choice_of(self, architecture: Architecture) -> Choice | None:
        """The choice that makes this network; None if it is none of the space."""

    def has_same_networks(self, other: SearchSpace) -> bool:
        """Whether the other space is this one, whatever it is called."""
        return self == other.model_copy(update={"name": self.name})


class LayerwiseSpace(ChoiceSpace):
    """A fixed wiring, and for each of its slots the operators that may stand there, whatever stands in the others.

    A choice is the candidate of each layer, in their order.

    Attributes:
        wiring: how the chosen operators are connected.
        choices: slot name to its candidates (operators x bits), in the order of the wiring's slots.
        fixed: the network, as the user names it, whose operators these are at several widths; None where operators are
            chosen.
    """

    wiring: Annotated[SerializeAsAny[Wiring], BeforeValidator(parse_wiring)]
    choices: dict[str, tuple[OperatorSpec, ...]]
    fixed: str | None = None

    @model_validator(mode="after")
    def _check(self) -> LayerwiseSpace:
        if empty := [name for name, candidates in self.choices.items() if not candidates]:
            raise ValueError(f"choices.{empty[0]} has no candidates")
        # Slots and channels are the architecture's to check, and any candidate may be taken.
        for name, candidates in self.choices.items():
            for i in range(len(candidates)):
                self.architecture({name: i})
        return self

    @property
    def scale(self) -> int:
        return self.wiring.scale

    @property
    def size(self) -> int:
        return math.prod(len(candidates) for candidates in self.choices.values())

    @property
    def bits(self) -> tuple[int, ...]:
        return tuple(sorted({spec.weight_bits for candidates in self.choices.values() for spec in candidates}))

    @property
    def first(self) -> Architecture:
        """The architecture of every layer's first candidate."""
        return self.architecture({})

    def architecture(self, chosen: Mapping[str, int], name: str | None = None) -> Architecture:
        """The architecture of the ``chosen`` candidate of each layer, the first where a layer is not named."""
        operators = {layer: candidates[chosen.get(layer, 0)] for layer, candidates in self.choices.items()}
        return Architecture(name=name or self.name, wiring=self.wiring, operators=operators)

    def has_same_networks(self, other: SearchSpace) -> bool:
        if not isinstance(other, LayerwiseSpace):
            return False
        return self.wiring == other.wiring and self.choices == other.choices

    def has(self, choice: Choice) -> bool:
        counts = [len(candidates) for candidates in self.choices.values()]
        return len(choice) == len(counts) and all(0 <= i < n for i, n in zip(choice, counts, strict=True))

    def chosen(self, choice: Choice, name: str | None = None) -> Architecture:
        return self.architecture(dict(zip(self.choices, choice, strict=True)), name)

    def choice_of(self, architecture: Architecture) -> Choice | None:
        operators, choices = architecture.operators, self.choices
        if architecture.wiring != self.wiring or any(spec not in choices[layer] for layer, spec in operators.items()):
            return None
        return tuple(candidates.index(operators[layer]) for layer, candidates in choices.items())

    def sample(self, rng: random.Random) -> Architecture:
        return self.architecture({layer: rng.randrange(len(c)) for layer, c in self.choices.items()})


def layerwise(space: SearchSpace, what: str) -> LayerwiseSpace:
    """The space, if its layers are chosen one by one.

    Args:
        space: any.
        what: who asks for that, for the message.

    Raises:
        UsageError: if they are not.
    """
    if not isinstance(space, LayerwiseSpace):
        raise UsageError(
            f"{what} is for spaces whose layers are chosen one by one, such as quantnas, which {space.name} is not; "
            "name the algorithm of that space by --algorithm"
        )
    return space


class SpaceOptions(BaseModel):
    """What a user may set about a published space; None for what is the space's own.

    Attributes:
        scale: enlargement.
        cells: how many cells, or how often the cell is repeated.
        channels: width of the network, where cells do not have their own.
        bits: widths to choose from, in 2..8 and 32.
        residual: what sums of QuantNAS networks are; see `hwnas.networks.adadm.Residual`.
        bicubic: add the bicubic enlargement of the input to the output.
        widths: channels that layers within a cell may write, where these are chosen.
        operators: names of the operators that a layer may be, where there is a choice of them.
        layers: of a cell.
        network: how paths through cells and upsamplings are searched: ``tree``, ``trellis`` or ``fixed``.
        path: the one path of a ``fixed`` network, 0 for a cell and 1 for an upsampling.
        fixed: a network that is there, of which only widths are searched; see `hwnas.spaces.lookup`.
        separate: weights and activations of a layer may have different widths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: int | None = None
    cells: int | None = None
    channels: int | None = None
    bits: tuple[int, ...] | None = None
    residual: str | None = None
    bicubic: bool = False
    widths: tuple[int, ...] | None = None
    operators: tuple[str, ...] | None = None
    layers: int | None = None
    network: str | None = None
    path: tuple[int, ...] | None = None
    fixed: str | None = None
    separate: bool | None = None

    def given(self, space: str, taken: Collection[str]) -> dict[str, Any]:
        """The options that the user has set, but for those that all spaces have: scale, bits and bicubic.

        Args:
            space: name of the space that asks.
            taken: options that it has besides.

        Raises:
            UsageError: if one is set that it does not have.
        """
        there = {name: value for name, value in self if value is not None and name not in ("scale", "bits", "bicubic")}
        # What is switched off is off where it is not there.
        if others := [name for name, value in there.items() if value not in (False, "add") and name not in taken]:
            if "separate" in others:
                raise UsageError("--separate is of a network whose widths are searched; name it by --fixed")
            if "fixed" in taken:
                raise UsageError(f"--fixed searches widths alone: its operators stay, with no {others[0]} to set")
            if "fixed" in others:
                raise UsageError("space.fixed is of the space of that name; name the network by --fixed")
            # Presets set what the algorithm's own spaces have.
            raise UsageError(
                f"space {space} has no {others[0]} to set; leave it out, or name the space's algorithm by --algorithm"
            )
        return {name: value for name, value in there.items() if name in taken}


SPACES: Registry[Callable[[SpaceOptions], SearchSpace]] = Registry("space", "hwnas.spaces")
