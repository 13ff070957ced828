"""Core ML packages: what can be seen of them without a Mac."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.base import ExportJob, ExportOptions
from hwnas.exporters.coreml import CoreMlExporter
from hwnas.exporters.profiles import PROFILES
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture

coremltools = pytest.importorskip("coremltools", reason="coremltools is not installed")

SIZE = (24, 20)
METADATA = {"scale": "2", "overlap": "7"}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = named_architecture("espcn", 2, 32, True).build(FloatLayers()).eval()
    # As training leaves them.
    return network.to(memory_format=torch.channels_last)


def _write(network: nn.Module, path: Path, **asked: bool) -> Path:
    options = ExportOptions(size=SIZE, **asked)
    CoreMlExporter().write(network, path, ExportJob([torch.rand(1, 3, *SIZE)], METADATA, PROFILES["tflite"], options))
    return path


def test_a_package_says_what_it_is(network: nn.Module, tmp_path: Path) -> None:
    path = _write(network, tmp_path / "network.mlpackage")
    assert [file.name for file in tmp_path.iterdir()] == ["network.mlpackage"]
    artifact = CoreMlExporter().open(path)
    assert artifact.size == SIZE
    assert METADATA.items() <= dict(artifact.properties).items()
    description = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    (image,), (output,) = description.input, description.output
    assert (image.name, list(image.type.multiArrayType.shape)) == ("lr", [1, 3, 24, 20])
    assert (output.name, list(output.type.multiArrayType.shape)) == ("sr", [1, 3, 48, 40])


def test_integer_weights_take_a_quarter(network: nn.Module, tmp_path: Path) -> None:
    exporter = CoreMlExporter()
    sizes = {}
    for name, asked in (("single", {}), ("half", {"half": True}), ("int8", {"requantise": True})):
        path = _write(network, tmp_path / f"{name}.mlpackage", **asked)
        sizes[name] = next(file.stat().st_size for file in exporter.files(path) if file.name == "weight.bin")
    parameters = sum(weight.numel() for weight in network.parameters())
    assert 4 * parameters <= sizes["single"] < 5.2 * parameters  # the bicubic kernels come on top
    assert sizes["half"] / sizes["single"] == pytest.approx(0.5, abs=0.02)
    assert sizes["int8"] / sizes["single"] == pytest.approx(0.25, abs=0.04)


def test_what_it_cannot_hold_is_refused(network: nn.Module, tmp_path: Path) -> None:
    for asked in ({"takes_bytes": True}, {"pack_int4": True}):
        with pytest.raises(UsageError, match="cannot be had in Core ML packages"):
            _write(network, tmp_path / "network.mlpackage", **asked)
    with pytest.raises(UsageError, match="--input-size"):
        job = ExportJob([torch.rand(1, 3, 8, 8)], {}, PROFILES["tflite"], ExportOptions())
        CoreMlExporter().write(network, tmp_path / "network.mlpackage", job)

    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.pinv(x)

    with pytest.raises(HwnasError, match="Core ML's converter cannot write this network: "):
        _write(Inverse(), tmp_path / "network.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        CoreMlExporter().open(tmp_path / "none.mlpackage")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(HwnasError, match="is not a package of Core ML's, or is damaged"):
        CoreMlExporter().open(tmp_path / "empty.mlpackage")


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac runs it")
def test_it_is_not_run_where_it_cannot_be(network: nn.Module, tmp_path: Path) -> None:
    exporter = CoreMlExporter()
    path = _write(network, tmp_path / "network.mlpackage")
    assert not exporter.runs_here() and "NOT verified" in exporter.notes(path, PROFILES["tflite"])[-1]
    with pytest.raises(HwnasError, match="runs on macOS only"):
        exporter.open(path).run(np.zeros((1, 3, *SIZE), np.float32))
