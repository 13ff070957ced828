"""Cost models: what an operator and a network cost, in which unit, at which input size."""

import hwnas.cost_models.counting
import hwnas.cost_models.memory  # noqa: F401  both register their models
from hwnas.cost_models.base import COST_MODELS, Cost, CostModel, LayerCost, Size, cost_model, format_size

__all__ = ["COST_MODELS", "Cost", "CostModel", "LayerCost", "Size", "cost_model", "format_size"]
