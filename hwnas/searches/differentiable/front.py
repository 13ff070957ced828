"""A searched supernet's front: derived for a sweep of limits, each point judged by the supernet itself."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError
from hwnas.inference import Validation
from hwnas.progress import Silent
from hwnas.searches.base import Candidate, SearchResult, SearchTask
from hwnas.searches.differentiable.choices import Choices
from hwnas.searches.differentiable.measured import derive_measured
from hwnas.searches.differentiable.settings import DifferentiableSettings
from hwnas.searches.differentiable.supernet import Supernet
from hwnas.spaces.space import Choice
from hwnas.training.common import seed_epoch

RECALIBRATION_BATCHES = 8
REMARKABLE = 0.1
"""dB between two estimates of one supernet that are worth a second training."""


def derive_result(
    task: SearchTask, supernet: Supernet[Any], choices: Choices, primary: Budget, settings: DifferentiableSettings
) -> SearchResult:
    """The most probable architecture within the budgets, and the front around it.

    Args:
        task: the search.
        supernet: after its last epoch.
        choices: of it.
        primary: the cost along which the front is swept.
        settings: of the search, for the crops that batch norms are recalibrated with.
    """
    # What is predicted now: measuring corrects it, and then agrees with itself.
    prices = {budget.metric: choices.price(budget) for budget in (*task.budgets, primary)}
    derived = derive_measured(task, choices)
    chosen = derived.chosen
    assert chosen is not None, "the budgets were found feasible before the search"
    found = choices.front(primary, task.budgets[1:], settings.front_points)
    found += [choice for choice in dict.fromkeys((chosen, *derived.measured)) if choice not in found]
    found.sort(key=prices[primary.metric])  # as the front shows it

    validation = Validation(task.data.validation, task.space.scale)
    bar = task.progress.task("front", len(found))
    front: list[Candidate] = []
    for choice in found:
        psnr = _estimate(task, supernet, choice, validation, settings)
        architecture = choices.space.chosen(choice, name=f"{task.space.name}-{len(front):02d}")
        costs = _costs(architecture, task.budgets or (primary,), task.target)
        costs |= {b.metric: prices[b.metric](choice) for b in task.budgets if b.model.measurable}
        measured = derived.measured.get(choice, {})
        front.append(Candidate(architecture, costs, choices.score(choice), psnr, measured))
        bar.advance(psnr=f"{psnr:.2f} dB")
    best = front[found.index(chosen)]
    for budget in task.budgets:
        # The derivation was exact; sums in another order may differ in the last bit.
        cost = best.measured.get(budget.metric, best.costs[budget.metric])
        if cost > budget.limit * (1 + 1e-12):
            raise HwnasError(f"the derived architecture costs {cost} of {budget}; please report this")
    if (better := cheaper_and_better(front, best)) is not None:
        command = shlex.join(["hwnas", "train", str(task.run.path), "--candidate", str(front.index(better))])
        task.progress.say(
            f"{better.architecture.name} has fewer {primary.model.unit} than the most probable choice, and the "
            f"supernet rates it {better.psnr - best.psnr:.2f} dB higher; to find out: {command}"
        )
    return SearchResult(best.architecture, tuple(front))


def cheaper_and_better(front: Sequence[Candidate], chosen: Candidate) -> Candidate | None:
    """The best of the candidates before ``chosen``, if its estimate is remarkably higher.

    Args:
        front: in ascending order of cost.
        chosen: one of them.
    """
    better = max(front[: front.index(chosen) + 1], key=lambda candidate: candidate.psnr)
    return better if better.psnr > chosen.psnr + REMARKABLE else None


def _costs(architecture: Architecture, budgets: tuple[Budget, ...], target: str) -> dict[str, float]:
    costs: dict[str, float] = {}
    for budget in budgets:
        costs[budget.metric] = budget.model.architecture_cost(architecture, budget.input_size).value
        if budget.metric == "bitops":
            effective = cost_model(f"effective-bitops@{target}")
            costs[effective.name] = effective.architecture_cost(architecture, budget.input_size).value
    return costs


def _estimate(
    task: SearchTask,
    supernet: Supernet[Any],
    choice: Choice,
    validation: Validation,
    settings: DifferentiableSettings,
) -> float:
    """Validation PSNR of one choice of the supernet, with batch norms of its own."""
    norms = [m for m in supernet.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    rng = np.random.default_rng(seed_epoch(task.seed, "recalibration", 0))
    supernet.choose(choice)
    try:
        if norms:
            for m in norms:
                m.reset_running_stats()
                m.momentum = None  # a plain mean over the batches
            # The search has told already which images it leaves out.
            images = task.data.train.room_for(settings.crop, Silent().say)
            device = next(supernet.parameters()).device
            supernet.train()
            with torch.no_grad():
                for _ in range(RECALIBRATION_BATCHES):
                    supernet(task.data.train.sample(rng, settings.batch, settings.crop, images)[0].to(device))
        return validation.psnr(supernet)
    finally:
        supernet.choose(None)
        supernet.load_state_dict(buffers, strict=False)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
