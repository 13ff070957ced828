"""Crossover (section IV-D): one cell and one row of connections of a second parent."""

from __future__ import annotations

import random

from hwnas.spaces.falsr import Genotype


def crossover(a: Genotype, b: Genotype, rng: random.Random) -> Genotype:
    """``a`` with one cell and one row of connections of ``b``, both at positions drawn by themselves."""
    cell, row = rng.randrange(len(a.cells)), rng.randrange(len(a.macro))
    return Genotype(
        (*a.cells[:cell], b.cells[cell], *a.cells[cell + 1 :]),
        (*a.macro[:row], b.macro[row], *a.macro[row + 1 :]),
    )
