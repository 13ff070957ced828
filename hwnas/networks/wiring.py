"""How operators are wired into a network: the fixed part of a search space.

A wiring names the slots that operators go into and puts modules into them. It does not know what the modules are, so
the same wiring makes the derived network (one operator in each slot), the supernet (all candidates in each slot) and
the skeleton whose own parameters are counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from hwnas.operators.initialise import Start
from hwnas.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one operator.

    Attributes:
        name: layer name, unique in the wiring: ``body.0``.
        in_channels: channels the operator there must read.
        out_channels: channels it must write.
        resolution: side of its maps as a multiple of the low-resolution input's.
        start: how its convolutions are initialised; see `hwnas.operators.initialise`.
        count: how many times the operator is built, each with weights of its own (cells that repeat).
    """

    name: str
    in_channels: int
    out_channels: int
    resolution: int = 1
    count: int = 1
    start: Start = "torch"


def detail_slots(slots: Iterable[Slot], pixels: str, branches: Iterable[str] = ()) -> tuple[Slot, ...]:
    """The slots of a network that adds detail to an enlargement, each with its start.

    Args:
        slots: in the order of computation; the first reads the image.
        pixels: name of the slot that makes the pixels.
        branches: names of the slots that end one of many residual branches.
    """
    first, *rest = slots
    starts: dict[str, Start] = {pixels: "pixels", **dict.fromkeys(branches, "branch")}
    return (replace(first, start="detail"), *(replace(slot, start=starts.get(slot.name, "features")) for slot in rest))


MakeOperator = Callable[[Slot], "nn.Module"]


class Wiring(BaseModel, ABC):
    """Base of all wirings; a subclass adds its options as fields and is registered under its ``kind``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    scale: Literal[2, 3, 4] = 4

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The slots in the order of computation; the first reads the image."""

    @abstractmethod
    def build(self, make: MakeOperator) -> nn.Module:
        """The network, [B, 3, H, W] in [0, 1] to [B, 3, scale*H, scale*W]; makes each slot ``slot.count`` times."""

    def published_names(self, name: str) -> tuple[str, ...]:
        """What published weights call a tensor of the float network, where they call it something else.

        Args:
            name: ours, without what only wraps it.
        """
        return ()


WIRINGS: Registry[type[Wiring]] = Registry("wiring", "hwnas.wirings")


def parse_wiring(value: Any) -> Wiring:
    """A wiring from its JSON object; the class is the one registered under ``kind``."""
    if isinstance(value, Wiring):
        return value
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError("wiring needs a 'kind'")
    if not isinstance(value["kind"], str) or value["kind"] not in WIRINGS:
        raise ValueError(f"wiring kind {value['kind']!r} is unknown; there are: {', '.join(sorted(WIRINGS))}")
    return WIRINGS[value["kind"]].model_validate(value)
