"""How well a search ends at its budget, on many searches whose answer is known.

The candidates of QuantNAS's space with their real costs, but a task whose loss is a known number for each candidate,
seen through noise: the best network within the budget can then be computed, and what is derived held against it.

    python benchmarks/budget_control.py
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hwnas.budget import parse_budgets
from hwnas.config import load_preset, make_config
from hwnas.searches.derivation import CostLimit, derive
from hwnas.searches.differentiable import budget_control
from hwnas.searches.differentiable.pressure import Pressure
from hwnas.searches.quantnas.objective import LayerwiseCost, entropy_weight
from hwnas.spaces import SPACES

SPREAD = 1e-3
"""Standard deviation of the losses of candidates of equal cost, and of the noise of a step. Assumed, not measured."""
WORTH = 1e-3
"""What a candidate of e times the cost is better by. Assumed likewise."""


class Simulation:
    """Searches side by side: the same space, costs and settings, another task each.

    Args:
        preset: whose settings of the search to take.
        budget: as users write it.
        searches: how many.
    """

    def __init__(self, preset: str, budget: str, searches: int) -> None:
        config = make_config([load_preset(preset)])
        self.settings = config.search
        space = SPACES[config.space_name](config.space)
        (self.budget,) = parse_budgets([budget], None)
        model, size = self.budget.model, self.budget.input_size
        self.table, self.constant = model.table(space, size), model.space_constant(space, size)
        width = max(map(len, self.table.values()))
        self.there = torch.tensor([[i < len(costs) for i in range(width)] for costs in self.table.values()])
        self.costs = torch.tensor([costs + [costs[0]] * (width - len(costs)) for costs in self.table.values()])
        torch.manual_seed(0)
        dearer = (self.costs / self.costs.amin(1, keepdim=True)).log()
        self.losses = SPREAD * torch.randn(searches, *self.costs.shape) - WORTH * dearer

    def run(self, stiffness: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities at the end, [search, layer, candidate], and the expected costs, [search]."""
        budget_control.STIFFNESS = stiffness
        torch.manual_seed(1)
        settings = self.settings
        pressure = Pressure(self.budget, LayerwiseCost(self.table, self.constant), penalty=None)
        alphas = torch.zeros_like(self.losses, requires_grad=True)
        adam = torch.optim.Adam([alphas], settings.alpha_learning_rate, betas=(0.5, 0.999))
        multipliers = torch.zeros(len(alphas))
        steps, begun = settings.steps_per_epoch, settings.warmup_epochs
        for epoch in range(begun, settings.epochs):
            for i in range(steps):
                pressure.tighten(((epoch - begun) * steps + i + 1) / ((settings.epochs - begun) * steps))
                p = self._log_probabilities(alphas).exp()
                noisy = self.losses + SPREAD * torch.randn_like(self.losses)
                loss = (p * noisy).sum()
                loss = loss + budget_control.budget_loss(self._excess(p, pressure.bound), multipliers).sum()
                uncertainty = torch.special.entr(p[:, self.there]).sum()
                loss = loss + entropy_weight(epoch, settings.epochs, settings.entropy or 1e-4) * uncertainty
                adam.zero_grad()
                loss.backward()
                adam.step()
            with torch.no_grad():
                excesses = self._excess(self._log_probabilities(alphas).exp(), pressure.bound).tolist()
                pairs = zip(multipliers.tolist(), excesses, strict=True)
                multipliers = torch.tensor([budget_control.next_multiplier(m, excess) for m, excess in pairs])
        with torch.no_grad():
            log_p = self._log_probabilities(alphas)
            return log_p, (self._excess(log_p.exp(), self.budget.limit) + 1) * self.budget.limit

    def _log_probabilities(self, alphas: Tensor) -> Tensor:
        return torch.where(self.there, alphas, -1e4).log_softmax(-1)

    def _excess(self, p: Tensor, bound: float) -> Tensor:
        return ((p * self.costs).sum((1, 2)) + self.constant) / bound - 1

    def best(self, scores: Tensor) -> list[int]:
        """The candidates with the largest sum of ``scores``, [layer, candidate], within the budget."""
        rows = [row[there].tolist() for row, there in zip(scores, self.there, strict=True)]
        limit = CostLimit(self.table, self.budget.limit - self.constant)
        chosen = derive(dict(zip(self.table, rows, strict=True)), [limit])
        assert chosen is not None
        return [chosen[layer] for layer in self.table]


def total(values: Tensor, chosen: list[int]) -> float:
    """Sum over the layers of the chosen candidates' values."""
    return float(values[torch.arange(len(chosen)), torch.tensor(chosen)].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=64)
    parser.add_argument("--budget", default="5GBitOps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"{arguments.searches} searches, {arguments.budget}")
    for column in (
        "preset",
        "stiffness",
        "expected cost",
        "cost of the choice",
        "least",
        "log p",
        "worse than the best by",
    ):
        table.add_column(column, justify="right")
    for preset in ("tiny", "small"):
        simulation = Simulation(preset, arguments.budget, arguments.searches)
        optima = [simulation.best(-losses) for losses in simulation.losses]
        for stiffness in (0.01, 0.1, 1.0, 10.0):
            log_p, expected = simulation.run(stiffness)
            choices = [simulation.best(scores) for scores in log_p]
            costs = [total(simulation.costs, chosen) + simulation.constant for chosen in choices]
            lost = [
                (total(losses, chosen) - total(losses, optimum)) / SPREAD
                for losses, chosen, optimum in zip(simulation.losses, choices, optima, strict=True)
            ]
            certain = [total(scores, chosen) for scores, chosen in zip(log_p, choices, strict=True)]
            show = simulation.budget.format
            table.add_row(
                preset,
                f"{stiffness:g}",
                show(float(expected.mean())),
                show(float(np.mean(costs))),
                show(min(costs)),
                f"{np.mean(certain):.2f}",
                f"{np.mean(lost):.2f} +- {np.std(lost) / len(lost) ** 0.5:.2f} sd",
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
