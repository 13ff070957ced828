"""The networks of TrilevelNAS, AGD and ESRGAN against published sizes, and an independent reading of the papers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hwnas.architecture import Architecture, parse_architecture
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError, UsageError
from hwnas.networks.trilevel import TrilevelWiring
from hwnas.operators import OperatorSpec, build_operator
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import build_quantised
from hwnas.spaces import named_architecture
from hwnas.weights import load_weights


def parameters(architecture: Architecture) -> float:
    return cost_model("params").architecture_cost(architecture).value


def gmacs(architecture: Architecture) -> float:
    return cost_model("flops").architecture_cost(architecture, (256, 256)).value / 1e9


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_the_networks_have_the_published_parameters() -> None:
    esrgan, srresnet, b, a, agd = map(named_architecture, ("esrgan", "srresnet", "trilevel-b", "trilevel-a", "agd"))
    assert round(parameters(esrgan) / 1e6, 3) == 16.698
    assert round(parameters(srresnet) / 1e6, 4) == 1.5176
    assert round(parameters(b) / 1e6, 4) == 0.2342
    assert round(parameters(agd) / 1e6, 4) == 0.4103
    # That of A is stated with batch norms that are not used: two numbers a channel of each convolution in its cells.
    inside = [conv for conv in convolutions(a.build(FloatLayers())) if conv.bias is None]
    assert round((parameters(a) + sum(2 * conv.out_channels for conv in inside)) / 1e6, 4) == 0.3773


def test_the_networks_have_the_published_multiply_accumulates() -> None:
    assert round(gmacs(named_architecture("esrgan")), 2) == 1174.85
    assert round(gmacs(named_architecture("srresnet")), 2) == 166.21
    # Of the others, additions of biases and leaky ReLUs are counted as well.
    assert round(gmacs(named_architecture("trilevel-b")) + with_additions("trilevel-b"), 2) == 15.35
    assert round(gmacs(named_architecture("trilevel-a")) + with_additions("trilevel-a"), 2) == 117.39
    assert round(gmacs(named_architecture("agd")) + with_additions("agd"), 1) == 108.6


def with_additions(name: str) -> float:
    architecture, total = named_architecture(name), 0
    for slot in architecture.wiring.slots:
        if architecture.operators[slot.name].bias:
            leaky = slot.name == "hr" or slot.name.startswith("up.")
            total += (1 + leaky) * slot.out_channels * slot.resolution**2 * 256**2
    return total / 1e9


# Written anew from the description of the network, on a plain list of weights in the order of computation.


class Weights:
    def __init__(self, network: nn.Module) -> None:
        self.left = [(c.weight, c.bias, c.groups) for c in convolutions(network)]

    def conv(self, x: Tensor) -> Tensor:
        weight, bias, groups = self.left.pop(0)
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)


def layer(w: Weights, operator: int, x: Tensor, written: int) -> Tensor:
    if operator in (0, 1):
        return w.conv(x).relu()
    shortcut = x if x.shape[1] == written else w.conv(x)
    y = w.conv(x).relu()
    if operator == 3:
        y = w.conv(y).relu()
    return (w.conv(y) + shortcut).relu()


def reference(w: Weights, backbone: str, path: str, operators: str, widths: list[list[int]], x: Tensor) -> Tensor:
    x = w.conv(x)
    cells = zip(operators.split(), widths, strict=True)
    for step in path:
        if step == "0":
            y = x
            kinds, channels = next(cells)
            for kind, written in zip(kinds, (*channels, x.shape[1]), strict=True):
                y = layer(w, int(kind), y, written)
            x = 0.2 * y + x
        elif backbone == "a":
            x = functional.leaky_relu(w.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest")), 0.2)
        else:
            x = w.conv(x)
    if backbone == "a":
        return w.conv(functional.leaky_relu(w.conv(x), 0.2))
    return functional.pixel_shuffle(w.conv(x), 4)


@pytest.mark.parametrize(
    ("name", "backbone", "path", "operators", "widths"),
    [
        ("trilevel-a", "a", "000101", "01001 33312 00103 11011", "4000 1140 4421 0411"),
        ("trilevel-b", "b", "000", "30333 30131 20000", "1102 0300 4000"),
    ],
)
def test_a_network_computes_what_the_paper_says(
    name: str, backbone: str, path: str, operators: str, widths: str
) -> None:
    torch.manual_seed(0)
    network = named_architecture(name).build(FloatLayers()).eval()
    x = torch.rand(2, 3, 9, 8)
    channels = [[(24, 32, 40, 56, 64)[int(i)] for i in cell] for cell in widths.split()]
    weights = Weights(network)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(weights, backbone, path, operators, channels, x))
    assert not weights.left


def test_the_skip_of_agd_is_around_all_its_cells() -> None:
    torch.manual_seed(0)
    network = named_architecture("agd").build(FloatLayers()).eval()
    x, w = torch.rand(1, 3, 8, 8), Weights(network)
    widths = [[24] * 4, [24, 24, 64, 24], [24] * 4, [32, 32, 24, 24], [24] * 4]
    with torch.no_grad():
        y = stem = w.conv(x)
        for kinds, channels in zip(("00000", "33212", "00000", "13332", "00000"), widths, strict=True):
            z = y
            for kind, written in zip(kinds, (*channels, 64), strict=True):
                z = layer(w, int(kind), z, written)
            y = 0.2 * z + y
        y = w.conv(y) + stem
        for _ in range(2):
            y = functional.leaky_relu(w.conv(functional.interpolate(y, scale_factor=2.0)), 0.2)
        expected = w.conv(functional.leaky_relu(w.conv(y), 0.2))
        torch.testing.assert_close(network(x), expected)


# ESRGAN under its published names


def released(old: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released generator of two blocks, 8 channels, growth 4."""
    names = {"conv_first": (8, 3), "HRconv" if old else "conv_hr": (8, 8), "conv_last": (3, 8)}
    names |= {"trunk_conv" if old else "conv_body": (8, 8)}
    names |= {f"{'upconv' if old else 'conv_up'}{i}": (8, 8) for i in (1, 2)}
    for i in range(2):
        for j in range(1, 4):
            for k in range(1, 6):
                block = f"RRDB_trunk.{i}.RDB{j}" if old else f"body.{i}.rdb{j}"
                names[f"{block}.conv{k}"] = (8 if k == 5 else 4, 8 + 4 * (k - 1))
    shapes = {f"{name}.weight": (*shape, 3, 3) for name, shape in names.items()}
    return shapes | {f"{name}.bias": shape[:1] for name, shape in names.items()}


