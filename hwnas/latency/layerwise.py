"""Latency tables of spaces whose layers are chosen one by one.

Every distinct operator is measured by itself, in one network; so each has a number of its own. Widths that the target
computes alike take about the same time, but not quite: a map of four bits is clipped. So each of them has a number of
its own that is drawn towards the others'.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from hwnas.cost_models.counting import BitOpsCost
from hwnas.devices.target import Target
from hwnas.latency.design import Design, Feature, Place
from hwnas.operators import OperatorSpec
from hwnas.spaces.lookup import is_published
from hwnas.spaces.space import Choice, LayerwiseSpace

_SPREAD = 3.0
"""How far operators are expected to be apart, in times of the reference: so much that nothing is drawn anywhere."""

_WIDTH_SPREAD = 0.01
"""The same of widths that are computed alike."""

_SIZE = (32, 32)


class LayerwiseDesign(Design[LayerwiseSpace]):
    """See the module."""

    constant_spread = 1000.0
    title = "what an operator takes more than the cheapest one there"

    def reference(self, target: Target) -> Choice:
        """In each layer the operator of the fewest effective BitOps."""
        bitops = BitOpsCost()

        def cost(spec: OperatorSpec) -> tuple[float, int]:
            nominal = bitops.operator_cost(spec, _SIZE)
            return target.effective_bitops(spec, nominal), -spec.weight_bits

        return tuple(min(range(len(c)), key=lambda i: cost(c[i])) for c in self.space.choices.values())

    def operators(self, reference: Choice) -> list[Choice]:
        """One network for each distinct operator at each size of its maps, which stands in for the reference's there.

        Where several layers may have it, it stands in the one that is repeated most often, since it weighs most there.
        """
        found: dict[Place, tuple[int, int, int]] = {}
        for layer, slot in enumerate(self.space.wiring.slots):
            for candidate, spec in enumerate(self.space.choices[slot.name]):
                key = spec, slot.resolution
                if candidate != reference[layer] and (key not in found or slot.count > found[key][0]):
                    found[key] = slot.count, layer, candidate
        return [(*reference[:layer], one, *reference[layer + 1 :]) for _, layer, one in found.values()]

    def calibration(self, count: int, seed: int = 0) -> list[Choice]:
        """All candidates of a layer are equally frequent."""
        rng = random.Random(seed)
        columns = []
        for candidates in self.space.choices.values():
            column = [i % len(candidates) for i in range(count)]
            rng.shuffle(column)
            columns.append(column)
        return list(zip(*columns, strict=True))

    def at_random(self, rng: random.Random) -> Choice:
        return tuple(rng.randrange(len(candidates)) for candidates in self.space.choices.values())

    def options(self) -> list[str]:
        wiring = self.space.wiring.model_dump()
        if self.space.fixed is not None:
            uneven = any(c.weight_bits != c.activation_bits for row in self.space.choices.values() for c in row)
            bicubic = [f"--{'' if wiring.get('bicubic') else 'no-'}bicubic"] if is_published(self.space.fixed) else []
            return ["--fixed", self.space.fixed, *bicubic, *(["--separate"] if uneven else [])]
        names = [name for name in ("cells", "channels", "residual") if name in wiring]
        flags = [f"--{'' if wiring['bicubic'] else 'no-'}bicubic"] if "bicubic" in wiring else []
        return [*(part for name in names for part in (f"--{name}", str(wiring[name]))), *flags]

    def features(self, target: Target) -> Mapping[Place, Mapping[Feature, float]]:
        """One number for all operators that are computed alike, and one for each."""
        return {
            (spec, slot.resolution): {
                Feature((spec.float_twin, target.computes(spec), slot.resolution), _SPREAD): 1.0,
                Feature((spec, slot.resolution), _WIDTH_SPREAD): 1.0,
            }
            for slot in self.space.wiring.slots
            for spec in self.space.choices[slot.name]
        }

    def settled(self, constant: float, operators: Mapping[Place, float]) -> tuple[float, dict[Place, float]]:
        """Of all operators between the same channels the cheapest counts nothing; the constant takes what it does."""
        least: dict[tuple[int, int, int], float] = {}
        for (spec, resolution), value in operators.items():
            kind = spec.in_channels, spec.out_channels, resolution
            least[kind] = min(value, least.get(kind, math.inf))
        for slot in self.space.wiring.slots:
            constant += slot.count * least[slot.in_channels, slot.out_channels, slot.resolution]
        return constant, {
            (spec, resolution): value - least[spec.in_channels, spec.out_channels, resolution]
            for (spec, resolution), value in operators.items()
        }
