"""The simulated device, as a plugin would bring it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwnas.cost_models import cost_model
from hwnas.cost_models.target import target_cost_model
from hwnas.devices import DEVICES, open_device
from hwnas.devices.target import add_target, load_target
from hwnas.latency.build import build_table
from hwnas.latency.cost import LatencyCost
from hwnas.latency.table import LatencyTable
from hwnas.progress import Silent
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import LayerwiseSpace

from .simulated import RUNTIME, SIZE, SimulatedDevice, simulated_target


@contextmanager
def _simulated(home: Path) -> Iterator[type[SimulatedDevice]]:
    class Simulated(SimulatedDevice):
        """A fresh one for each test."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_HOME", str(home))
        DEVICES.register(RUNTIME)(Simulated)
        try:
            add_target(simulated_target())
            yield Simulated
        finally:
            DEVICES.remove(RUNTIME)


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[type[SimulatedDevice]]:
    with _simulated(tmp_path / "home") as found:
        yield found


@pytest.fixture(scope="session")
def full_space() -> LayerwiseSpace:
    """Small networks of the published space, of two cells."""
    return SPACES["quantnas"](SpaceOptions(cells=2, channels=6, scale=2, bits=(4, 8)))


@pytest.fixture(scope="session")
def space() -> LayerwiseSpace:
    """One cell, of which three layers have a choice; in float, whose files are written three times as fast."""
    whole = SPACES["quantnas"](SpaceOptions(cells=1, channels=6, scale=2, bits=(32,)))
    kept = {"head.0": 2, "body.1": 4, "tail.1": 2}
    choices = {layer: candidates[: kept.get(layer, 1)] for layer, candidates in whole.choices.items()}
    return whole.model_copy(update={"choices": choices})


@pytest.fixture(scope="session")
def built(space: LayerwiseSpace, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """The table of that space on the simulated device, once for all tests."""
    with _simulated(tmp_path_factory.mktemp("home")), open_device(load_target("abacus")) as device:
        return build_table(device, space, SIZE, Silent(), calibration=6, rounds=9)[0]


@pytest.fixture
def cost(simulated: type[SimulatedDevice]) -> LatencyCost:
    target_cost_model.cache_clear()
    found = cost_model("latency@abacus")
    assert isinstance(found, LatencyCost)
    return found
