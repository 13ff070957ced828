"""The first population (section IV-B): one cell repeated, and connections of three kinds."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hwnas.searches.falsr.settings import FALSRSettings
from hwnas.spaces.falsr import DISTINCT, FALSRSpace, Genotype, unconnected


def first_genotypes(space: FALSRSpace, settings: FALSRSettings, rng: random.Random) -> Iterator[Genotype]:
    """Networks of one cell each, no cell twice; when all are used up, arbitrary ones, without end."""
    cells = list(DISTINCT)
    rng.shuffle(cells)
    for cell in cells:
        yield Genotype((cell,) * space.cells, first_connections(space.cells, settings, rng))
    while True:
        yield space.sample_genotype(rng)


def first_connections(n: int, settings: FALSRSettings, rng: random.Random) -> tuple[tuple[int, ...], ...]:
    """Each connection on or off with even chances, or all on, or all off: drawn by their shares."""
    none, p = unconnected(n), rng.random()
    if p < settings.random_connections:
        return tuple(tuple(rng.randrange(2) for _ in row) for row in none)
    on = int(p < settings.random_connections + settings.dense_connections)
    return tuple((on,) * len(row) for row in none)
