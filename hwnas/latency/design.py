"""What latency tables have to know of a kind of space: which networks are measured, and what is told from them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from hwnas.devices.target import Target
from hwnas.operators import OperatorSpec
from hwnas.spaces.space import Choice, ChoiceSpace

Place = tuple[OperatorSpec, int]
"""An operator, and the side of its maps as a multiple of the low-resolution image's."""

Space = TypeVar("Space", bound=ChoiceSpace)

CALIBRATION = 40
"""Networks at random that a table is calibrated with. With 40 random networks besides those of single operators, half
of the predictions were within 2.5 %; with none, within 4 % (docs/results.md)."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A number that is told from the measured networks.

    Attributes:
        what: that it is of.
        spread: how far from 0 it is expected to be, in times of the reference.
    """

    what: Hashable
    spread: float


class Design(ABC, Generic[Space]):
    """How networks of a space are measured, and how the time of an operator is told from them.

    Args:
        space: the space.

    Attributes:
        constant_spread: how large the constant of the sums is expected to be, in times of the reference.
        title: what an operator's time is, for people.
    """

    constant_spread: ClassVar[float]
    title: ClassVar[str]

    def __init__(self, space: Space) -> None:
        self.space = space

    @abstractmethod
    def reference(self, target: Target) -> Choice:
        """The network that all others are compared with."""

    @abstractmethod
    def operators(self, reference: Choice) -> list[Choice]:
        """Networks from which the operators are told; all of them are measured."""

    @abstractmethod
    def calibration(self, count: int, seed: int = 0) -> list[Choice]:
        """Networks at random, in which all alternatives are about equally frequent."""

    @abstractmethod
    def at_random(self, rng: random.Random) -> Choice:
        """A network at random, of the kind that `calibration` has."""

    @abstractmethod
    def features(self, target: Target) -> Mapping[Place, Mapping[Feature, float]]:
        """For all operators that networks of the space have: the numbers that its time is the sum of, and how often."""

    @abstractmethod
    def settled(self, constant: float, operators: Mapping[Place, float]) -> tuple[float, dict[Place, float]]:
        """Sums that are, as nearly as can be, the same, with no operator below 0."""

    @abstractmethod
    def options(self) -> list[str]:
        """Options of the command line, besides name, scale and bits, that make this space."""

    def held_out(self, count: int, measured: Iterable[Choice], seed: int) -> list[Choice]:
        """Networks at random, none of which is among the ``measured``; fewer, if the space has not so many."""
        rng, taken = random.Random(seed), set(measured)
        found: list[Choice] = []
        for _ in range(100 * count):
            if len(found) == count:
                break
            choice = self.at_random(rng)
            if choice not in taken:
                taken.add(choice)
                found.append(choice)
        return found
