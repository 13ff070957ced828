"""Costs that are counted: multiply-accumulates, BitOps and parameters."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import nn

from hwnas.architecture import Architecture
from hwnas.cost_models.base import COST_MODELS, CostModel, LayerCost
from hwnas.errors import HwnasError
from hwnas.operators import OperatorSpec, build_operator
from hwnas.operators.layers import FloatLayers
from hwnas.sizes import Size
from hwnas.threads import threads

LARGEST_OPERATOR = 50_000_000
"""Parameters up to which an operator is traced: it is built for that, and a file may state any size."""


_TRACED = (4, 8)
"""Sides of the maps that operators are traced at."""


def traced_macs(network: nn.Module, channels: int, size: Size) -> int:
    """Multiply-accumulates of the convolutions of a float network, counted by fvcore.

    Args:
        network: reads [1, channels, height, width]; built of float layers (fvcore cannot trace Brevitas modules).
        channels: channels of its input.
        size: height and width of its input.
    """
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    analysis = FlopCountAnalysis(network.eval(), torch.zeros(1, channels, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # fvcore also counts batch norms; the papers, and hardware after folding, do not.
    return int(analysis.by_operator()["conv"])


@cache
def _macs_per_pixel_and_constant(twin: OperatorSpec) -> tuple[int, int]:
    # Tracing runs the operator, which at 1024x1024 takes seconds. Operators keep the resolution, so that their MACs
    # are affine in the area (the constant is of branches that pool globally) and two small traces give them exactly.
    if (parameters := _operator_parameters(twin)) > LARGEST_OPERATOR:
        raise HwnasError(f"operator {twin.label} has {parameters:,} parameters, too many to be traced")
    network = build_operator(twin, FloatLayers())
    with threads(1):  # maps of a few pixels: more would mostly wait for each other
        small, large = (traced_macs(network, twin.in_channels, (side, side)) for side in _TRACED)
    per_pixel = (large - small) // (_TRACED[1] ** 2 - _TRACED[0] ** 2)
    return per_pixel, small - per_pixel * _TRACED[0] ** 2


@cache
def operator_macs(spec: OperatorSpec, size: Size) -> int:
    """Multiply-accumulates of one copy of ``spec`` at ``size``; traced once in the life of the process."""
    per_pixel, constant = _macs_per_pixel_and_constant(spec.float_twin)
    return per_pixel * size[0] * size[1] + constant


@cache
def _operator_parameters(twin: OperatorSpec) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_operator(twin, FloatLayers()).parameters())


class FlopsCost(CostModel):
    """Multiply-accumulates of the convolutions, which the literature of the field calls FLOPs."""

    name = "flops"
    unit = "MACs"
    default_input_size = (256, 256)
    budget_units = ("FLOPs", "MACs")

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return operator_macs(spec, size)


class BitOpsCost(CostModel):
    """Weight bits x activation bits x MACs: ``b^2 F`` where both are equal (QuantNAS, section 3.2.1, eq. 2)."""

    name = "bitops"
    unit = "BitOps"
    default_input_size = (32, 32)
    budget_units = ("BitOps",)

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return spec.weight_bits * spec.activation_bits * operator_macs(spec, size)


class ParametersCost(CostModel):
    """Trainable parameters of the float network; independent of the input size."""

    name = "params"
    unit = "Params"
    default_input_size = (32, 32)
    budget_units = ("Params",)
    sized = False

    def operator_cost(self, spec: OperatorSpec, size: Size) -> float:
        return _operator_parameters(spec.float_twin)

    def wiring_cost(self, architecture: Architecture, size: Size) -> LayerCost | None:
        with torch.device("meta"):
            skeleton = architecture.wiring.build(lambda slot: nn.Identity())
        own = sum(p.numel() for p in skeleton.parameters())
        return LayerCost("(wiring)", "batch norm, AdaDM", 1, own) if own else None


for _model in (FlopsCost(), BitOpsCost(), ParametersCost()):
    COST_MODELS.register(_model.name)(_model)
