"""Scripts of published tables, as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

TABLES = Path(__file__).parents[2] / "benchmarks" / "tables"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of the folder."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(TABLES))
    yield importlib.import_module
    for name in [name for name in sys.modules.keys() - before if (TABLES / f"{name}.py").exists()]:
        del sys.modules[name]
