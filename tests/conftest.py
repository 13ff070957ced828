"""Settings for all tests."""

import os
import signal
from collections.abc import Iterator

import pytest

# Set before torch is imported: on shared cores, threads that spin while they wait slow everything down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Targets and tables of whoever runs the tests stay out of them, and theirs out of the user's folder."""
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path_factory.getbasetemp() / "nobody"))


@pytest.fixture
def listens() -> Iterator[None]:
    """Ctrl-C reaches this process, even if the tests were started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
