"""Networks trained for a moment, so that their values are not those of a start, against their files."""

import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from brevitas.nn import QuantIdentity
from onnx import numpy_helper
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.exporters import EXPORTERS, ExportOptions
from hwnas.exporters import onnx as onnx_exporter
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.base import ExportJob
from hwnas.exporters.onnx import export_onnx
from hwnas.exporters.parity import (
    FLOAT_TOLERANCE,
    HALF_TOLERANCE,
    QUANTISED_TOLERANCE,
    REQUANTISED_TOLERANCE,
    SOURCE_TOLERANCE,
    Tolerance,
    check_parity,
    require_source,
    tie_noise,
)
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.runtime import OnnxArtifact
from hwnas.networks import parse_wiring
from hwnas.networks.adadm import freeze_normalisation
from hwnas.networks.bicubic import bicubic
from hwnas.operators import FLOAT_BITS, OperatorSpec, build_operator
from hwnas.quantization.brevitas_layers import BrevitasLayers


def _image(height: int, width: int, phase: float = 0.0) -> Tensor:
    """Smooth waves with a hard edge, [1, 3, height, width] in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    waves = torch.stack([torch.sin(x + phase), torch.cos(y - phase), torch.sin(x * y / 3 + phase)])
    return ((waves / 4 + 0.5) + 0.25 * (x > y)).clamp(0, 1)[None]


CROPS = [_image(16, 16), _image(11, 20, 1.0), _image(24, 9, 2.0)]


def _trained(*widths: int, residual: str = "add") -> nn.Module:
    torch.manual_seed(0)
    layers, width = BrevitasLayers(collect_steps=3), itertools.cycle(widths)

    def make(slot):
        bits = next(width)
        spec = OperatorSpec(
            kind="conv",
            in_channels=slot.in_channels,
            out_channels=slot.out_channels,
            bias=True,
            activation="none" if slot.in_channels == 3 else "relu",
            weight_bits=bits,
            activation_bits=bits,
        )
        return build_operator(spec, layers)

    wiring = {"kind": "quantnas", "channels": 8, "cells": 1, "scale": 2, "residual": residual}
    network = parse_wiring(wiring).build(make)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(15):
        high = _image(32, 32, step / 3)
        optimiser.zero_grad()
        (network(nn.functional.avg_pool2d(high, 2)) - high).abs().mean().backward()
        optimiser.step()
    return network


@pytest.mark.parametrize(
    "residual", ["add", "adadm", "adadm frozen", pytest.param("original-adadm", marks=pytest.mark.slow), "batch-norm"]
)
@pytest.mark.parametrize("widths", [(FLOAT_BITS,), (8,), (4,), (4, 8, FLOAT_BITS)], ids=str)
def test_a_trained_network_and_its_file_agree(tmp_path: Path, widths: tuple[int, ...], residual: str) -> None:
    network = _trained(*widths, residual=residual.split()[0])
    if residual.endswith("frozen"):
        freeze_normalisation(network)
    path = tmp_path / "network.onnx"
    export_onnx(network, path, CROPS[0], {"scale": "2"})
    report = check_parity(
        network, OnnxArtifact(path), CROPS, FLOAT_TOLERANCE if widths == (FLOAT_BITS,) else QUANTISED_TOLERANCE
    )
    assert report.passed
    assert report.crops == 3
    assert report.mean <= report.maximum
    assert network.training, "the network is left in the mode it was in"


def _change_a_weight(path: Path) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    weights = numpy_helper.to_array(tensor).copy()
    weights[0] = -weights[0]
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("bits", "tolerance"), [(FLOAT_BITS, FLOAT_TOLERANCE), (8, QUANTISED_TOLERANCE)])
def test_one_wrong_filter_is_noticed(tmp_path: Path, bits: int, tolerance: Tolerance) -> None:
    network, path = _trained(bits), tmp_path / "network.onnx"
    export_onnx(network, path, CROPS[0], {})
    _change_a_weight(path)
    with pytest.raises(HwnasError, match=r"computes: [\d.]+ grey levels mean, [\d.]+ at most.*; up to "):
        check_parity(network, OnnxArtifact(path), CROPS, tolerance)


def test_the_file_of_a_network_with_another_scale_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(nn.PixelShuffle(1), path, CROPS[0], {})
    with pytest.raises(HwnasError, match="makes"):
        check_parity(nn.Upsample(scale_factor=2), OnnxArtifact(path), CROPS, FLOAT_TOLERANCE)


def test_a_file_that_enlarges_as_bicubic_and_adds_nothing_is_noticed(tmp_path: Path) -> None:
    """Though the network adds less than the tolerance allows to differ."""
    torch.manual_seed(0)

    class AddsLittle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bicubic(x, 2) + 0.1 / 255 * torch.sign(bicubic(x, 2) - 0.5)

    class AddsNothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bicubic(x, 2)

    path = tmp_path / "network.onnx"
    export_onnx(AddsNothing(), path, CROPS[0], {})
    assert check_parity(AddsNothing(), OnnxArtifact(path), CROPS, QUANTISED_TOLERANCE).passed
    with pytest.raises(HwnasError, match="does not compute what the network computes"):
        check_parity(AddsLittle(), OnnxArtifact(path), CROPS, QUANTISED_TOLERANCE)


class _Detail(nn.Module):
    """Adds ``level`` grey levels to bicubic enlargement, up and down from row to row."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        enlarged = bicubic(x, 2)
        rows = torch.arange(enlarged.shape[2])[:, None] % 2 * 2 - 1
        return enlarged + self.level / 255 * rows


