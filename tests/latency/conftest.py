"""The simulated device, as a plugin would bring it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.devices import DEVICES
from hwnas.devices.target import add_target
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import SearchSpace

from .simulated import RUNTIME, SimulatedDevice, simulated_target


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SimulatedDevice]]:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))

    class Simulated(SimulatedDevice):
        """A fresh one for each test."""

    DEVICES.register(RUNTIME)(Simulated)
    add_target(simulated_target())
    yield Simulated
    DEVICES.remove(RUNTIME)


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """Small networks of the published space, of one cell."""
    return SPACES["quantnas"](SpaceOptions(cells=2, channels=6, scale=2, bits=(4, 8)))
