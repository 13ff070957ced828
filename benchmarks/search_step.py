"""How long a step of the QuantNAS search takes, and what merging the candidates saves.

Forward and backward (gradients of weights and alphas) of the supernet of D.2 x {4, 8} bits against noise, with AdaDM,
on the paper's crops (45x45, x4, batch 16), two threads. All variants take turns in one process, so that a machine that
is slow for a while is slow for all; medians and ratios are what counts. Peak memory is measured in a process of its own
for each variant.

    python benchmarks/search_step.py [--rounds 5] [--batch 16]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.cost_models import cost_model
from hwnas.operators.layers import FloatLayers
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, SpaceOptions

SPACE = SPACES["quantnas"](SpaceOptions())


class FreshNoise(NoiseSource):
    """Noise as published: drawn anew for every candidate."""

    def draw(self, like: Tensor) -> Tensor:
        return torch.randn_like(like, requires_grad=False)


def published() -> nn.Module:
    supernet = QuantNASSupernet(SPACE, merge=False)
    for module in supernet.modules():
        if hasattr(module, "noise"):
            module.noise = FreshNoise()
    return supernet


def one_by_one() -> nn.Module:
    return QuantNASSupernet(SPACE, merge=False).to(memory_format=torch.channels_last)


def merged() -> nn.Module:
    return QuantNASSupernet(SPACE).to(memory_format=torch.channels_last)


def merged_without_noise() -> nn.Module:
    supernet = merged()
    supernet.noise.enabled = False
    return supernet


def largest_path() -> nn.Module:
    table = cost_model("flops").table(SPACE, (32, 32))
    largest = {layer: max(range(len(costs)), key=costs.__getitem__) for layer, costs in table.items()}
    return SPACE.architecture(largest).build(FloatLayers()).to(memory_format=torch.channels_last)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "candidate by candidate, as published": published,
    "candidate by candidate, noise from the bank, channels last": one_by_one,
    "merged": merged,
    "merged, noise off": merged_without_noise,
    "largest single path, float": largest_path,
}


def step(network: nn.Module, lr: Tensor, hr: Tensor) -> float:
    """Seconds of one forward and backward."""
    begin = time.perf_counter()
    functional.l1_loss(network(lr), hr).backward()
    seconds = time.perf_counter() - begin
    network.zero_grad()
    return seconds


def crops(batch: int, name: str) -> tuple[Tensor, Tensor]:
    lr = torch.rand(batch, 3, 45, 45)
    layout = torch.contiguous_format if name.endswith("published") else torch.channels_last
    return lr.contiguous(memory_format=layout), torch.rand(batch, 3, 180, 180)


def peak_mebibytes(name: str, batch: int) -> float:
    """Peak resident memory of a process that takes three steps of one variant."""
    command = [sys.executable, __file__, "--batch", str(batch), "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    if arguments.memory_of:
        network = VARIANTS[arguments.memory_of]().train()
        for _ in range(3):
            step(network, *crops(arguments.batch, arguments.memory_of))
        # Not ru_maxrss: that one is inherited from the process that started this one.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(int(status["VmHWM"].split()[0]) / 1024)
        return

    networks = {name: make().train() for name, make in VARIANTS.items()}
    batches = {name: crops(arguments.batch, name) for name in VARIANTS}
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(arguments.rounds + 1):
        for name, network in networks.items():
            taken = step(network, *batches[name])
            if round_:
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| variant | median s | min to max | relative to merged | peak MiB |\n|---|---|---|---|---|")
    for name, values in seconds.items():
        print(
            f"| {name} | {medians[name]:.2f} | {min(values):.2f} to {max(values):.2f} "
            f"| {medians[name] / medians['merged']:.2f} | {peak_mebibytes(name, arguments.batch):.0f} |"
        )
    fold = medians["candidate by candidate, as published"] / medians["merged"]
    over = medians["merged"] / medians["largest single path, float"]
    print(f"\nmerged is {fold:.1f} x faster than as published, and takes {over:.2f} x the largest single path")


if __name__ == "__main__":
    main()
