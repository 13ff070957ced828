"""Time and memory of a step of the TrilevelNAS supernet: tree, trellis and fixed path, at the same crop.

    python benchmarks/tree_step.py
    python benchmarks/tree_step.py --channels 64 --cells 5 --crop 32 --batch 6      # as published; wants a GPU

A step is one forward and backward of the weights, of the largest widths. Of a tree also when half of its nodes have no
weight any more, and when one path is left, the fixed one: what sparsestmax brings about. All take turns, so
that times compare; memory is what autograd keeps for the backward (of tensors that share storage, once), which is what
decides the batch.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hwnas.searches.trilevel.relaxation import PathRelaxation
from hwnas.searches.trilevel.supernet import TrilevelSupernet
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.trilevel import TrilevelSpace


def supernet_of(options: argparse.Namespace, network: str, device: torch.device) -> TrilevelSupernet:
    """A supernet of one kind, with weights at random."""
    given = {"network": network, "cells": options.cells, "channels": options.channels, "layers": options.layers}
    if network == "fixed":
        given["path"] = (0,) * options.cells + (1, 1)
    space = SPACES["trilevel-a" if options.backbone == "a" else "trilevel-b"](SpaceOptions.model_validate(given))
    assert isinstance(space, TrilevelSpace)
    torch.manual_seed(0)
    supernet = TrilevelSupernet(space, "sparsestmax", PathRelaxation(space.graph, "sparsestmax", "none", 0.0))
    supernet.mode = "max"
    return supernet.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def keep_share(supernet: TrilevelSupernet, share: float) -> None:
    """Leave weight to the path that is fixed elsewhere, and to others at random while that share is enough."""
    graph = supernet.graph
    kept: list[int] = []
    fixed = graph.paths.index((0,) * supernet.space.cells + (1, 1))
    others = [path for path in range(len(graph.paths)) if path != fixed]
    random.Random(0).shuffle(others)
    for path in (fixed, *others):
        needed = {i for other in (*kept, path) for i in graph.members[other]}
        if not kept or len(needed) <= share * len(graph.modules):
            kept.append(path)
    with torch.no_grad():
        supernet.alphas[0].fill_(-10.0)
        supernet.alphas[0][kept] = 0.0


def used(supernet: TrilevelSupernet) -> int:
    """Modules that are computed."""
    return int((supernet.relaxed().modules > 0).sum())


def step(supernet: TrilevelSupernet, x: Tensor) -> None:
    supernet.zero_grad()
    supernet(x).square().mean().backward()
    if x.is_cuda:
        torch.cuda.synchronize()


def kept_bytes(supernet: TrilevelSupernet, x: Tensor) -> int:
    """What a forward keeps for the backward besides the weights."""
    own = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = supernet(x)
    del out
    return sum(sizes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=("a", "b"), default="a")
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--crop", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="one computes small maps faster than two")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = {name: supernet_of(options, name, device) for name in ("fixed", "trellis", "tree")}
    for name, share in (("tree, half of its nodes zero", 0.5), ("tree, one path left", 0.0)):
        cases[name] = supernet_of(options, "tree", device)
        keep_share(cases[name], share)
    torch.set_num_threads(options.threads)
    x = torch.rand(options.batch, 3, options.crop, options.crop, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(options.rounds + 1):
        for name, supernet in cases.items():
            started = time.perf_counter()
            step(supernet, x)
            if turn:  # the first warms up
                times[name].append(time.perf_counter() - started)
    table = Table(title=f"batch {options.batch}, crop {options.crop}, {options.channels} channels, {device}")
    for column in (
        "supernet",
        "modules computed",
        "step, ms",
        "times fixed (least to most)",
        "kept, MB",
        "times fixed",
    ):
        table.add_column(column, justify="left" if column == "supernet" else "right")
    base = kept_bytes(cases["fixed"], x)
    for name, supernet in cases.items():
        ratios = [mine / fixed for mine, fixed in zip(times[name], times["fixed"], strict=True)]
        kept = kept_bytes(supernet, x)
        table.add_row(
            name,
            f"{used(supernet)} of {len(supernet.graph.modules)}",
            f"{1000 * statistics.median(times[name]):.0f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{kept / 1e6:.1f}",
            f"{kept / base:.2f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
