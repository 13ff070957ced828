"""QuantNAS, figure 7: seconds of a step of the search against the number of bit widths.

    python benchmarks/tables/quantnas_7.py --docs

Forward and backward of the supernet of appendix D.2 with AdaDM, on the paper's crops. All take turns in one process, so
that a machine that is slow for a while is slow for all. Noise is drawn for every candidate, as published, or once an
epoch, as `hwnas.searches.quantnas.noise` does on CPUs, where drawing is slow; the last variant is what hwnas does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.append(str(Path(__file__).parents[1]))

import torch
from driver import output_folder, parsed, parser
from rich.console import Console
from rich.progress import track
from running import guarded
from search_step import FreshNoise, crops, step
from torch import nn
from writing import commit, into_results, machine, markdown, write_csv

from hwnas.files import atomic_path
from hwnas.searches.quantnas.mixed_operator import Quantization
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, SpaceOptions

WIDTHS = ((8,), (4, 8), (2, 4, 8), (2, 4, 6, 8), (2, 3, 4, 6, 8))
VARIANTS: dict[str, tuple[Quantization, bool, bool]] = {
    "independent": ("independent", False, False),
    "shared": ("shared", False, False),
    "shared, merged": ("shared", True, False),
    "noise as published": ("noise", False, True),
    "noise from a bank": ("noise", False, False),
    "noise from a bank, merged": ("noise", True, False),
}
"""How widths are mixed, whether candidates are computed together, and whether noise is drawn for each of them."""

TITLE = "QuantNAS, figure 7: a step against the number of widths"


def supernet(bits: tuple[int, ...], variant: str) -> nn.Module:
    quantization, merge, fresh = VARIANTS[variant]
    space = SPACES["quantnas"](SpaceOptions(bits=bits))
    network = QuantNASSupernet(space, quantization, merge)  # type: ignore[arg-type]
    for module in network.modules():
        if fresh and hasattr(module, "noise"):
            module.noise = FreshNoise()
    return network.to(memory_format=torch.channels_last).train()


def main() -> None:
    options = parser()
    options.add_argument("--rounds", type=int, default=5, help="of which medians are told; 3 with --quick")
    options.add_argument("--batch", type=int, default=16, help="images of a step; 1 with --quick")
    asked = parsed(options)
    if min(asked.rounds, asked.batch) < 1:
        options.error("--rounds and --batch are 1 at least")
    guarded(lambda: make_table(asked))


def make_table(asked: argparse.Namespace) -> None:
    rounds, batch = (3, 1) if asked.quick else (asked.rounds, asked.batch)
    out = output_folder(asked, "quantnas-7")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    lr, hr = crops(batch, "channels last")
    seconds: dict[tuple[int, str], list[float]] = {}
    for bits in track(WIDTHS, "widths", console=Console(stderr=True)):
        networks = {variant: supernet(bits, variant) for variant in VARIANTS}
        for round_ in range(rounds + 1):
            for variant, network in networks.items():
                taken = step(network, lr, hr)
                if round_:  # the first decides on memory
                    seconds.setdefault((len(bits), variant), []).append(taken)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    cells = [["widths", *(f"{variant}, s (of shared)" for variant in VARIANTS)]]
    for bits in WIDTHS:
        n = len(bits)
        shown = [f"{medians[n, v]:.2f} ({medians[n, v] / medians[n, 'shared']:.2f})" for v in VARIANTS]
        cells.append([", ".join(map(str, bits)), *shown])
    runs = [(bits, variant, taken) for bits in WIDTHS for variant in VARIANTS for taken in seconds[len(bits), variant]]
    write_csv(out / "table.csv", [{"widths": len(b), "variant": v, "seconds": taken} for b, v, taken in runs])
    draw(out / "table.png", seconds)
    print(markdown(cells))
    if asked.docs:
        how = f"Medians of {rounds} rounds in turn, batch {batch}, crops of 45x45, two threads, channels last."
        command = f"python benchmarks/tables/quantnas_7.py --batch {batch} --rounds {rounds}"
        into_results("quantnas-7", TITLE, command, cells, how, f"{commit()}; {machine()}")


def draw(path: Path, seconds: dict[tuple[int, str], list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots()
    counts = [len(bits) for bits in WIDTHS]
    for variant in VARIANTS:
        middle = [statistics.median(seconds[n, variant]) for n in counts]
        low, high = ([f(seconds[n, variant]) for n in counts] for f in (min, max))
        axis.plot(counts, middle, marker="o", label=variant)
        axis.fill_between(counts, low, high, alpha=0.2)
    axis.set(xlabel="number of bit widths", ylabel="seconds of a step", ylim=(0, None), xticks=counts)
    axis.legend()
    axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
