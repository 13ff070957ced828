"""Arm's compiler on networks that its processors can compute, and on those that they cannot."""

from pathlib import Path

import pytest
import torch

from hwnas.devices.target import load_target
from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.base import ExportJob, ExportOptions
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.tflite import TfliteExporter
from hwnas.exporters.vela import compile_tflite
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture

for _module in ("ethosu", "litert_torch", "ai_edge_quantizer"):
    pytest.importorskip(_module, reason="the extra 'npu' is not installed")

SIZE = (24, 32)


@pytest.fixture(scope="module", params=[True, False], ids=["bicubic", "plain"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ESPCN at x2 in int8 and in float."""
    torch.manual_seed(0)
    network = named_architecture("espcn", 2, 32, request.param).build(FloatLayers()).eval()
    folder = tmp_path_factory.mktemp("tflite")
    paths = {}
    for name, requantise in (("integers", True), ("floats", False)):
        paths[name] = folder / f"{name}.tflite"
        options = ExportOptions(size=SIZE, requantise=requantise)
        job = ExportJob([torch.rand(1, 3, *SIZE)] * 2, {}, PROFILES["tflite"], options)
        TfliteExporter().write(network, paths[name], job)
    return paths


@pytest.mark.parametrize("target", ["ethos-u65", "ethos-u85"])
def test_everything_runs_on_the_processor(files: dict[str, Path], tmp_path: Path, target: str) -> None:
    found = compile_tflite(files["integers"], load_target(target), tmp_path / "compiled.tflite")
    assert (tmp_path / "compiled.tflite").stat().st_size > 1000
    assert found.accelerator == f"{target}-256"
    assert found.estimated_ms > 0 and found.sram_bytes > 0
    # Vela counts what else it does in multiply-accumulates too, and the bicubic enlargement is a convolution here.
    convolutions = (25 * 3 * 64 + 9 * 64 * 32 + 9 * 32 * 12) * SIZE[0] * SIZE[1]
    assert convolutions <= found.macs < 1.2 * convolutions
    assert len([kind for kind, *_ in found.operations if kind == "Conv2D"]) >= 3


def test_floats_are_left_to_no_cpu(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"would run on the CPU beside ethos-u65; export it in int8"):
        compile_tflite(files["floats"], load_target("ethos-u65"), tmp_path / "compiled.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\x00" * 4000])
def test_another_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.tflite").write_bytes(content)
    with pytest.raises(HwnasError, match=r"other\.tflite is not a TFLite file, or is damaged"):
        compile_tflite(tmp_path / "other.tflite", load_target("ethos-u65"), tmp_path / "compiled.tflite")


def test_what_vela_cannot_read_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cut.tflite").write_bytes(files["integers"].read_bytes()[:3000])
    with pytest.raises(HwnasError, match=r"Vela cannot compile .*cut\.tflite: \S"):
        compile_tflite(tmp_path / "cut.tflite", load_target("ethos-u65"), tmp_path / "compiled.tflite")


def test_a_compiled_file_is_told_from_one_to_compile(files: dict[str, Path], tmp_path: Path) -> None:
    compile_tflite(files["integers"], load_target("ethos-u65"), tmp_path / "compiled.tflite")
    with pytest.raises(HwnasError, match=r"compiled\.tflite is compiled already"):
        compile_tflite(tmp_path / "compiled.tflite", load_target("ethos-u65"), tmp_path / "again.tflite")


def test_a_missing_file_and_another_target_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        compile_tflite(tmp_path / "none.tflite", load_target("ethos-u65"), tmp_path / "compiled.tflite")
    with pytest.raises(UsageError, match="nothing is compiled for cpu"):
        compile_tflite(tmp_path / "none.tflite", load_target("cpu"), tmp_path / "compiled.tflite")
