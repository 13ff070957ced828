"""QuantNAS, figure 7: seconds of a step of the search against the number of bit widths.

    python benchmarks/tables/quantnas_7.py --docs

Forward and backward of the supernet of appendix D.2 with AdaDM, on the paper's crops. All take turns in one process, so
that a machine that is slow for a while is slow for all.
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
from rich.console import Console
from rich.progress import track
from search_step import crops, step
from torch import nn
from writing import into_results, markdown, write_csv

from hwnas.files import atomic_path
from hwnas.searches.quantnas.mixed_operator import Quantization
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, SpaceOptions

WIDTHS = ((8,), (4, 8), (2, 4, 8), (2, 4, 6, 8), (2, 3, 4, 6, 8))
VARIANTS: dict[str, tuple[Quantization, bool]] = {
    "independent": ("independent", False),
    "shared": ("shared", False),
    "shared, merged": ("shared", True),
    "noise": ("noise", False),
    "noise, merged": ("noise", True),
}
"""How widths are mixed, and whether candidates are computed together; the last is what hwnas does."""


def supernet(bits: tuple[int, ...], variant: str) -> nn.Module:
    quantization, merge = VARIANTS[variant]
    space = SPACES["quantnas"](SpaceOptions(bits=bits))
    return QuantNASSupernet(space, quantization, merge).to(memory_format=torch.channels_last).train()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("tables/quantnas-7"))
    parser.add_argument("--quick", action="store_true", help="one image a step, in three rounds")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/results.md")
    asked = parser.parse_args()
    rounds, batch = (3, 1) if asked.quick else (asked.rounds, asked.batch)
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
    write_csv(asked.out / "table.csv", cells)
    draw(asked.out / "table.png", seconds)
    print(markdown(cells))
    if asked.docs:
        how = f"Medians of {rounds} rounds in turn, batch {batch}, crops of 45x45, two threads."
        size = " --quick" if asked.quick else f" --batch {batch} --rounds {rounds}"
        command = f"python benchmarks/tables/quantnas_7.py{size}"
        into_results("quantnas-7", "QuantNAS, figure 7: a step against the number of widths", command, cells, how)


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
