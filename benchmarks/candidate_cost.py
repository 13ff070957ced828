"""How many candidates a second the FALSR search can price in multiply-accumulates and parameters.

    python benchmarks/candidate_cost.py [--candidates 20000] [--rounds 7]

Against the plain way: building each architecture and asking the cost models, which know all operators by then too.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hwnas.cost_models import cost_model
from hwnas.searches.falsr.costs import CandidateCosts
from hwnas.spaces.falsr import FALSRSpace

PLAIN = 200
"""Candidates that are priced the plain way in each round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    space, rng = FALSRSpace(name="falsr"), random.Random(0)
    models = [cost_model("flops"), cost_model("params")]
    costs = CandidateCosts(space, [(model, model.default_input_size) for model in models])
    genotypes = [space.sample_genotype(rng) for _ in range(options.candidates)]
    architectures = [space.architecture(genotype) for genotype in genotypes[:PLAIN]]

    began = time.perf_counter()
    found = [costs(genotype) for genotype in genotypes]
    first = time.perf_counter() - began
    expected = [tuple(model.architecture_cost(a).value for model in models) for a in architectures]
    assert found[:PLAIN] == expected, "the two ways disagree"

    fast, plain = [], []
    for _ in range(options.rounds):
        began = time.perf_counter()
        for genotype in genotypes:
            costs(genotype)
        middle = time.perf_counter()
        for genotype in genotypes[:PLAIN]:
            architecture = space.architecture(genotype)
            for model in models:
                model.architecture_cost(architecture)
        fast.append(options.candidates / (middle - began))
        plain.append(PLAIN / (time.perf_counter() - middle))
    print(f"the first {options.candidates:,}, with all operators to be traced: {first:.1f} s")
    print(
        f"then {statistics.median(fast):,.0f} candidates a second ({min(fast):,.0f} to {max(fast):,.0f}, "
        f"{options.rounds} rounds); by way of the architecture {statistics.median(plain):,.0f}"
    )


if __name__ == "__main__":
    main()
