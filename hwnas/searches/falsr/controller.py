"""The mutation that exploits (section IV-E, figure 2): a network that learns which genes are rewarded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.searches.falsr.settings import ControllerSettings
from hwnas.spaces.falsr import CELLS, Genotype, unconnected

_START = len(CELLS)
"""What the LSTM reads before the first cell."""


class Controller(nn.Module):
    """An LSTM draws the cells one after the other; three dense layers, of their embeddings, the connections.

    Trained by REINFORCE (equation 6) with discount 1, so that all genes share the reward of their network, and a moving
    average as the baseline.

    Args:
        cells: number n of a network's cells.
        settings: sizes and rates.
        seed: of its weights and of what it draws.
    """

    def __init__(self, cells: int, settings: ControllerSettings, seed: int) -> None:
        super().__init__()
        self.cells = cells
        self.settings = settings
        self.connections = cells * (cells + 1) // 2
        hidden = settings.hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(len(CELLS) + 1, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.cell = nn.Linear(hidden, len(CELLS))
            self.connect = nn.Sequential(
                nn.Linear(cells * hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, self.connections),
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(self.parameters(), settings.learning_rate)
        self.baseline: float | None = None

    @torch.no_grad()
    def sample(self) -> Genotype:
        """Draw a network."""
        cells, last, state = [], torch.tensor([[_START]]), None
        for _ in range(self.cells):
            out, state = self.lstm(self.embedding(last), state)
            last = torch.multinomial(self.cell(out[0]).softmax(-1), 1, generator=self.generator)
            cells.append(int(last))
        chance = self._chance(torch.tensor([cells])).sigmoid()[0]
        bits = (torch.rand(self.connections, generator=self.generator) < chance).int().tolist()
        rows = [[bits.pop(0) for _ in row] for row in unconnected(self.cells)]
        return Genotype(tuple(cells), tuple(map(tuple, rows)))

    def log_probability(self, genotypes: Sequence[Genotype]) -> Tensor:
        """Of each of these networks, [N]."""
        cells = torch.tensor([genotype.cells for genotype in genotypes])
        bits = torch.tensor([[float(bit) for row in genotype.macro for bit in row] for genotype in genotypes])
        before = functional.pad(cells[:, :-1], (1, 0), value=_START)
        out, _ = self.lstm(self.embedding(before))
        of_cells = self.cell(out).log_softmax(-1).gather(-1, cells[..., None])[..., 0]
        of_bits = -functional.binary_cross_entropy_with_logits(self._chance(cells), bits, reduction="none")
        total: Tensor = of_cells.sum(1) + of_bits.sum(1)
        return total

    def learn(self, genotypes: Sequence[Genotype], rewards: Sequence[float]) -> None:
        """One step towards what was rewarded more than usual.

        Args:
            genotypes: that it has drawn, since it learned last.
            rewards: of each, in dB.
        """
        if not genotypes:
            return
        if self.baseline is None:
            self.baseline = sum(rewards) / len(rewards)
        advantages = torch.tensor([reward - self.baseline for reward in rewards])
        loss = -(advantages * self.log_probability(genotypes)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for reward in rewards:
            self.baseline += self.settings.baseline * (reward - self.baseline)

    def _chance(self, cells: Tensor) -> Tensor:
        """Logits of the connections, [N, n (n + 1) / 2]."""
        logits: Tensor = self.connect(self.embedding(cells).flatten(1))
        return logits