class _Off(Artifact):
    """What a `_Detail` computes with ``detail`` of its detail, noise unlike it, and one pixel that is wrong."""

    path, runtime, size, takes_bytes = Path("file"), "none", (None, None), False

    def __init__(self, network: _Detail, detail: float = 1.0, noise: float = 0.0, pixel: float = 0.0) -> None:
        self.network, self.noise, self.pixel = _Detail(network.level * detail), noise * network.level, pixel
        self.properties: dict[str, str] = {}

    def run(self, x: np.ndarray) -> np.ndarray:
        y = self.network(torch.from_numpy(x)).numpy()
        columns = np.arange(y.shape[3]) % 2 * 2 - 1
        y = y + self.noise / 255 * columns
        y[0, 0, 0, 0] += self.pixel / 255
        return y


@pytest.mark.parametrize(
    ("tolerance", "level", "passes", "fails"),
    [
        (FLOAT_TOLERANCE, 2.0, {"noise": 0.0004}, {"noise": 0.0006}),
        (FLOAT_TOLERANCE, 2.0, {"pixel": 0.009}, {"pixel": 0.011}),
        (SOURCE_TOLERANCE, 2.0, {"noise": 0.0049}, {"noise": 0.0051}),
        (SOURCE_TOLERANCE, 2.0, {"detail": 0.996}, {"detail": 0.994}),
        (QUANTISED_TOLERANCE, 2.0, {"noise": 0.019}, {"noise": 0.021}),
        (QUANTISED_TOLERANCE, 2.0, {"detail": 0.991}, {"detail": 0.989}),
        (QUANTISED_TOLERANCE, 20.0, {"noise": 0.012}, {"noise": 0.013}),
        (QUANTISED_TOLERANCE, 20.0, {"pixel": 63.0}, {"pixel": 65.0}),
        (HALF_TOLERANCE, 0.12, {"noise": 0.45}, {"noise": 0.55}),
        (HALF_TOLERANCE, 0.04, {"noise": 0.7}, {"noise": 0.8}),
        (HALF_TOLERANCE, 0.5, {"detail": 0.91}, {"detail": 0.89}),
        (REQUANTISED_TOLERANCE, 2.0, {"detail": 1.09}, {"detail": 1.11}),
        (REQUANTISED_TOLERANCE, 2.0, {"noise": 0.45}, {"noise": 0.55}),
        (REQUANTISED_TOLERANCE, 20.0, {"noise": 0.09}, {"noise": 0.11}),
    ],
)
def test_what_is_allowed_is_as_documented(
    tolerance: Tolerance, level: float, passes: dict[str, float], fails: dict[str, float]
) -> None:
    """A share of what the network adds, a mean, a maximum, and how much of the detail is there."""
    network, crop = _Detail(level), [torch.full((1, 3, 32, 32), 0.5)]
    assert check_parity(network, _Off(network, **passes), crop, tolerance).passed
    with pytest.raises(HwnasError, match="does not compute what the network computes"):
        check_parity(network, _Off(network, **fails), crop, tolerance)


def test_a_graph_is_held_to_what_it_says_on_most_images() -> None:
    network, crops = _Detail(2.0), [torch.full((1, 3, 16, 16), level) for level in (0.2, 0.4, 0.6, 0.8)]

    class OffOn(_Off):
        """Off on the first images only."""

        def __init__(self, images: int) -> None:
            super().__init__(network, noise=0.05)
            self.left = images

        def run(self, x: np.ndarray) -> np.ndarray:
            self.left -= 1
            self.noise = 0.05 * (self.left >= 0)
            return super().run(x)

    require_source(network, OffOn(2), crops, SOURCE_TOLERANCE)
    with pytest.raises(HwnasError, match="the exported graph does not compute what the network computes"):
        require_source(network, OffOn(3), crops, SOURCE_TOLERANCE)


