"""Searching within a budget in time: predictions propose, the device decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.budget import Budget
from hwnas.cost_models.target import target_cost_model
from hwnas.devices import open_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters.untrained import write_untrained
from hwnas.latency.table import LatencyTable
from hwnas.progress import Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches.base import SearchTask
from hwnas.searches.quantnas.measured import derive_measured
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.spaces.space import SearchSpace

from .simulated import SIZE, SimulatedDevice, true_ms

Simulated = type[SimulatedDevice]


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def built_here(simulated: Simulated, built: LatencyTable) -> Iterator[LatencyTable]:
    target_cost_model.cache_clear()
    built.save()
    yield built
    target_cost_model.cache_clear()


def _task(space: SearchSpace, limit: float, tmp_path: Path) -> SearchTask:
    return SearchTask(
        space=space,
        budgets=(Budget("latency@abacus", limit, SIZE),),
        data=None,  # type: ignore[arg-type]
        settings=QuantNASSettings(),
        target="abacus",
        seed=0,
        run=RunDirectory(tmp_path),
        progress=Lines(),
    )


@pytest.fixture(scope="module")
def truth(space: SearchSpace, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, ...], float]:
    """Milliseconds of all sixteen networks of the space."""
    path, target = tmp_path_factory.mktemp("all") / "n.onnx", load_target("cpu")
    found = {}
    for choice in itertools.product(*(range(len(candidates)) for candidates in space.choices.values())):
        architecture = space.architecture(dict(zip(space.choices, choice, strict=True)))
        write_untrained(architecture, target, SIZE, path)
        found[choice] = true_ms(path)
    return found


def _scores(space: SearchSpace) -> dict[str, list[float]]:
    """What costs more is more probable, so that the budget decides; no two choices are equally probable."""
    return {
        layer: [-1.0 / (1 + i) - 0.01 * n for i in range(len(candidates))]
        for n, (layer, candidates) in enumerate(space.choices.items())
    }


@pytest.mark.parametrize("speed", [1.0, 1.6, 0.7])
def test_the_choice_is_the_best_that_is_measured_within(
    speed: float,
    built_here: LatencyTable,
    simulated: Simulated,
    space: SearchSpace,
    truth: dict[tuple[int, ...], float],
    tmp_path: Path,
) -> None:
    """Also on a device that is slower or faster than it was: predictions are corrected, and propose again."""
    simulated.speed, simulated.drift = speed, 0.0
    times = sorted(truth.values())
    # Between two networks: a prediction cannot tell which side one is on that takes just the limit.
    limit = (times[7] + times[8]) / 2 * max(speed, 1.0)
    task, scores = _task(space, limit, tmp_path), _scores(space)
    derived = derive_measured(task, scores)
    assert derived.chosen is not None
    chosen = tuple(derived.chosen[layer] for layer in space.choices)
    assert truth[chosen] * speed <= limit
    assert derived.measured[chosen]["latency@abacus"] == pytest.approx(truth[chosen] * speed)

    def score(choice: tuple[int, ...]) -> float:
        return math.fsum(scores[layer][i] for layer, i in zip(space.choices, choice, strict=True))

    best = max((c for c, ms in truth.items() if ms * speed <= limit), key=score)
    assert score(chosen) == pytest.approx(score(best))


def test_a_budget_that_nothing_meets_on_the_device_says_so(
    built_here: LatencyTable,
    simulated: Simulated,
    space: SearchSpace,
    truth: dict[tuple[int, ...], float],
    tmp_path: Path,
) -> None:
    simulated.speed, simulated.drift = 100.0, 0.0
    task = _task(space, max(truth.values()), tmp_path)
    with pytest.raises(HwnasError, match=r"was measured within .* ms at 8x8; raise the budget"):
        derive_measured(task, _scores(space))
    assert any("predictions are corrected" in line for line in task.progress.lines)  # type: ignore[attr-defined]


def test_a_device_that_has_gone_is_an_error_and_no_guess(
    built_here: LatencyTable, simulated: Simulated, space: SearchSpace, tmp_path: Path
) -> None:
    simulated.dies_after = 0
    with pytest.raises(HwnasError, match="went away"):
        derive_measured(_task(space, 100.0, tmp_path), _scores(space))
    with open_device(load_target("abacus")) as device:
        assert device.missing() is None
