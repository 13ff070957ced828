"""Hand-made networks against what their papers and torch's own layers say of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hwnas.architecture import Architecture
from hwnas.cost_models import cost_model
from hwnas.errors import UsageError
from hwnas.networks.bicubic import AddBicubic
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture
from hwnas.spaces.baselines import ecbsr, espcn, fsrcnn, rfdn, srresnet
from hwnas.weights import load_weights

NAMES = ("espcn", "fsrcnn", "ecbsr", "rfdn", "srresnet")


def parameters(architecture: Architecture) -> int:
    return int(cost_model("params").architecture_cost(architecture).value)


def by_layer(architecture: Architecture) -> dict[str, int]:
    """Weights and biases of each operator."""
    count = cost_model("params").operator_cost
    return {name: int(count(spec, (1, 1))) for name, spec in architecture.operators.items()}


def test_rfdn_is_that_of_the_challenge_without_its_attention() -> None:
    """433,448 parameters (0.433 M in the report of AIM 2020), of which four attentions of 12 channels have 26,600."""
    attention = (50 * 12 + 12) + (12 * 12 + 12) + 4 * (9 * 12 * 12 + 12) + (12 * 50 + 50)
    assert 4 * attention == 26_600
    assert parameters(named_architecture("rfdn")) == 433_448 - 26_600


def test_fsrcnn_has_the_published_weights_between_its_ends() -> None:
    """12,464 weights on luma: 56 kernels of 5x5 and 9x9 at the ends, which are ours of colours and of sub-pixels."""
    layers = by_layer(named_architecture("fsrcnn"))
    widths = [56, 12, 12, 12, 12, 12, 56, 48]
    inner = list(layers.values())[1:-1]
    assert sum(inner) - sum(widths[1:-1]) == 12_464 - 56 * (25 + 81)
    assert layers["conv.0"] == 25 * 3 * 56 + 56


def test_ecbsr_is_six_convolutions_of_sixteen_channels() -> None:
    convolutions = [(3, 16), *[(16, 16)] * 4, (16, 48)]
    assert list(by_layer(named_architecture("ecbsr")).values()) == [9 * i * o + o for i, o in convolutions]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_last_convolution_of_fsrcnn_can_be_its_deconvolution(scale: int) -> None:
    """Every deconvolution of 9x9 by the stride is one, with as much padding as keeps its centre."""
    torch.manual_seed(0)
    spec = named_architecture("fsrcnn", scale).operators["conv.7"]
    padding = {2: 4, 3: 3, 4: 4}[scale]
    deconvolution = nn.ConvTranspose2d(2, 3, 9, scale, padding, output_padding=scale - 9 + 2 * padding, bias=False)
    x = torch.rand(1, 2, 6, 7)
    reach = spec.kernel // 2
    kernel = torch.zeros(3 * scale**2, 2, spec.kernel, spec.kernel)
    for row in range(scale):
        for column in range(scale):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    # Pixel q + d meets output scale * q + r at tap r + padding - scale * d.
                    ky, kx = row + padding - scale * dy, column + padding - scale * dx
                    if 0 <= ky < 9 and 0 <= kx < 9:
                        taps = deconvolution.weight.detach()[:, :, ky, kx]
                        kernel[row * scale + column :: scale**2, :, dy + reach, dx + reach] = taps.T
    found = functional.pixel_shuffle(functional.conv2d(x, kernel, padding=reach), scale)
    expected = deconvolution(x)
    assert found.shape == expected.shape == (1, 3, 6 * scale, 7 * scale)
    assert torch.allclose(found, expected, atol=1e-5)


def test_rfdn_computes_what_its_paper_draws() -> None:
    torch.manual_seed(0)
    architecture, x = rfdn(2, False, 6), torch.rand(1, 3, 7, 8)
    network = architecture.build(FloatLayers())
    made: dict[str, nn.Conv2d] = dict(
        zip(architecture.operators, (m for m in network.modules() if isinstance(m, nn.Conv2d)), strict=True)
    )
    # In the order of modules: the three that keep, the three that refine, the last, and what fuses them.
    order = ["head"]
    for i in range(4):
        order += [f"block.{i}.{part}" for part in ("keep.0", "keep.1", "keep.2", "refine.0", "refine.1", "refine.2")]
        order += [f"block.{i}.last", f"block.{i}.fuse"]
    layers = dict(zip([*order, "fuse", "trunk", "pixels"], made.values(), strict=True))

    def layer(name: str, x: Tensor) -> Tensor:
        out: Tensor = layers[name](x)
        return out

    head = z = layer("head", x)
    outputs = []
    for i in range(4):
        kept = []
        for j in range(3):
            kept.append(layer(f"block.{i}.keep.{j}", z).relu())
            z = (layer(f"block.{i}.refine.{j}", z) + z).relu()
        z = layer(f"block.{i}.fuse", torch.cat([*kept, layer(f"block.{i}.last", z).relu()], 1))
        outputs.append(z)
    trunk = layer("trunk", layer("fuse", torch.cat(outputs, 1)).relu()) + head
    expected = functional.pixel_shuffle(layer("pixels", trunk), 2)
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_srresnet_computes_what_is_quoted_of_it() -> None:
    """A ReLU after the head and within blocks, none along the trunk and after it; two shuffles, each before a ReLU."""
    torch.manual_seed(0)
    architecture, x = srresnet(4, False, 4), torch.rand(1, 3, 6, 5)
    network = architecture.build(FloatLayers())
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    head, *blocks = convolutions[:33]
    first, second, hr, tail = convolutions[33:]
    with torch.no_grad():
        for convolution in convolutions:
            convolution.weight.mul_(2)
        z = head(x).relu()
        for one, two in zip(blocks[::2], blocks[1::2], strict=True):
            z = z + two(one(z).relu())
        assert z.min() < 0, "so that a ReLU too many would show"
        z = functional.pixel_shuffle(first(z), 2).relu()
        z = functional.pixel_shuffle(second(z), 2).relu()
        assert torch.allclose(network(x), tail(hr(z).relu()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "kernel"), [(2, 5), (3, 3), (4, 3)])
def test_the_last_convolution_of_fsrcnn_is_as_large_as_it_must_be(scale: int, kernel: int) -> None:
    assert named_architecture("fsrcnn", scale).operators["conv.7"].kernel == kernel


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_enlarges_by_the_scale(name: str, scale: int) -> None:
    network = named_architecture(name, scale, bicubic=True).build(FloatLayers())
    assert isinstance(network, AddBicubic)
    assert network(torch.rand(1, 3, 9, 7)).shape == (1, 3, 9 * scale, 7 * scale)


@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("name", ["espcn", "ecbsr"])
def test_weights_from_elsewhere_are_known_by_the_places_of_their_layers(
    tmp_path: Path, name: str, bicubic: bool
) -> None:
    """``0.weight``, ``1.weight`` and so on, whether or not the bicubic enlargement is added."""
    torch.manual_seed(0)
    architecture = named_architecture(name, 2, bicubic=bicubic)
    file = {
        f"{i}.{kind}": torch.randn_like(getattr(layer, kind))
        for i, layer in enumerate(m for m in architecture.build(FloatLayers()).modules() if isinstance(m, nn.Conv2d))
        for kind in ("weight", "bias")
    }
    save_file(file, tmp_path / "w.safetensors")
    loaded = load_weights(architecture, tmp_path / "w.safetensors")
    for i, layer in enumerate(m for m in loaded.modules() if isinstance(m, nn.Conv2d)):
        assert torch.equal(layer.weight, file[f"{i}.weight"])
        assert layer.bias is not None and torch.equal(layer.bias, file[f"{i}.bias"])


@pytest.mark.parametrize("slimmed", [espcn, fsrcnn, ecbsr, rfdn, srresnet])
def test_a_narrower_one_costs_less(slimmed) -> None:  # type: ignore[no-untyped-def]
    costs = [cost_model("flops").architecture_cost(slimmed(4, True, width)).value for width in (8, 10, 12)]
    assert costs == sorted(set(costs))
    assert all(math.isfinite(cost) for cost in costs)


def test_rfdn_of_an_odd_width_says_what_to_take() -> None:
    with pytest.raises(ValidationError, match="take an even number"):
        rfdn(4, True, 7)


def test_a_scale_that_none_has_is_refused() -> None:
    with pytest.raises(UsageError, match="fsrcnn"):
        named_architecture("fsrcnn", 5)
