"""A step of the final training, channels last and not, batch 8 of 24x24 crops.

    python benchmarks/training_step.py [--rounds 20]

Both take turns in one process, so that a machine that is slow for a while is slow for both; ratios are what counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from torch.nn import functional

from hwnas.quantization.placement import Placement
from hwnas.spaces import named_architecture
from hwnas.training.settings import TrainSettings
from hwnas.training.train import build_for_training

NETWORKS = (("quantnas-body3", 8), ("quantnas-body3", 32), ("espcn", 8), ("rfdn", 8))
SETTINGS = TrainSettings(collect_steps=2)
FORMATS = {"planar": torch.contiguous_format, "channels last": torch.channels_last}


class Trainee:
    def __init__(self, name: str, bits: int, memory_format: torch.memory_format) -> None:
        torch.manual_seed(0)
        architecture = named_architecture(name, 4, bits, True)
        self.network: nn.Module = build_for_training(architecture, SETTINGS, Placement()).train()
        self.network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.adam = torch.optim.Adam(self.network.parameters(), 1e-4)
        self.lr = torch.rand(8, 3, 24, 24).contiguous(memory_format=memory_format)
        self.hr = torch.rand(8, 3, 96, 96)

    def step(self) -> float:
        started = time.perf_counter()
        self.adam.zero_grad()
        functional.l1_loss(self.network(self.lr), self.hr).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), SETTINGS.gradient_clip)
        self.adam.step()
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    for name, bits in NETWORKS:
        trainees = {label: Trainee(name, bits, memory_format) for label, memory_format in FORMATS.items()}
        for trainee in trainees.values():
            for _ in range(SETTINGS.collect_steps + 1):
                trainee.step()
        times: dict[str, list[float]] = {label: [] for label in trainees}
        for _ in range(rounds):
            for label, trainee in trainees.items():
                times[label].append(trainee.step())
        ratios = sorted(b / a for a, b in zip(*times.values(), strict=True))
        planar, last = (statistics.median(values) for values in times.values())
        spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[3 * len(ratios) // 4]:.2f}"
        print(f"{name}, {bits} bits: {1e3 * planar:.0f} ms, {1e3 * last:.0f} ms, ratio {last / planar:.2f} ({spread})")


if __name__ == "__main__":
    main()
