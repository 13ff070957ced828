"""A search space as data: a wiring, and for each of its slots the operators that may stand there."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, model_validator

from hwnas.architecture import Architecture
from hwnas.networks import Wiring, parse_wiring
from hwnas.operators import OperatorSpec
from hwnas.registry import Registry


class SearchSpace(BaseModel):
    """What may be chosen.

    Attributes:
        name: for people.
        wiring: how the chosen operators are connected.
        choices: slot name to its candidates (operators x bits), in the order of the wiring's slots.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    wiring: Annotated[SerializeAsAny[Wiring], BeforeValidator(parse_wiring)]
    choices: dict[str, tuple[OperatorSpec, ...]]

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        if empty := [name for name, candidates in self.choices.items() if not candidates]:
            raise ValueError(f"choices.{empty[0]} has no candidates")
        # Slots and channels are the architecture's to check, and any candidate may be taken.
        for name, candidates in self.choices.items():
            for i in range(len(candidates)):
                self.architecture({name: i})
        return self

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(candidates) for candidates in self.choices.values())

    @property
    def first(self) -> Architecture:
        """The architecture of every layer's first candidate."""
        return self.architecture({})

    def architecture(self, chosen: Mapping[str, int], name: str | None = None) -> Architecture:
        """The architecture of the ``chosen`` candidate of each layer, the first where a layer is not named."""
        operators = {layer: candidates[chosen.get(layer, 0)] for layer, candidates in self.choices.items()}
        return Architecture(name=name or self.name, wiring=self.wiring, operators=operators)

    def sample(self, rng: random.Random) -> Architecture:
        """A uniformly random architecture."""
        return self.architecture({layer: rng.randrange(len(c)) for layer, c in self.choices.items()})


class SpaceOptions(BaseModel):
    """What a user may set about a published space.

    Attributes:
        scale: enlargement.
        cells: how often the cell is repeated.
        channels: width of the network.
        bits: widths to choose from, in 2..8 and 32; None for the space's own.
        adadm: AdaDM residuals; None for the space's own.
        bicubic: add the bicubic enlargement of the input to the output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: int = 4
    cells: int = 3
    channels: int = 36
    bits: tuple[int, ...] | None = None
    adadm: bool | None = None
    bicubic: bool = False


SPACES: Registry[Callable[[SpaceOptions], SearchSpace]] = Registry("space", "hwnas.spaces")
