"""The QuantNAS search: alternate alpha and weight steps, then derive (algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor

from hwnas.budget import Budget
from hwnas.errors import UsageError
from hwnas.searches.base import SearchTask
from hwnas.searches.differentiable.pressure import make_pressures
from hwnas.searches.differentiable.search import DifferentiableSearch
from hwnas.searches.differentiable.session import Session
from hwnas.searches.feasibility import require_feasible
from hwnas.searches.quantnas.choices import LayerwiseChoices
from hwnas.searches.quantnas.objective import LayerwiseCost, Probabilities, entropy, entropy_weight
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.sizes import Size
from hwnas.spaces.space import LayerwiseSpace, SearchSpace, layerwise
from hwnas.training.common import seed_epoch
from hwnas.weights import float_weights


class QuantNASSession(Session[LayerwiseSpace, QuantNASSettings, Probabilities]):
    """Its own are the noise, and the entropy that makes the alphas decide."""

    supernet: QuantNASSupernet

    def __init__(self, task: SearchTask[LayerwiseSpace], settings: QuantNASSettings) -> None:
        self._quantised = any(spec.is_quantised for c in task.space.choices.values() for spec in c)
        self._entropy = settings.entropy if settings.entropy is not None else (1e-4 if self._quantised else 1e-3)

        seed_epoch(task.seed, "supernet", 0)
        supernet = QuantNASSupernet(task.space, settings.quantization, settings.merge)
        if settings.weights is not None and not task.run.search_state.exists():
            supernet.start_from(_weights(task.space, settings.weights))
        cost_of = partial(LayerwiseCost.of, task.space)
        pressures = make_pressures(task.space, task.budgets, settings.penalty, task.input_size, cost_of)
        super().__init__(task, settings, supernet, pressures)

    def optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        decay = settings.weight_decay if settings.weight_decay is not None else (3e-8 if self._quantised else 3e-7)
        if settings.optimizer == "sgd":
            return torch.optim.SGD(self.supernet.weights(), settings.learning_rate, 0.9, weight_decay=decay)
        return torch.optim.Adam(self.supernet.weights(), settings.learning_rate, weight_decay=decay)

    def begin_epoch(self, epoch: int) -> None:
        self.supernet.noise.enabled = epoch >= self.settings.warmup_epochs
        self.supernet.noise.refresh()

    def regulariser(self, relaxed: Probabilities, epoch: int) -> Tensor:
        return entropy_weight(epoch, self.settings.epochs, self._entropy) * entropy(relaxed)

    def scalars(self, relaxed: Probabilities) -> dict[str, float]:
        return {"mean_entropy": float(entropy(relaxed)) / len(relaxed)}

    def figures(self, relaxed: Probabilities) -> dict[str, str]:
        return {"entropy": f"{float(entropy(relaxed)) / len(relaxed):.2f}"}


class QuantNAS(DifferentiableSearch):
    """Differentiable search over operators x bits, against quantisation noise or with quantised weights."""

    Settings = QuantNASSettings
    session: ClassVar[type[QuantNASSession]] = QuantNASSession

    def check(
        self, space: SearchSpace, budgets: Sequence[Budget], settings: BaseModel, input_size: Size | None = None
    ) -> None:
        weights = self.Settings.model_validate(settings).weights
        if weights is not None:
            _weights(layerwise(space, "QuantNAS"), weights)
        super().check(space, budgets, settings, input_size)

    def begin(self, task: SearchTask) -> QuantNASSession:
        task = replace(task, space=layerwise(task.space, "QuantNAS"))
        if not task.run.search_state.exists():  # a device may be slower now than when it was found feasible
            require_feasible(task.space, task.budgets)
        return self.session(task, self.Settings.model_validate(task.settings))

    def choices(self, session: Session[Any, Any, Any]) -> LayerwiseChoices:
        with torch.no_grad():
            log_p = {layer: p.log().clamp_min(-1e4).tolist() for layer, p in session.supernet.relaxed().items()}
        return LayerwiseChoices(session.task.space, log_p)


def _weights(space: LayerwiseSpace, path: Path) -> dict[str, Tensor]:
    """The weights that a search of widths starts from; errors as `float_weights`.

    Raises:
        UsageError: if operators are searched too.
    """
    if space.fixed is None:
        raise UsageError("--weights are of a network; name it by --fixed")
    return float_weights(space.first.model_copy(update={"name": space.name.removesuffix("-bits")}), path)
