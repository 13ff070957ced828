"""From networks that were measured to what each operator takes: a calibrated sum.

The time of a network, as a multiple of the reference's, is taken to be a constant plus a number for each operator it
has, by operator and size of its maps, times its copies. Runtimes fuse an activation, a quantiser and a convolution into
one kernel, and all networks that are measured are whole and deployed, so each number is what the operator takes in
place, neighbours included. The numbers are those that explain all measured networks best, in relative terms.

Widths that the target computes alike take about the same time, but not quite: a map of four bits is clipped. So each of
them has a number of its own that is drawn towards the others'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwnas.architecture import Architecture
from hwnas.devices.target import Target
from hwnas.errors import HwnasError
from hwnas.latency.table import Survey
from hwnas.operators import OperatorSpec

Place = tuple[OperatorSpec, int]
"""An operator, and the side of its maps as a multiple of the low-resolution image's."""

FEWEST = 19
"""Networks at random, of which something can be said that holds 19 times in 20."""

_NOISE = 0.03
"""Relative error of a measured ratio that the two spreads below are held against."""

_WIDTH_SPREAD = 0.01
"""How far the numbers of widths that are computed alike are expected to be apart, in times of the reference."""

_SPREAD = 3.0
"""The same of different operators: so much that nothing is drawn anywhere."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """A calibrated sum, in milliseconds.

    Attributes:
        constant: what every network of the space takes: the reference without what its operators are dearer than the
            cheapest of their kind.
        operators: what each operator takes more than the cheapest one between the same numbers of channels at the same
            size; of one copy.
        uncertainty: share by which 19 of 20 predictions are off at most: of the networks at random, each left out of
            the fit; None of fewer than `FEWEST`.
    """

    constant: float
    operators: Mapping[Place, float]
    uncertainty: float | None

    @property
    def is_nonsense(self) -> bool:
        """Whether it says that the fastest network takes no time at all: the table is too noisy to predict from."""
        return self.constant <= 0

    def at_speed(self, factor: float) -> LatencyModel:
        """The same of a device on which everything takes ``factor`` times as long."""
        operators = {place: factor * ms for place, ms in self.operators.items()}
        return replace(self, constant=factor * self.constant, operators=operators)

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of a network of the space."""
        return self.constant + sum(
            slot.count * self.operators[architecture.operators[slot.name], slot.resolution]
            for slot in architecture.wiring.slots
        )


def fit(survey: Survey, target: Target) -> LatencyModel:
    """The model of a survey.

    Raises:
        HwnasError: if it is not complete.
    """
    slots = survey.space.wiring.slots
    places: dict[Place, int] = {}
    for slot in slots:
        for spec in survey.space.choices[slot.name]:
            places.setdefault((spec, slot.resolution), len(places))
    computed: dict[tuple[OperatorSpec, int, int], int] = {}
    alike = [
        computed.setdefault((spec.float_twin, target.computes(spec), resolution), len(computed))
        for spec, resolution in places
    ]
    # Columns: one for each operator as it is computed, one for each width of it, and the constant.
    n, m = len(computed), len(places)

    def row(architecture: Architecture) -> NDArray[np.float64]:
        counts = np.zeros(n + m + 1)
        counts[-1] = 1
        for slot in slots:
            place = places[architecture.operators[slot.name], slot.resolution]
            counts[alike[place]] += slot.count
            counts[n + place] += slot.count
        return counts

    rows = [row(survey.architecture(survey.reference)), *(row(survey.architecture(x.choice)) for x in survey.networks)]
    ratios = np.array([1.0, *(network.ratio for network in survey.networks)])
    unseen = [place for place, i in places.items() if not any(r[n + i] for r in rows)]
    if unseen or not survey.reference_ms:
        raise HwnasError(f"the table lacks {len(unseen)} of {m} operators; go on with building it")
    features = np.array(rows) / ratios[:, None]
    penalty = np.concatenate([np.full(n, (_NOISE / _SPREAD) ** 2), np.full(m, (_NOISE / _WIDTH_SPREAD) ** 2), [1e-9]])
    inverse = np.linalg.inv(features.T @ features + np.diag(penalty))
    solution = inverse @ features.T @ np.ones(len(ratios))
    errors = 1 - features @ solution
    leverage = np.einsum("ij,jk,ik->i", features, inverse, features)
    held_out = np.abs(errors / np.maximum(1 - leverage, 1e-6))
    random_ones = [held_out[i + 1] for i, network in enumerate(survey.networks) if network.why == "calibration"]
    if not np.all(np.isfinite(solution)):
        raise HwnasError("the table's times cannot be explained by numbers; delete it, and build it again")
    values = {place: solution[alike[i]] + solution[n + i] for place, i in places.items()}
    constant = solution[-1]
    # Of all operators between the same channels the cheapest counts nothing; the constant takes what it does.
    least: dict[tuple[int, int, int], float] = {}
    for (spec, resolution), value in values.items():
        kind = spec.in_channels, spec.out_channels, resolution
        least[kind] = min(value, least.get(kind, np.inf))
    for slot in slots:
        constant += slot.count * least[slot.in_channels, slot.out_channels, slot.resolution]
    return LatencyModel(
        constant=float(constant * survey.ms),
        operators={
            (spec, resolution): float((value - least[spec.in_channels, spec.out_channels, resolution]) * survey.ms)
            for (spec, resolution), value in values.items()
        },
        uncertainty=_bound_of_19_in_20(random_ones),
    )


def _bound_of_19_in_20(errors: Sequence[float]) -> float | None:
    """The smallest of the errors that the next one, if it is like them, is within 19 times in 20.

    Its rank counts the next one too: Vovk et al., Algorithmic Learning in a Random World, 2005.
    """
    rank = -(-19 * (len(errors) + 1) // 20)
    return float(sorted(errors)[rank - 1]) if len(errors) >= FEWEST else None
