"""How well a table predicts networks that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from hwnas.devices.device import Device
from hwnas.errors import HwnasError
from hwnas.latency.build import ROUNDS, Rounds, batches, measure_session, require_same
from hwnas.latency.fit import fit
from hwnas.latency.table import LatencyTable, Survey
from hwnas.progress import Progress


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Predictions against measurements.

    Attributes:
        rho: Spearman's rank correlation.
        error: mean absolute error as a share of what was measured.
        bias: mean error, the same.
        within_5: share of networks that are predicted within 5 %.
        within_10: the same within 10 %.
    """

    rho: float
    error: float
    bias: float
    within_5: float
    within_10: float


@dataclass(frozen=True, slots=True)
class Validation:
    """Networks that the table has not seen.

    Attributes:
        predicted_ms: of each network.
        measured_ms: at the speed that the device had when the table was built: its time as a multiple of the
            reference's, which took turns with it, times what the reference took then.
        clock_ms: medians by the clock.
        reference_ms: median of the reference now, of each session.
        accuracy: against ``measured_ms``.
        accuracy_by_the_clock: against ``clock_ms``.
    """

    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    clock_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]

    @property
    def accuracy(self) -> Accuracy:
        return accuracy(self.predicted_ms, self.measured_ms)

    @property
    def accuracy_by_the_clock(self) -> Accuracy:
        return accuracy(self.predicted_ms, self.clock_ms)


def accuracy(predicted: tuple[float, ...], measured: tuple[float, ...]) -> Accuracy:
    """How far predictions are off; of at least two networks."""
    errors = np.array(predicted) / np.array(measured) - 1
    return Accuracy(
        rho=float(spearmanr(predicted, measured)[0]),
        error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        within_5=float(np.mean(np.abs(errors) <= 0.05)),
        within_10=float(np.mean(np.abs(errors) <= 0.10)),
    )


def validate(
    device: Device,
    table: LatencyTable,
    survey: Survey,
    count: int,
    progress: Progress,
    rounds: int = ROUNDS,
    seed: int = 1,
) -> Validation:
    """Measure networks at random that are not in the table, whole.

    Raises:
        HwnasError: if the table is not complete, the device is another than the table's, or as `Device.measure`.
    """
    model = fit(survey, device.target)
    choices = survey.design.held_out(count, (network.choice for network in survey.networks), seed)
    if len(choices) < 2:
        raise HwnasError("the table has measured all of the space; there is nothing to validate it on")
    bar = progress.task("validate", rounds * len(choices))
    measured: list[float] = []
    clock: list[float] = []
    references: list[float] = []
    for batch in batches(survey, choices):
        session = measure_session(survey, batch, device, rounds, Rounds(bar, len(batch)))
        require_same(table, session)
        measured += [ratio * survey.ms for ratio in session.ratios]
        clock += session.clock_ms
        references.append(session.reference_ms)
        bar.advance(0, reference=f"{session.reference_ms:.3g} ms")
    predicted = [model.predict(survey.space.chosen(choice)) for choice in choices]
    return Validation(tuple(predicted), tuple(measured), tuple(clock), tuple(references))
