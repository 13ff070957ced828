"""Cost models: what an operator and a network cost, in which unit, at which input size."""

import hwnas.cost_models.counting
import hwnas.cost_models.latency
import hwnas.cost_models.memory  # noqa: F401  all register their models
from hwnas.cost_models.base import COST_MODELS, Cost, CostModel, LayerCost, Size, cost_model, format_size, is_metric
from hwnas.cost_models.target import TARGET_COST_MODELS

__all__ = [
    "COST_MODELS",
    "TARGET_COST_MODELS",
    "Cost",
    "CostModel",
    "LayerCost",
    "Size",
    "cost_model",
    "format_size",
    "is_metric",
]
