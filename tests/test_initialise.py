"""How networks start, against the distributions that the initialisation names."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn import functional

from hwnas.operators import LayerFactory, OperatorSpec, build_operator
from hwnas.operators.initialise import Start, initialise
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import BrevitasLayers
from hwnas.quantization.lsq import lsq_initial_step
from hwnas.searches.quantnas.search_layers import SharedConvolution
from hwnas.searches.quantnas.supernet import Supernet
from hwnas.spaces import SPACES, SpaceOptions, named_architecture

# The module that makes the pixels.
PIXELS = {"quantnas-body3": "network.upsample.", "espcn": "network.2.", "srresnet": "network.tail."}
each_network = pytest.mark.parametrize("name", PIXELS)
each_factory = pytest.mark.parametrize("quantised", [False, True], ids=["float", "quantised"])


def layers(quantised: bool) -> LayerFactory:
    return BrevitasLayers() if quantised else FloatLayers()


def convolutions(name: str, bicubic: bool, quantised: bool = False) -> dict[str, nn.Conv2d]:
    """Convolutions of a published network by module name, in the order of computation."""
    torch.manual_seed(0)
    network = named_architecture(name, 2, 4 if quantised else 32, bicubic).build(layers(quantised))
    return {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def like_kaiming(weights: list[Tensor]) -> Tensor:
    """Standard normal if each weight is Kaiming's for ReLUs, of variance 2 / fan-in."""
    return torch.cat([(w.detach() * math.sqrt(fan_in(w) / 2)).flatten() for w in weights])


def is_standard_normal(values: Tensor) -> bool:
    return bool(kstest(values.double().numpy(), "norm").pvalue > 1e-4)


@each_network
@each_factory
def test_a_network_that_adds_to_bicubic_begins_blind_to_brightness(name: str, quantised: bool) -> None:
    first, *_ = convolutions(name, True, quantised).values()
    weight = first.weight.detach()
    assert torch.allclose(weight.mean((1, 2, 3)), torch.zeros(len(weight)), atol=1e-5)
    dark, bright = (
        functional.conv2d(torch.full((1, 3, 9, 9), v), weight, None, groups=first.groups) for v in (0.1, 1.0)
    )
    assert torch.allclose(dark, bright, atol=1e-4)
    # Four times Kaiming's, less the one in fan-in degrees of freedom that the mean was.
    scaled = like_kaiming([weight]) / math.sqrt(1 - 1 / fan_in(weight))
    assert float(scaled.std()) == pytest.approx(4, rel=5 / math.sqrt(2 * len(scaled)))


@each_network
@each_factory
def test_what_makes_its_pixels_starts_at_a_hundredth(name: str, quantised: bool) -> None:
    found = [m.weight for where, m in convolutions(name, True, quantised).items() if where.startswith(PIXELS[name])]
    assert len(found) == (2 if name == "quantnas-body3" else 1)
    assert is_standard_normal(100 * like_kaiming(found))


@each_network
@each_factory
def test_everything_else_starts_as_kaiming_has_it_for_relus(name: str, quantised: bool) -> None:
    _, *rest = convolutions(name, True, quantised).items()
    found = [m.weight for where, m in rest if not where.startswith(PIXELS[name])]
    assert found and is_standard_normal(like_kaiming(found))
    for weight in found:
        scaled = like_kaiming([weight])
        assert float(scaled.std()) == pytest.approx(1, rel=5 / math.sqrt(2 * len(scaled)))


@each_network
def test_without_bicubic_everything_starts_as_torch_has_it(name: str) -> None:
    """Uniform between -1 / sqrt(fan-in) and 1 / sqrt(fan-in)."""
    weights = [m.weight.detach() for m in convolutions(name, False).values()]
    scaled = torch.cat([(w * math.sqrt(fan_in(w))).flatten() for w in weights])
    assert float(scaled.abs().max()) <= 1 + 1e-6
    assert kstest(scaled.double().numpy(), "uniform", (-1, 2)).pvalue > 1e-4
    for weight in weights:
        assert float(weight.abs().max()) > 0.9 / math.sqrt(fan_in(weight))


