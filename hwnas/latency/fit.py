"""From networks that were measured to what each operator takes: a calibrated sum.

The time of a network, as a multiple of the reference's, is taken to be a constant plus a number for each operator it
has, by operator and size of its maps, times its copies. Runtimes fuse an activation, a quantiser and a convolution into
one kernel, and all networks that are measured are whole and deployed, so each number is what the operator takes in
place, neighbours included. The numbers are those that explain all measured networks best, in relative terms.

How the time of an operator is put together of numbers is a matter of the kind of space: see `Design.features`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwnas.architecture import Architecture
from hwnas.devices.target import Target
from hwnas.errors import HwnasError
from hwnas.latency.design import Place
from hwnas.latency.table import Survey
from hwnas.spaces.space import Choice

FEWEST = 19
"""Networks at random, of which something can be said that holds 19 times in 20."""

_NOISE = 0.03
"""Relative error of a measured ratio, which the spreads of features are held against."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """A calibrated sum, in milliseconds.

    Attributes:
        constant: what every network of the space takes.
        operators: what one copy of each operator takes besides: where layers are chosen one by one, more than the
            cheapest one between the same numbers of channels at the same size; else all that it takes.
        uncertainty: share by which 19 of 20 predictions are off at most: of the networks at random, each left out of
            the fit; None of fewer than `FEWEST`.
    """

    constant: float
    operators: Mapping[Place, float]
    uncertainty: float | None

    @property
    def is_nonsense(self) -> bool:
        """Whether it says that the fastest network takes less than no time: the table is too noisy to predict from."""
        return self.constant < 0

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
    if survey.lacking or not survey.reference_ms:
        raise HwnasError(f"the table lacks {len(survey.lacking)} networks that tell operators; go on with building it")
    places = survey.design.features(target)
    numbers = {feature: i for i, feature in enumerate(dict.fromkeys(f for made_of in places.values() for f in made_of))}

    def row(choice: Choice) -> NDArray[np.float64]:
        counts = np.zeros(len(numbers) + 1)
        counts[-1] = 1
        network = survey.space.chosen(choice)
        for slot in network.wiring.slots:
            for feature, amount in places[network.operators[slot.name], slot.resolution].items():
                counts[numbers[feature]] += slot.count * amount
        return counts

    rows = np.array([row(choice) for choice in (survey.reference, *(network.choice for network in survey.networks))])
    ratios = np.array([1.0, *(network.ratio for network in survey.networks)])
    features = rows / ratios[:, None]
    spreads = np.array([*(feature.spread for feature in numbers), survey.design.constant_spread])
    solution, left_out = _ridge(features, spreads / _NOISE)
    operators = {
        place: float(sum(amount * solution[numbers[feature]] for feature, amount in made_of.items()))
        for place, made_of in places.items()
    }
    constant, operators = survey.design.settled(float(solution[-1]), operators)
    model = LatencyModel(
        constant=constant * survey.ms,
        operators={place: value * survey.ms for place, value in operators.items()},
        uncertainty=None,
    )
    errors = []
    for i, network in enumerate(survey.networks, 1):
        if network.why == "calibration":
            # Settling may have added to the sum of what is less than nothing, and is taken to do so without it too.
            settled = model.predict(survey.space.chosen(network.choice)) / survey.ms / network.ratio
            errors.append(abs(left_out[i] - (settled - features[i] @ solution)))
    return replace(model, uncertainty=_bound_of_19_in_20(errors))


def _ridge(
    features: NDArray[np.float64], spreads: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The numbers of which every row is 1 as nearly as can be, and how far each row is from it if it is left out.

    Args:
        features: [N, M]; there may be many more numbers than rows.
        spreads: [M], how large the numbers are expected to be, in times of the error of a row.
    """
    try:
        u, s, v = np.linalg.svd(features * spreads, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise HwnasError("the table's times cannot be explained by numbers; delete it, and build it again") from error
    kept = s**2 / (s**2 + 1)
    solution = spreads * (v.T @ (s / (s**2 + 1) * u.sum(0)))
    leverage = (u**2) @ kept
    return solution, (1 - features @ solution) / np.maximum(1 - leverage, 1e-6)


def _bound_of_19_in_20(errors: Sequence[float]) -> float | None:
    """The smallest of the errors that the next one, if it is like them, is within 19 times in 20.

    Its rank counts the next one too: Vovk et al., Algorithmic Learning in a Random World, 2005.
    """
    rank = -(-19 * (len(errors) + 1) // 20)
    return float(sorted(errors)[rank - 1]) if len(errors) >= FEWEST else None
