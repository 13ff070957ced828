"""Costs on a target: the same network costs more on one device than on another."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from hwnas.cost_models.base import CostModel
from hwnas.cost_models.counting import BitOpsCost
from hwnas.devices.target import load_target
from hwnas.operators import OperatorSpec
from hwnas.registry import Registry
from hwnas.sizes import Size


class TargetCostModel(CostModel):
    """A cost model of one target; its metric is called ``name@target``.

    Args:
        target: name of the target.
    """

    family: ClassVar[str]

    def __init__(self, target: str) -> None:
        self.target = load_target(target)
        self.name = f"{self.family}@{target}"  # type: ignore[misc]


TARGET_COST_MODELS: Registry[type[TargetCostModel]] = Registry("metric of targets", "hwnas.target_cost_models")
"""Classes by the part of the metric's name before the ``@``."""


def target_cost_models() -> Registry[type[TargetCostModel]]:
    """`TARGET_COST_MODELS`, all of them: latencies are told by means of the other cost models, so they come late."""
    import hwnas.latency.cost  # noqa: F401  registers

    return TARGET_COST_MODELS


@cache
def target_cost_model(family: str, target: str) -> TargetCostModel:
    """One instance of each in the life of the process.

    Raises:
        UsageError: if there is no such cost, or no such target.
    """
    return target_cost_models()[family](target)


class EffectiveBitOpsCost(TargetCostModel):
    """BitOps in the widths that the target really computes in: ``b^2 F``, with b rounded up to one it has."""

    family = "effective-bitops"
    unit = BitOpsCost.unit
    default_input_size = BitOpsCost.default_input_size

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return self.target.effective_bitops(spec, BitOpsCost().operator_cost(spec, size))


TARGET_COST_MODELS.register(EffectiveBitOpsCost.family)(EffectiveBitOpsCost)