def test_a_network_that_adds_to_bicubic_starts_as_bicubic() -> None:
    torch.manual_seed(0)
    network = named_architecture("quantnas-body3", 2, 32, bicubic=True).build(FloatLayers())
    x = torch.rand(2, 3, 12, 12)
    bicubic = functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    difference = network(x) - bicubic
    assert 0 < difference.square().mean().sqrt().item() < 2 / 255


GROWTH = OperatorSpec(kind="growth", in_channels=12, out_channels=24, hidden=48, kernel=3, bias=True)


@pytest.mark.parametrize(("start", "gains"), [("features", (1, 1)), ("detail", (4, 1)), ("pixels", (0.01, 0.01))])
def test_an_operator_of_several_convolutions(start: Start, gains: tuple[float, float]) -> None:
    torch.manual_seed(0)
    operator = build_operator(GROWTH, FloatLayers())
    biases = [p.clone() for p in operator.parameters() if p.dim() == 1]
    initialise(operator, start)
    weights = [m.weight.detach() for m in operator.modules() if isinstance(m, nn.Conv2d)]
    for weight, gain in zip(weights, gains, strict=True):
        scaled = like_kaiming([weight])
        assert float(scaled.std()) == pytest.approx(gain, rel=5 / math.sqrt(2 * len(scaled)) + 0.5 / fan_in(weight))
    blind = [bool(weight.mean((1, 2, 3)).abs().max() < 1e-6) for weight in weights]
    assert blind == [start == "detail", False] or start == "pixels"
    assert all(
        torch.equal(p, b) for p, b in zip((p for p in operator.parameters() if p.dim() == 1), biases, strict=True)
    )


def test_learned_steps_are_left_alone() -> None:
    operator = build_operator(GROWTH.with_bits(4), BrevitasLayers())
    before = {name: p.clone() for name, p in operator.named_parameters() if not name.endswith(".weight")}
    assert [p for p in before.values() if p.dim() == 4], "they have the dimensions of weights"
    initialise(operator, "features")
    assert all(torch.equal(p, before.get(name, p)) for name, p in operator.named_parameters())


def test_torchs_own_start_is_left_alone() -> None:
    operator = build_operator(GROWTH, FloatLayers())
    before = [p.clone() for p in operator.parameters()]
    initialise(operator, "torch")
    assert all(torch.equal(p, b) for p, b in zip(operator.parameters(), before, strict=True))


@pytest.mark.parametrize("quantization", ["noise", "shared", "independent"])
def test_every_candidate_of_a_supernet_starts_as_its_slot_wants(quantization: str) -> None:
    torch.manual_seed(0)
    space = SPACES["quantnas"](SpaceOptions(channels=12, cells=1, scale=2, bicubic=True))
    supernet = Supernet(space, quantization)  # type: ignore[arg-type]
    weights: dict[str, list[Tensor]] = {}
    for name, parameter in supernet.named_parameters():
        if name.endswith(".weight") and parameter.dim() == 4:
            slot = name.removeprefix("network.network.").split(".operators.")[0]
            weights.setdefault(slot, []).append(parameter.detach())
    blind = {slot for slot, found in weights.items() if all(w.mean((1, 2, 3)).abs().max() < 1e-5 for w in found)}
    assert blind == {"head.0"}
    assert all(float(like_kaiming([w]).std()) == pytest.approx(4, rel=0.2) for w in weights["head.0"])
    assert is_standard_normal(100 * like_kaiming(weights["upsample"]))
    rest = [w for slot, found in weights.items() if slot not in ("head.0", "upsample") for w in found]
    assert is_standard_normal(like_kaiming(rest))


def test_the_steps_of_a_supernet_fit_the_weights_it_starts_with() -> None:
    torch.manual_seed(0)
    space = SPACES["quantnas"](SpaceOptions(channels=6, cells=1, scale=2, bicubic=True))
    supernet = Supernet(space, "shared")
    supernet(torch.rand(1, 3, 8, 8))
    found = [m for m in supernet.modules() if isinstance(m, SharedConvolution)]
    assert found
    for layer in found:
        for bits, step in layer.steps.items():
            assert torch.allclose(step.value.flatten(), lsq_initial_step(layer.weight, int(bits)), rtol=1e-5)
