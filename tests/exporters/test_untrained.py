"""Networks written to be timed are the networks that would be deployed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from hwnas.devices.target import load_target
from hwnas.exporters.lint import check_model
from hwnas.exporters.onnx import export_onnx
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.untrained import GRAPHS, untrained_suffix, write_untrained
from hwnas.networks.adadm import freeze_normalisation
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.spaces import named_architecture


def _operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("target", ["cpu", "openvino-cpu"])
def test_they_have_the_operations_of_an_export(target: str, tmp_path: Path) -> None:
    """AdaDM is frozen by the training, and so it is here: no sums over the image."""
    architecture, profile = named_architecture("quantnas-body3"), PROFILES[load_target(target).profile]
    write_untrained(architecture, load_target(target), (24, 32), tmp_path / "untrained.onnx")
    torch.manual_seed(1)
    network = build_quantised(architecture, collect_steps=1, placement=profile.placement)
    image = torch.rand(1, 3, 20, 24)
    calibrate(network, [image])
    freeze_normalisation(network)
    export_onnx(network, tmp_path / "exported.onnx", image, {"scale": "4"}, profile)
    found = _operations(tmp_path / "untrained.onnx")
    assert found == _operations(tmp_path / "exported.onnx")
    assert not [name for name in found if name.startswith("Reduce")]


@pytest.mark.parametrize(
    ("target", "operations"),
    [
        (
            "cpu",
            "Add 8 Clip 18 Conv 26 DepthToSpace 1 DequantizeLinear 69 LeakyRelu 1 QuantizeLinear 35 Relu 17",
        ),
        (
            "jetson",
            "Add 8 BatchNormalization 1 Clip 18 Conv 25 DepthToSpace 1 DequantizeLinear 60 Mul 5 QuantizeLinear 35",
        ),
        (
            "snapdragon",
            "Add 8 BatchNormalization 1 Conv 25 DepthToSpace 1 DequantizeLinear 103 Min 18 Mul 5 QuantizeLinear 53 "
            "Relu 18",
        ),
    ],
)
def test_what_is_written_has_a_version(target: str, operations: str, tmp_path: Path) -> None:
    """Latency tables are of one version of the graphs: whoever changes this test raises `GRAPHS`."""
    write_untrained(named_architecture("quantnas-body3", 2, 4), load_target(target), (24, 32), tmp_path / "n.onnx")
    found = " ".join(f"{name} {count}" for name, count in sorted(_operations(tmp_path / "n.onnx").items()))
    assert (GRAPHS, found) == (1, operations)


def test_they_keep_the_rules_of_their_runtime(tmp_path: Path) -> None:
    target, path = load_target("jetson"), tmp_path / "n.onnx"
    assert untrained_suffix(target) == ".onnx", "the engine is built on the device"
    write_untrained(named_architecture("srresnet", 2, 8), target, (24, 32), path)
    assert not [finding for finding in check_model(path, PROFILES[target.profile]) if finding.level == "error"]


def test_writing_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    write_untrained(named_architecture("espcn", 2), load_target("cpu"), (8, 8), tmp_path / "n.onnx")
    assert torch.equal(torch.rand(3), expected)
