"""The graphs of the runtimes: the same numbers in each, and each in the form that its runtime wants."""

import collections
import random
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from brevitas.nn import QuantIdentity
from onnx import numpy_helper
from torch import Tensor, nn

from hwnas.architecture import Architecture
from hwnas.errors import HwnasError
from hwnas.exporters.base import ExportOptions
from hwnas.exporters.onnx import export_onnx
from hwnas.exporters.profiles import PROFILES, Profile
from hwnas.networks import parse_wiring
from hwnas.networks.adadm import freeze_normalisation
from hwnas.networks.bicubic import AddBicubic, bicubic
from hwnas.operators import OperatorSpec
from hwnas.quantization.brevitas_layers import BrevitasLayers, build_quantised, calibrate
from hwnas.quantization.placement import Placement
from hwnas.spaces import SPACES, SpaceOptions, named_architecture
from hwnas.spaces.baselines import fsrcnn, rfdn

PROFILE_NAMES = ["onnxruntime-cpu", "openvino", "tensorrt", "qnn"]
FOR_ALL = Placement(weight_bits=7, rectified_bits=7)
"""Ranges that every runtime has."""


def _image(height: int, width: int) -> Tensor:
    """A picture of bytes, with edges and slopes."""
    y, x = torch.meshgrid(torch.arange(height) / 8, torch.arange(width) / 8, indexing="ij")
    waves = torch.stack([torch.sin(3 * x + y), torch.cos(x - 2 * y), torch.sin(x * y)]) / 4 + 0.5
    return ((waves + 0.2 * (x > y)).clamp(0, 1) * 255).round()[None] / 255


SLIMMED = {"fsrcnn": fsrcnn, "rfdn": partial(rfdn, blocks=1)}

KINDS = ["quantnas", "adadm", "original-adadm", "srresnet", "espcn", *SLIMMED]
FEW = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("original-adadm", "fsrcnn", "rfdn") else kind
    for kind in KINDS
]
"""With those left to the slow tests that differ little from another."""

RESIDUALS = {"quantnas": "add"}
"""What the kinds are called whose name is not that of their residual."""


def _architecture(kind: str, bits: tuple[int, ...] = (4, 8)) -> Architecture:
    if kind == "espcn":
        return named_architecture("espcn", 3, bits[0], True)
    if kind in SLIMMED:
        return SLIMMED[kind](4, True, 8).with_bits(bits[0])
    if kind == "srresnet":
        wiring = parse_wiring({"kind": "srresnet", "channels": 8, "blocks": 2, "scale": 4, "bicubic": True})
        operators = {
            slot.name: OperatorSpec(
                kind="conv",
                in_channels=slot.in_channels,
                out_channels=slot.out_channels,
                bias=True,
                weight_bits=bits[0],
                activation_bits=bits[0],
            )
            for slot in wiring.slots
        }
        return Architecture(wiring=wiring, operators=operators)
    options = SpaceOptions(channels=12, cells=2, scale=4, bicubic=True, residual=RESIDUALS.get(kind, kind), bits=bits)
    return SPACES["quantnas"](options).sample(random.Random(0))