def small_esrgan() -> Architecture:
    full = named_architecture("esrgan")
    wiring = full.wiring.model_copy(update={"channels": 8, "blocks": 2, "growth": 4})
    operators = {
        slot.name: full.operators[slot.name].model_copy(
            update={"in_channels": slot.in_channels, "out_channels": slot.out_channels}
        )
        for slot in wiring.slots
    }
    return Architecture(name="esrgan", wiring=wiring, operators=operators)


def esrgan_reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
    def conv(name: str, x: Tensor) -> Tensor:
        return functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def lrelu(x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2)

    def dense(name: str, x: Tensor) -> Tensor:
        maps = [x]
        for k in range(1, 5):
            maps.append(lrelu(conv(f"{name}.conv{k}", torch.cat(maps, 1))))
        return conv(f"{name}.conv5", torch.cat(maps, 1)) * 0.2 + x

    first = y = conv("conv_first", x)
    for i in range(2):
        z = y
        for j in range(1, 4):
            z = dense(f"RRDB_trunk.{i}.RDB{j}", z)
        y = z * 0.2 + y
    y = first + conv("trunk_conv", y)
    for i in (1, 2):
        y = lrelu(conv(f"upconv{i}", functional.interpolate(y, scale_factor=2.0, mode="nearest")))
    return conv("conv_last", lrelu(conv("HRconv", y)))