class _Ties(_Detail):
    """Quantises its image in steps of 0.5, which are worth one grey level; all pixels of CROP are ties."""

    CROP = torch.full((1, 3, 16, 16), 0.25)

    def __init__(self) -> None:
        super().__init__(2.0)
        self.quantiser = QuantIdentity(bit_width=2, scaling_impl_type="const", scaling_init=1.0, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + nn.functional.interpolate(2 / 255 * self.quantiser(x), scale_factor=2)


def test_ties_that_round_the_other_way_are_no_error_of_a_file() -> None:
    """Half of them fall to the level above."""
    network = _Ties().eval()
    noise = tie_noise(network, network.CROP)
    assert 0.4 < noise < 0.6
    assert tie_noise(network, network.CROP + 0.1) == 0, "there are no ties"
    assert tie_noise(_Detail(2.0), network.CROP) == 0, "nothing is quantised"
    allowed = (0.005 * 2 + 1.5 * noise) / 2
    require_source(network, _Off(network, noise=0.99 * allowed), [network.CROP], SOURCE_TOLERANCE)
    with pytest.raises(HwnasError, match="the exported graph"):
        require_source(network, _Off(network, noise=1.01 * allowed), [network.CROP], SOURCE_TOLERANCE)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_what_is_written_is_held_against_the_network(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that lacks one Clip of a 4-bit map, which a runtime is not asked about any more."""
    if format == "openvino":
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    network, export = _trained(4), onnx_exporter.export_onnx

    def without_a_clip(network: nn.Module, path: Path, *arguments: object) -> None:
        export(network, path, *arguments)  # type: ignore[arg-type]
        model = onnx.load(path)
        clip = [node for node in model.graph.node if node.op_type == "Clip"][1]
        reader = next(node for node in model.graph.node if clip.output[0] in node.input)
        reader.input[0] = clip.input[0]
        model.graph.node.remove(clip)
        onnx.save(model, path)

    monkeypatch.setattr(onnx_exporter, "export_onnx", without_a_clip)
    exporter = EXPORTERS[format]
    job = ExportJob(CROPS, {"scale": "2"}, PROFILES["onnxruntime-cpu"], ExportOptions())
    with pytest.raises(HwnasError, match="the exported graph does not compute what the network computes"):
        exporter.write(network, tmp_path / f"network{exporter.suffix}", job)


def test_bytes_beyond_white_and_black_are_no_detail() -> None:
    """Bicubic enlargement overshoots at edges; what is cut off there is nothing that a network adds."""

    class BicubicAlone(_Off):
        takes_bytes = True

        def run(self, x: np.ndarray) -> np.ndarray:
            enlarged = bicubic(torch.from_numpy(x / np.float32(255)), 2).numpy()
            return np.rint(enlarged.clip(0, 1) * 255).astype(np.uint8)

    torch.manual_seed(0)
    blocks = (torch.rand(1, 1, 24, 24) < 0.5).float().expand(1, 3, 24, 24)
    network = _Detail(0.8)
    with pytest.raises(HwnasError, match="does not compute"):
        check_parity(network, BicubicAlone(network), [blocks], QUANTISED_TOLERANCE)


def test_differences_are_in_grey_levels(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(nn.ReLU(), path, CROPS[0], {})

    class Brighter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 2 / 255 * (x > 0.5)

    report = check_parity(
        Brighter(),
        OnnxArtifact(path),
        [torch.tensor([0.25, 0.75]).expand(1, 3, 4, 2)],
        Tolerance(1.5, 2.5, share=math.inf, detail=math.inf),
    )
    assert report.mean == pytest.approx(1, abs=1e-4)
    assert report.maximum == pytest.approx(2, abs=1e-4)


def test_a_difference_that_is_not_a_number_never_passes(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(nn.ReLU(), path, CROPS[0], {})
    with pytest.raises(HwnasError, match="nan"):
        check_parity(nn.ReLU(), OnnxArtifact(path), [torch.full((1, 3, 4, 4), float("nan"))], QUANTISED_TOLERANCE)


def test_no_crops_are_no_check(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    export_onnx(nn.ReLU(), path, CROPS[0], {})
    with pytest.raises(HwnasError, match="at least one crop"):
        check_parity(nn.ReLU(), OnnxArtifact(path), [], FLOAT_TOLERANCE)
