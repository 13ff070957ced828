"""Exported files: complete, checked, of one piece, and silent while they are made."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.exporters.onnx import INPUT_NAME, OUTPUT_NAME, export_onnx, summarise
from hwnas.exporters.parity import QUANTISED_TOLERANCE, check_parity
from hwnas.exporters.runtime import OnnxArtifact, open_session
from hwnas.networks import parse_wiring
from hwnas.networks.adadm import freeze_normalisation
from hwnas.networks.bicubic import bicubic
from hwnas.operators import FLOAT_BITS, OperatorSpec, build_operator
from hwnas.quantization.brevitas_layers import BrevitasLayers, build_quantised, calibrate
from hwnas.spaces import named_architecture

QUANTNAS = {"kind": "quantnas", "channels": 6, "cells": 1, "scale": 2}
WIRINGS = {
    "plain": QUANTNAS,
    "adadm and bicubic": {**QUANTNAS, "residual": "adadm", "bicubic": True},
    "srresnet": {"kind": "srresnet", "channels": 6, "blocks": 1, "scale": 4},
    "espcn": {"kind": "chain", "channels": [6, 6], "scale": 3, "bicubic": True},
}


def _network(wiring: dict, *widths: int, bias: bool = False) -> nn.Module:
    layers, width = BrevitasLayers(), itertools.cycle(widths)

    def make(slot):
        bits = next(width)
        spec = OperatorSpec(
            kind="conv",
            in_channels=slot.in_channels,
            out_channels=slot.out_channels,
            groups=3 if slot.name == "body.0" else 1,
            bias=bias,
            activation="none" if slot.in_channels == 3 else "relu",
            weight_bits=bits,
            activation_bits=bits,
        )
        return build_operator(spec, layers)

    network = parse_wiring(wiring).build(make)
    calibrate(network, [torch.rand(1, 3, 12, 12)])
    return network


def _run(path: Path, x: Tensor) -> Tensor:
    return torch.from_numpy(open_session(path).run([OUTPUT_NAME], {INPUT_NAME: x.numpy()})[0])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(FLOAT_BITS,), (8,), (4, 8, FLOAT_BITS), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_file_computes_what_the_network_does_at_any_size(
    tmp_path: Path, wiring: str, widths: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    network = _network(WIRINGS[wiring], *widths, bias=bias)
    export_onnx(network, tmp_path / "network.onnx", torch.rand(1, 3, 9, 9), {})
    for height, width in ((9, 9), (7, 16)):
        x = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = network(x)
        # The mean, for a rounding that falls the other way moves single pixels; and as a share of what the network
        # makes of its own, beside the bicubic enlargement where it adds to that.
        own = expected - bicubic(x, WIRINGS[wiring]["scale"]) if WIRINGS[wiring].get("bicubic") else expected
        difference = (_run(tmp_path / "network.onnx", x) - expected).abs().mean()
        assert difference < min(1e-3, 0.02 * float(own.abs().mean()))
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]


def test_a_frozen_adadm_reduces_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _network({**QUANTNAS, "residual": "adadm"}, FLOAT_BITS)
    paths = [tmp_path / "per_image.onnx", tmp_path / "frozen.onnx"]
    export_onnx(network, paths[0], torch.rand(1, 3, 9, 9), {})
    freeze_normalisation(network)
    export_onnx(network, paths[1], torch.rand(1, 3, 9, 9), {})
    reductions = [sum(node.op_type.startswith("Reduce") for node in onnx.load(path).graph.node) for path in paths]
    assert reductions[0] > 0
    assert reductions[1] == 0


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _network(QUANTNAS, 4).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name in ("first.onnx", "second.onnx"):
        export_onnx(network, tmp_path / name, torch.rand(1, 3, 9, 9), {})
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_properties_are_stored(tmp_path: Path) -> None:
    metadata = {"scale": "2", "fingerprint": "0123456789ab"}
    export_onnx(_network(QUANTNAS, 8), tmp_path / "network.onnx", torch.rand(1, 3, 9, 9), metadata)
    assert open_session(tmp_path / "network.onnx").get_modelmeta().custom_metadata_map == metadata


@pytest.mark.parametrize("bits", [8, FLOAT_BITS])
def test_an_export_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str], bits: int) -> None:
    network = _network({**QUANTNAS, "residual": "adadm", "bicubic": True}, bits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(network, tmp_path / "network.onnx", torch.rand(1, 3, 9, 9), {})
    assert caught == []
    assert capfd.readouterr() == ("", "")


def test_a_network_that_has_seen_no_images_is_refused(tmp_path: Path) -> None:
    layers = BrevitasLayers()
    spec = OperatorSpec(kind="conv", in_channels=3, out_channels=3, weight_bits=8, activation_bits=8)
    with pytest.raises(HwnasError, match="train or calibrate"):
        export_onnx(build_operator(spec, layers), tmp_path / "network.onnx", torch.rand(1, 3, 9, 9), {})
    assert list(tmp_path.iterdir()) == []


def test_a_summary_counts_what_became_integers(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    # Eight layers: 4, 8 and 32 bits in turn.
    export_onnx(_network(QUANTNAS, 4, 8, FLOAT_BITS), path, torch.rand(1, 3, 9, 9), {})
    summary = summarise(path)
    assert summary.opset == 17
    assert summary.size_bytes == path.stat().st_size
    assert (summary.quantised_convolutions, summary.float_convolutions) == (6, 2)


def test_integer_weights_are_a_quarter_of_the_size(tmp_path: Path) -> None:
    wiring = {**QUANTNAS, "channels": 48}
    sizes = {}
    for bits in (8, FLOAT_BITS):
        export_onnx(_network(wiring, bits), tmp_path / f"{bits}.onnx", torch.rand(1, 3, 9, 9), {})
        sizes[bits] = summarise(tmp_path / f"{bits}.onnx").size_bytes
    assert sizes[8] < 0.4 * sizes[FLOAT_BITS]


def test_a_summary_of_something_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no onnx at all")
    with pytest.raises(HwnasError, match=r"other\.onnx is not an ONNX file"):
        summarise(tmp_path / "other.onnx")
    with pytest.raises(HwnasError, match="cannot read"):
        summarise(tmp_path / "none.onnx")


def test_eight_bit_products_do_not_saturate(tmp_path: Path) -> None:
    """On processors without VNNI the default arithmetic of ONNX Runtime does: see `open_session`."""
    layers = BrevitasLayers(collect_steps=1)
    spec = OperatorSpec(kind="conv", in_channels=3, out_channels=3, weight_bits=8, activation_bits=8)
    network = nn.Sequential(build_operator(spec, layers), build_operator(spec, layers))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.fill_(0.05)
    network(torch.ones(1, 3, 8, 8))
    for name, parameter in network.named_parameters():
        if "weight_quant" in name:
            parameter.data.fill_(0.05 / 127)
    export_onnx(network, tmp_path / "network.onnx", torch.ones(1, 3, 8, 8), {})
    with torch.no_grad():
        expected = network.eval()(torch.ones(1, 3, 8, 8))
    np.testing.assert_allclose(_run(tmp_path / "network.onnx", torch.ones(1, 3, 8, 8)), expected, rtol=1e-2)


def test_a_map_that_is_shut_is_exported(tmp_path: Path) -> None:
    """Of zeros only: any step would do, but the biases that are counted in it have to be integers."""
    torch.manual_seed(0)
    network = build_quantised(named_architecture("espcn", 2, 8, True), collect_steps=3)
    first, second = (
        module for module in network.modules() if isinstance(module, nn.Conv2d) and module.weight.shape[0] > 12
    )
    with torch.no_grad():
        first.bias.fill_(-9.0)
        second.bias.normal_()
        second.weight[:4] = 0
    image = torch.randint(0, 256, (1, 3, 12, 12)) / 255
    calibrate(network, [image])
    export_onnx(network, tmp_path / "n.onnx", image, {})
    assert check_parity(network, OnnxArtifact(tmp_path / "n.onnx"), [image], QUANTISED_TOLERANCE).passed
