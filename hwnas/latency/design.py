"""Which networks of a space are measured, so that the time of each operator can be told."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hwnas.cost_models.counting import BitOpsCost
from hwnas.devices.target import Target
from hwnas.operators import OperatorSpec
from hwnas.spaces.space import LayerwiseSpace

Choice = tuple[int, ...]
"""The candidate of each layer, in the order of the space's layers."""

CALIBRATION = 40
"""Networks at random that a table is calibrated with. With 40 random networks besides those of single operators, half
of the predictions were within 2.5 %; with none, within 4 % (docs/results.md)."""

_SIZE = (32, 32)


def reference_choice(space: LayerwiseSpace, target: Target) -> Choice:
    """The network that all others are compared with: in each layer the operator of the fewest effective BitOps."""
    bitops = BitOpsCost()

    def cost(spec: OperatorSpec) -> tuple[float, int]:
        nominal = bitops.operator_cost(spec, _SIZE)
        return target.effective_bitops(spec, nominal), -spec.weight_bits

    return tuple(min(range(len(c)), key=lambda i: cost(c[i])) for c in space.choices.values())


def operator_choices(space: LayerwiseSpace, reference: Choice) -> list[Choice]:
    """One network for each distinct operator at each size of its maps, which stands in for the reference's there.

    Where several layers may have it, it stands in the one that is repeated most often, since it weighs most there.
    """
    slots = space.wiring.slots
    found: dict[tuple[OperatorSpec, int], tuple[int, int, int]] = {}
    for layer, slot in enumerate(slots):
        for candidate, spec in enumerate(space.choices[slot.name]):
            key = spec, slot.resolution
            if candidate != reference[layer] and (key not in found or slot.count > found[key][0]):
                found[key] = slot.count, layer, candidate
    return [_replaced(reference, layer, candidate) for _, layer, candidate in found.values()]


def calibration_choices(space: LayerwiseSpace, count: int, seed: int = 0) -> list[Choice]:
    """Networks at random in which all candidates of a layer are equally frequent."""
    rng = random.Random(seed)
    columns = []
    for candidates in space.choices.values():
        column = [i % len(candidates) for i in range(count)]
        rng.shuffle(column)
        columns.append(column)
    return list(zip(*columns, strict=True))


def held_out_choices(space: LayerwiseSpace, count: int, measured: Iterable[Choice], seed: int) -> list[Choice]:
    """Networks at random, none of which is among the ``measured``; fewer, if the space has not so many."""
    rng, taken = random.Random(seed), set(measured)
    found: list[Choice] = []
    for _ in range(100 * count):
        if len(found) == count:
            break
        choice = tuple(rng.randrange(len(candidates)) for candidates in space.choices.values())
        if choice not in taken:
            taken.add(choice)
            found.append(choice)
    return found


def _replaced(choice: Choice, layer: int, candidate: int) -> Choice:
    return (*choice[:layer], candidate, *choice[layer + 1 :])