def _network(architecture: Architecture, placement: Placement, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_quantised(architecture, collect_steps=3, placement=placement).train()
    for size in (16, 20, 24):
        network(_image(size, 24) * torch.rand(4, 3, 1, 1))
    freeze_normalisation(network)
    calibrate(network, [_image(24, 24)])
    return network


def _export(network: nn.Module, path: Path, profile: str | Profile, size: tuple[int, int] = (12, 12)) -> Path:
    """Write the network for images of any size, or of ``size`` for a runtime that takes one only."""
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    options = ExportOptions(size=size if chosen.rules == "qnn" else None)
    with torch.no_grad():
        scale = network(_image(12, 12)).shape[2] // 12
    export_onnx(network, path, _image(12, 12), {"scale": str(scale)}, chosen, options)
    return path


def _run(path: Path, x: Tensor, optimised: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": x.numpy()})[0]


def _optimised(path: Path, tmp_path: Path) -> collections.Counter[str]:
    """How often ONNX Runtime computes each operation, after its own rewriting."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return collections.Counter(node.op_type for node in onnx.load(tmp_path / "optimised").graph.node)


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("kind", FEW)
def test_every_graph_computes_what_the_network_does(tmp_path: Path, kind: str, profile: str) -> None:
    """In float arithmetic, where only sums in another order differ; in the mean, since one may round the other way."""
    network = _network(_architecture(kind), FOR_ALL)
    for x in (_image(12, 12), _image(15, 26)):
        path = _export(network, tmp_path / "network.onnx", profile, (x.shape[2], x.shape[3]))
        with torch.no_grad():
            expected = network(x).numpy()
        assert np.abs(_run(path, x, optimised=False) - expected).mean() * 255 < 0.02
        assert np.abs(_run(path, x) - expected).mean() * 255 < 0.05


@pytest.mark.parametrize("bits", [2, 4, 8, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (3, 5, 6, 7))])
@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_every_width_makes_the_round_trip(tmp_path: Path, bits: int, profile: str) -> None:
    network = _network(_architecture("quantnas", (bits,)), PROFILES[profile].placement)
    path = _export(network, tmp_path / "network.onnx", profile, (20, 20))
    x = _image(20, 20)
    with torch.no_grad():
        difference = np.abs(_run(path, x) - network(x).numpy()) * 255
    assert difference.mean() <= 0.05
    assert difference.max() <= 2


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_the_enlargement_is_torchs_to_the_border(tmp_path: Path, profile: str, scale: int) -> None:
    x = _image(9, 14)
    network = AddBicubic(nn.Sequential(nn.Conv2d(3, 3 * scale**2, 1), nn.PixelShuffle(scale)), scale)
    nn.init.zeros_(network.network[0].weight)
    nn.init.zeros_(network.network[0].bias)
    path = _export(network, tmp_path / "network.onnx", profile, (9, 14))
    assert np.abs(_run(path, x) - bicubic(x, scale).numpy()).max() < 2e-6
    resizes = [node for node in onnx.load(path).graph.node if node.op_type == "Resize"]
    assert len(resizes) == (PROFILES[profile].enlarge == "resize")


class _Enlarges(nn.Module):
    """In other ways than a network that adds to bicubic enlargement."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.convolution = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "maps":
            made = nn.functional.interpolate(self.convolution(x), scale_factor=2.0, mode="bicubic")
            return made[:, :3] + made[:, 3:]
        if self.way == "twice":
            return bicubic(x, 2) + 0.5 * bicubic(x, 2)
        if self.way == "half as large again":
            return nn.functional.interpolate(x, scale_factor=1.5, mode="bicubic")
        return nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic", align_corners=True)


@pytest.mark.parametrize("way", ["maps", "twice", "half as large again", "from corner to corner"])
def test_what_is_enlarged_otherwise_is_computed_all_the_same(tmp_path: Path, way: str) -> None:
    torch.manual_seed(0)
    network, x = _Enlarges(way).eval(), _image(8, 8)
    export_onnx(network, tmp_path / "n.onnx", x, {}, PROFILES["onnxruntime-cpu"])
    with torch.no_grad():
        np.testing.assert_allclose(_run(tmp_path / "n.onnx", x), network(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("factor", [-2.0, 0.0, 2.0])
def test_only_positive_factors_go_into_a_step(tmp_path: Path, factor: float) -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spec = OperatorSpec(kind="conv", in_channels=3, out_channels=3, activation="none").with_bits(8)
            self.quantise = BrevitasLayers().activation(spec)

        def forward(self, x: Tensor) -> Tensor:
            return self.quantise(x) * torch.tensor(factor)

    network, x = Scales(), _image(8, 8) - 0.5
    calibrate(network, [x])
    export_onnx(network, tmp_path / "n.onnx", x, {}, PROFILES["onnxruntime-cpu"])
    with torch.no_grad():
        np.testing.assert_allclose(_run(tmp_path / "n.onnx", x), network(x).numpy(), atol=1e-6)
    multiplies = [node for node in onnx.load(tmp_path / "n.onnx").graph.node if node.op_type == "Mul"]
    assert len(multiplies) == (factor <= 0)


def test_the_smaller_of_two_maps_is_no_bound(tmp_path: Path) -> None:
    """For QNN a bound is a Min, which a shuffle of pixels is moved past; both maps would have to be."""

    class SmallerOfTwo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(nn.Conv2d(3, 12, 3, padding=1) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            first, second = (convolution(x) for convolution in self.convolutions)
            return torch.minimum(nn.functional.pixel_shuffle(first, 2), nn.functional.pixel_shuffle(second, 2))

    torch.manual_seed(0)
    network, x = SmallerOfTwo().eval(), _image(8, 8)
    options = ExportOptions(size=(8, 8))
    export_onnx(network, tmp_path / "n.onnx", x, {"scale": "2"}, PROFILES["qnn"], options)
    with torch.no_grad():
        np.testing.assert_allclose(_run(tmp_path / "n.onnx", x), network(x).numpy(), atol=1e-5)


def test_an_image_of_integers_that_no_convolution_reads_is_named(tmp_path: Path) -> None:
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spec = OperatorSpec(kind="conv", in_channels=3, out_channels=3, activation="none").with_bits(8)
            wiring = parse_wiring({"kind": "chain", "scale": 2, "channels": (3, 3)})
            operators = {
                slot.name: spec.model_copy(update={"out_channels": slot.out_channels}) for slot in wiring.slots
            }
            architecture = Architecture(wiring=wiring, operators=operators)
            network = build_quantised(architecture, placement=PROFILES["tensorrt"].placement)
            self.image = next(module for module in network.modules() if isinstance(module, QuantIdentity))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pixel_shuffle(self.image(x).repeat(1, 4, 1, 1), 2)

    network = Repeats().eval()
    with pytest.raises(HwnasError, match="reads the image as integers; for TensorRT on NVIDIA's GPUs convolutions"):
        export_onnx(network, tmp_path / "n.onnx", _image(12, 12), {}, PROFILES["tensorrt"])


@pytest.mark.parametrize("kind", ["conv", "separable_conv", "growth", "decenc"])
@pytest.mark.parametrize("bias", [True, False])
def test_tensorrt_reads_images_by_any_operator(tmp_path: Path, kind: str, bias: bool) -> None:
    wiring = parse_wiring({"kind": "chain", "scale": 2, "channels": (12, 8), "bicubic": True})
    first, *others = (
        OperatorSpec(kind="conv", in_channels=slot.in_channels, out_channels=slot.out_channels, bias=True).with_bits(8)
        for slot in wiring.slots
    )
    own: dict = {"groups": 3} if kind == "conv" else {"hidden": 6}
    special = {"kind": kind, **own, "activation": "none", "bias": bias}
    specs = [OperatorSpec(**{**dict(first), **special}), *others]
    architecture = Architecture(
        wiring=wiring, operators={slot.name: spec for slot, spec in zip(wiring.slots, specs, strict=True)}
    )
    network, x = _network(architecture, PROFILES["tensorrt"].placement), _image(9, 14)
    path = _export(network, tmp_path / "network.onnx", "tensorrt")
    with torch.no_grad():
        assert np.abs(_run(path, x, optimised=False) - network(x).numpy()).mean() * 255 < 1e-2


@pytest.mark.parametrize("kind", ["quantnas", "espcn"])
def test_tensorrt_reads_all_levels_of_an_image_to_its_border(tmp_path: Path, kind: str) -> None:
    """Without a zero point there are 128 levels above zero, of the 256 that an image has."""
    network = _network(_architecture(kind), PROFILES["tensorrt"].placement)
    x = torch.cat([torch.arange(256.0), torch.arange(255.0, -1, -1).repeat(2)]).reshape(1, 3, 16, 16) / 255
    path = _export(network, tmp_path / "network.onnx", "tensorrt", (16, 16))
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.abs(_run(path, x, optimised=False) - expected).mean() * 255 < 1e-3
    graph = onnx.load(path).graph
    zeros = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    assert all(zeros[n.input[2]].dtype == np.int8 for n in graph.node if n.op_type == "QuantizeLinear")


@pytest.mark.parametrize("kind", [*KINDS, "batch-norm"])
def test_on_a_cpu_all_but_the_last_sum_is_in_integers(tmp_path: Path, kind: str) -> None:
    network = _network(_architecture(kind), Placement())
    path = _export(network, tmp_path / "network.onnx", "onnxruntime-cpu")
    found = _optimised(path, tmp_path)
    written = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    # Of the bicubic enlargement, which is of floats.
    named = [node for node in onnx.load(path).graph.node if node.name.startswith("/bicubic/")]
    assert sum(node.op_type == "Conv" for node in named) == 1
    assert found["QLinearConv"] == written["Conv"] - 1 > 0
    assert found["Conv"] == 1
    assert not found.keys() & {"FusedConv", "BatchNormalization", "Relu", "LeakyRelu"}
    # The image comes in, the output goes out, and with a residual at high resolution there are two terms of it.
    tail = kind not in ("srresnet", "espcn", *SLIMMED)
    assert (found["QuantizeLinear"], found["DequantizeLinear"], found["Add"]) == (1, 1 + tail, 1 + tail)
    assert found["QLinearAdd"] == written["Add"] - found["Add"]


def test_openvino_leaves_out_the_rounding_of_a_convolution_that_it_adds_to(tmp_path: Path) -> None:
    """Why it is allowed more than ONNX Runtime: without these roundings the two are equal."""
    openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    network = _network(_architecture("srresnet", (8,)), Placement())
    path = _export(network, tmp_path / "network.onnx", "openvino")
    x = _image(20, 20)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    (found,) = openvino.Core().compile_model(path, "CPU", settings)(x.numpy()).values()
    rounded = _run(path, x, optimised=False)
    model = onnx.load(path)
    producers = {output: node for node in model.graph.node for output in node.output}
    left_out = 0
    for node in model.graph.node:
        if node.op_type == "Add" and (real := producers[node.input[1]]).op_type == "DequantizeLinear":
            convolution = producers[producers[real.input[0]].input[0]]
            if convolution.op_type == "Conv":
                node.input[1] = convolution.output[0]
                left_out += 1
    assert left_out == 2
    onnx.save(model, tmp_path / "unrounded.onnx")
    unrounded = _run(tmp_path / "unrounded.onnx", x, optimised=False)
    assert np.abs(found - unrounded).mean() < np.abs(found - rounded).mean() / 20


def test_a_processor_without_wide_sums_computes_the_same(tmp_path: Path) -> None:
    """Seven bits of weight leave no pair of products that overflows 16 bits, so no option of ONNX Runtime matters."""
    network = _network(_architecture("quantnas", (8,)), Placement())
    path = _export(network, tmp_path / "network.onnx", "onnxruntime-cpu")
    weights = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) == 4]
    integers = [w for w in weights if w.dtype == np.int8]
    assert len(integers) == len(weights) - 1, "the bicubic enlargement is of floats"
    assert all(w.min() >= -64 and w.max() <= 63 for w in integers)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    x = _image(30, 30)
    precise = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(_run(path, x), precise.run(None, {"lr": x.numpy()})[0])


@pytest.mark.parametrize("kind", ["quantnas", "adadm", "srresnet", "espcn"])
def test_tensorrt_gets_signed_integers_without_zero_points_and_float_biases(tmp_path: Path, kind: str) -> None:
    network = _network(_architecture(kind, (4,)), PROFILES["tensorrt"].placement)
    graph = onnx.load(_export(network, tmp_path / "network.onnx", "tensorrt")).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    quantisers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantisers
    for node in quantisers:
        assert constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any()
        assert {reader.op_type for reader in readers[node.output[0]]} == {"DequantizeLinear"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8 and len(constants[node.input[0]].shape) == 4


def test_a_network_of_all_eight_bits_is_refused_where_integers_are_signed(tmp_path: Path) -> None:
    network = _network(_architecture("quantnas", (8,)), Placement())
    with pytest.raises(HwnasError, match=r"the map .* has integers from 0 to 255, which TensorRT .* train the network"):
        _export(network, tmp_path / "network.onnx", "tensorrt")
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_bytes_loses_nothing(tmp_path: Path) -> None:
    network = _network(_architecture("espcn", (8,)), Placement())
    x = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    first = next(module for module in network.modules() if hasattr(module, "act_quant"))
    np.testing.assert_array_equal(np.asarray(first(x).detach() * 255).round(), x.numpy() * 255)
    graph = onnx.load(_export(network, tmp_path / "network.onnx", "onnxruntime-cpu")).graph
    steps = {tensor.name: tensor for tensor in graph.initializer}
    node = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    assert node.input[0] == "lr"
    assert numpy_helper.to_array(steps[node.input[1]]) == np.float32(1 / 255)


def test_a_channel_that_batch_norm_shuts_makes_its_bias(tmp_path: Path) -> None:
    network = _network(_architecture("adadm"), Placement())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight[0], norm.bias[0] = 0.0, 0.7
            norm.weight[1], norm.bias[1] = -0.8, -0.3
    calibrate(network, [_image(24, 24)])
    path = _export(network, tmp_path / "network.onnx", "onnxruntime-cpu")
    x = _image(18, 18)
    with torch.no_grad():
        assert np.abs(_run(path, x) - network(x).numpy()).mean() * 255 < 0.02


def test_a_layer_in_float_leaves_the_maps_that_are_added_in_float(tmp_path: Path) -> None:
    architecture = _architecture("quantnas", (8, 32))
    assert architecture.is_quantised and not architecture.is_fully_quantised
    network = _network(architecture, Placement())
    found = _optimised(_export(network, tmp_path / "network.onnx", "onnxruntime-cpu"), tmp_path)
    assert found["QLinearAdd"] == 0 and found["Add"] > 2
