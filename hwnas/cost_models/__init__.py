"""Cost models: what an operator and a network cost, in which unit, at which input size."""

import hwnas.cost_models.counting
import hwnas.cost_models.memory  # noqa: F401  both register their models
from hwnas.cost_models.base import COST_MODELS, Cost, CostModel, LayerCost, cost_model, is_metric
from hwnas.cost_models.target import target_cost_models

__all__ = [
    "COST_MODELS",
    "Cost",
    "CostModel",
    "LayerCost",
    "cost_model",
    "is_metric",
    "target_cost_models",
]
