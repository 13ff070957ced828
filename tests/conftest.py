"""Settings for all tests."""

import os

import pytest

# Set before torch is imported: on shared cores, threads that spin while they wait slow everything down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Targets and tables of whoever runs the tests stay out of them, and theirs out of the user's folder."""
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path_factory.getbasetemp() / "nobody"))
