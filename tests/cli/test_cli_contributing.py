"""The examples of CONTRIBUTING.md, as they stand there, work from the command line."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwnas.architecture import load_architecture
from hwnas.cost_models import COST_MODELS, cost_model
from hwnas.devices import DEVICES
from hwnas.exporters import EXPORTERS
from hwnas.operators import OPERATORS, OperatorSpec, build_operator
from hwnas.operators.layers import FloatLayers
from hwnas.searches import SEARCHES
from hwnas.spaces import SPACES

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
REGISTERED = (
    (OPERATORS, "bottleneck"),
    (COST_MODELS, "traffic"),
    (SEARCHES, "random"),
    (SEARCHES, "annealed"),
    (SPACES, "quantnas-bottleneck"),
    (EXPORTERS, "gzip"),
    (DEVICES, "onnx-reference"),
)


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that the page defines, in one module."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "contributed.py").write_text("\n\n".join(blocks), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("contributed")
    yield
    for registry, name in REGISTERED:
        registry.remove(name)
    del sys.modules["contributed"]


@pytest.mark.usefixtures("contributed")
def test_the_operator_is_built_and_costed() -> None:
    spec = OperatorSpec(kind="bottleneck", in_channels=8, hidden=4, out_channels=6)
    assert sum(p.numel() for p in build_operator(spec, FloatLayers()).parameters()) == 8 * 4 + 4 * 4 * 9 + 4 * 6
    assert cost_model("flops").operator_cost(spec, (10, 10)) == 100 * (8 * 4 + 4 * 4 * 9 + 4 * 6)


@pytest.mark.usefixtures("contributed")
def test_the_operator_is_searched_over(hwnas: Any, tiny: Sequence[str], out: Path) -> None:
    answer = hwnas("search", *tiny, "--space", "quantnas-bottleneck", "--set", "search.front_points=9", "--out", out)
    assert answer.code == 0, answer.err
    # Ten candidates in place of eight in the two layers of the body.
    assert f"space quantnas-bottleneck: {7_077_888 // 64 * 100:,} architectures" in answer.err


@pytest.mark.usefixtures("contributed")
def test_the_search_meets_a_budget_of_the_cost_model(hwnas: Any, photographs: Path, out: Path) -> None:
    command = ("search", "--algorithm", "random", "--data", photographs, "--cells", "1", "--channels", "6")
    assert "needs a --budget" in hwnas(*command, "--out", out).error(2)
    assert "did you mean tries?" in hwnas(*command, "--set", "search.trys=3", "--out", out).error(2)
    answer = hwnas(*command, "--budget", "2.2MTrafficBits", "--out", out, "--json")
    assert answer.code == 0, answer.err
    costs = cost_model("traffic").architecture_cost(load_architecture(out / "architecture.json"))
    assert 1.8e6 < costs.value <= 2.2e6


@pytest.mark.usefixtures("contributed")
def test_the_search_by_gradients_meets_its_budget_and_goes_on(hwnas: Any, tiny: Sequence[str], out: Path) -> None:
    command = ("search", "--algorithm", "annealed", *tiny, "--set", "search.speed_up=100")
    answer = hwnas(*command, "--budget", "50MBitOps", "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["costs"]["bitops"] <= 50e6
    assert "there is no setting search.sped_up; did you mean speed_up?" in hwnas(
        *command, "--set", "search.sped_up=3", "--out", out / "b"
    ).error(2)
    assert "the search is complete" in hwnas("search", "--out", out, "--resume").err


@pytest.mark.usefixtures("contributed")
def test_the_format_is_exported_and_opened(hwnas: Any, espcn: Any, low: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.gz"
    answer = hwnas("export", espcn.path, "--format", "gzip", "-o", path, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["size_bytes"] == path.stat().st_size < (espcn.path / "model.onnx").stat().st_size
    assert hwnas("upscale", path, low / "even.png", tmp_path / "large.png").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("contributed")
def test_the_format_and_the_device_keep_their_contracts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "contributed.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stdout
    assert re.search("17 passed", ended.stdout)