@pytest.mark.parametrize("how", ["safetensors", "pth", "params_ema", "module"])
def test_released_weights_compute_what_the_release_computes(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    shapes = released(old=True)
    weights = {name: torch.randn(shape) / 8 for name, shape in shapes.items()}
    path = tmp_path / ("w.safetensors" if how == "safetensors" else "w.pth")
    if how == "safetensors":
        save_file(weights, path)
    elif how == "params_ema":
        theirs = list(released(old=False))
        torch.save({"params_ema": dict(zip(theirs, weights.values(), strict=True)), "params": {}}, path)
    else:
        torch.save({f"module.{n}": t for n, t in weights.items()} if how == "module" else weights, path)
    network = load_weights(small_esrgan(), path)
    x = torch.rand(1, 3, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(x), esrgan_reference(weights, x))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    torch.save({"conv_first.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(HwnasError, match=r"cannot read .*w\.pth: damaged, or not tensors alone; expected tensors"):
        load_weights(small_esrgan(), tmp_path / "w.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"params": {"a": "b"}}, {"a": torch.eye(3).to_sparse()}])
def test_a_file_of_something_else_than_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(HwnasError, match="holds something else than tensors by name"):
        load_weights(small_esrgan(), tmp_path / "w.pth")


def test_weights_of_another_width_name_the_first_tensor(tmp_path: Path) -> None:
    weights = {name: torch.zeros(shape) for name, shape in released(old=True).items()}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(HwnasError, match=r"conv_first\.weight is \[8, 3, 3, 3\] there, and \[64, 3, 3, 3\]"):
        load_weights(named_architecture("esrgan"), tmp_path / "w.safetensors")
    del weights["RRDB_trunk.1.RDB2.conv3.bias"]
    save_file(weights, tmp_path / "w.safetensors")
    expected = r"has no tensor RRDB_trunk\.1\.RDB2\.conv3\.bias or body\.1\.rdb2\.conv3\.bias"
    with pytest.raises(HwnasError, match=expected):
        load_weights(small_esrgan(), tmp_path / "w.safetensors")


# Built in other ways


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["trilevel-b", "agd"])
def test_other_scales_build_and_learn(name: str, scale: int) -> None:
    network = named_architecture(name, scale, bicubic=True).build(FloatLayers())
    made = network(torch.rand(1, 3, 8, 6))
    assert made.shape == (1, 3, 8 * scale, 6 * scale)
    made.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_path_that_upsamples_in_between_has_one_scale() -> None:
    with pytest.raises(UsageError, match="trilevel-a upsamples between its cells, twice by 2: it is of --scale 4"):
        named_architecture("trilevel-a", 2)


@pytest.mark.parametrize("name", ["trilevel-a", "trilevel-b", "agd", "esrgan"])
def test_in_eight_bits_all_quantisers_are_reached(name: str) -> None:
    architecture = small_esrgan() if name == "esrgan" else named_architecture(name)
    network = build_quantised(architecture.with_bits(8), collect_steps=1)
    network.train()
    with torch.no_grad():
        network(torch.rand(1, 3, 8, 8))
    from hwnas.quantization.brevitas_layers import uncalibrated

    assert not uncalibrated(network)


def test_an_architecture_survives_its_file() -> None:
    for name in ("trilevel-a", "agd", "esrgan"):
        architecture = named_architecture(name)
        assert parse_architecture(architecture.model_dump_json(), "a file") == architecture


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"path": (1, 0, 1)}, "begins with a cell"),
        ({"path": (0, 0)}, r"path \[0, 0\] has 0 upsamplings, and x4 on backbone a takes 2"),
        ({"path": (0, 1, 1, 1)}, "has 3 upsamplings"),
        ({"path": (0, 1)}, "has 1 upsampling, and"),
        ({"path": (0, 2)}, "path"),
        ({"path": ()}, "path"),
        ({"widths": ((8,),)}, "widths are of 1 cells, and path has 2"),
        ({"widths": ((8,), (8, 8))}, r"cells of \[2, 3\] layers"),
        ({"widths": ((0,), (8,))}, "widths"),
        ({"backbone": "b", "trunk": True}, "trunk is of backbone a"),
        ({"backbone": "c"}, "backbone"),
    ],
)
def test_a_wrong_wiring_is_refused_by_its_field(changes: dict[str, Any], named: str) -> None:
    right = {"path": (0, 1, 0, 1), "widths": ((8,), (8,)), "channels": 8}
    TrilevelWiring.model_validate(right)
    with pytest.raises(ValidationError, match=named):
        TrilevelWiring.model_validate(right | changes)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "residual_block", "hidden": 8}, "has neither 'hidden' channels nor 'groups'"),
        ({"kind": "residual_block", "groups": 2}, "has neither"),
        ({"kind": "residual_block", "repeats": 2}, "is no cell"),
        ({"kind": "depthwise_block"}, "needs 'hidden'"),
        ({"kind": "depthwise_block", "hidden": 8, "groups": 2}, "has no groups"),
    ],
)
def test_a_block_that_cannot_be_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_operator(OperatorSpec(in_channels=4, out_channels=4, **fields), FloatLayers())
