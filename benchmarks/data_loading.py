"""Does the training step ever wait for data? Time of a batch of crops against time of a training step.

python benchmarks/data_loading.py [--rounds 20]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from torch.nn import functional

from hwnas.data.sources import load_training_data
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    data = load_training_data("bundled", 4, 0).train
    network = named_architecture("espcn").build(FloatLayers())
    rng = np.random.default_rng(0)
    sampling, training = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        lr, hr = data.sample(rng, 16, 45)
        middle = time.perf_counter()
        functional.l1_loss(network(lr), hr).backward()
        sampling.append(middle - begin)
        training.append(time.perf_counter() - middle)
    batch, step = statistics.median(sampling), statistics.median(training)
    print(f"16 crops of 180x180: {batch * 1e3:.1f} ms; a step of ESPCN, the smallest network: {step * 1e3:.0f} ms")
    print(f"ratio {batch / step:.3f} ({min(sampling) * 1e3:.1f} to {max(sampling) * 1e3:.1f} ms, {rounds} rounds)")


if __name__ == "__main__":
    main()
