"""How networks start, against the distributions that the initialisation names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn import functional

from hwnas.architecture import Architecture
from hwnas.operators import LayerFactory, OperatorSpec, build_operator
from hwnas.operators.chains import ConvChain
from hwnas.operators.initialise import Start, initialise
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import BrevitasLayers
from hwnas.quantization.lsq import lsq_initial_step
from hwnas.searches.quantnas.search_layers import SharedConvolution
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, SpaceOptions, named_architecture

# Parts of the names of the convolutions that make the pixels, and of those that end a residual branch.
PIXELS = {
    "quantnas-body3": "network.upsample.convolutions.1",
    "espcn": "network.2.convolutions.0",
    "srresnet": "network.tail.convolutions.0",
}
ENDS = {
    "quantnas-body3": r"cells\.branch\.\d\.branch\.(body\.1\.convolutions\.1|skip\.)",
    "espcn": "none",
    "srresnet": r"blocks\.\d+\.branch\.1\.",
}
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
def test_what_makes_its_pixels_starts_at_a_tenth(name: str, quantised: bool) -> None:
    (found,) = (m.weight for where, m in convolutions(name, True, quantised).items() if PIXELS[name] in where)
    assert is_standard_normal(10 * like_kaiming([found]))


@pytest.mark.parametrize(("name", "count"), [("quantnas-body3", 6), ("srresnet", 16)])
@each_factory
def test_the_ends_of_residual_branches_start_at_three_tenths(name: str, count: int, quantised: bool) -> None:
    found = [m.weight for where, m in convolutions(name, True, quantised).items() if re.search(ENDS[name], where)]
    assert len(found) == count
    assert is_standard_normal(like_kaiming(found) / 0.3)


@each_network
@each_factory
def test_biases_start_at_zero(name: str, quantised: bool) -> None:
    biases = [m.bias for m in convolutions(name, True, quantised).values() if m.bias is not None]
    assert bool(biases) == (name != "quantnas-body3")
    assert not any(bias.any() for bias in biases)


@each_network
@each_factory
def test_everything_else_starts_as_kaiming_has_it_for_relus(name: str, quantised: bool) -> None:
    _, *rest = convolutions(name, True, quantised).items()
    found = [m.weight for where, m in rest if PIXELS[name] not in where and not re.search(ENDS[name], where)]
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


def grey_levels_from_bicubic(architecture: Architecture) -> float:
    """Root mean square, of the network as it starts."""
    torch.manual_seed(0)
    network = architecture.build(FloatLayers())
    x = torch.rand(2, 3, 12, 12)
    scale = architecture.wiring.scale
    bicubic = functional.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    return 255 * float((network(x) - bicubic).detach().square().mean().sqrt())


@each_network
@pytest.mark.parametrize("scale", [2, 4])
def test_a_network_that_adds_to_bicubic_starts_as_bicubic(name: str, scale: int) -> None:
    assert 0.1 < grey_levels_from_bicubic(named_architecture(name, scale, 32, bicubic=True)) < 5


@pytest.mark.parametrize("residual", ["add", "adadm"])
@pytest.mark.parametrize("cells", [1, 6])
@pytest.mark.parametrize("name", ["quantnas", "quantnas-float"])
def test_so_does_whatever_a_search_may_choose(name: str, cells: int, residual: str) -> None:
    space = SPACES[name](SpaceOptions(cells=cells, scale=2, residual=residual, bicubic=True))
    longest = max(len(choices) for choices in space.choices.values())
    for i in range(0, longest, 2):
        chosen = {layer: i % len(choices) for layer, choices in space.choices.items()}
        assert 0.1 < grey_levels_from_bicubic(space.architecture(chosen)) < 8


GROWTH = OperatorSpec(kind="growth", in_channels=12, out_channels=24, hidden=48, kernel=3, bias=True)


@pytest.mark.parametrize(
    ("start", "gains"), [("features", (1, 1)), ("detail", (4, 1)), ("branch", (1, 0.3)), ("pixels", (1, 0.1))]
)
def test_an_operator_of_several_convolutions(start: Start, gains: tuple[float, float]) -> None:
    torch.manual_seed(0)
    operator = build_operator(GROWTH, FloatLayers())
    initialise(operator, start)
    weights = [m.weight.detach() for m in operator.modules() if isinstance(m, nn.Conv2d)]
    for weight, gain in zip(weights, gains, strict=True):
        scaled = like_kaiming([weight])
        assert float(scaled.std()) == pytest.approx(gain, rel=5 / math.sqrt(2 * len(scaled)) + 0.5 / fan_in(weight))
    blind = [bool(weight.mean((1, 2, 3)).abs().max() < 1e-6) for weight in weights]
    assert blind == [start == "detail", False]
    assert not any(bias.any() for bias in operator.parameters() if bias.dim() == 1)


@pytest.mark.parametrize("start", ["features", "detail", "branch", "pixels"])
def test_an_operator_without_convolutions_has_nothing_to_initialise(start: Start) -> None:
    norm = nn.BatchNorm2d(4)
    initialise(norm, start)
    assert torch.equal(norm.weight, torch.ones(4))
    initialise(nn.Identity(), start)


@pytest.mark.parametrize("start", ["features", "detail", "branch", "pixels"])
def test_no_operator_starts_dead(start: Start) -> None:
    spec = OperatorSpec(kind="conv", in_channels=3, out_channels=6, kernel=1, groups=3)
    operator = build_operator(spec, FloatLayers())
    initialise(operator, start)
    assert all(bool(p.abs().min() > 0) for p in operator.parameters())


def test_learned_steps_are_left_alone() -> None:
    operator = build_operator(GROWTH.with_bits(4), BrevitasLayers())
    before = {name: p.clone() for name, p in operator.named_parameters() if not name.endswith((".weight", ".bias"))}
    assert [p for p in before.values() if p.dim() == 4], "they have the dimensions of weights"
    initialise(operator, "features")
    after = dict(operator.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in before.items())


def test_torchs_own_start_is_left_alone() -> None:
    operator = build_operator(GROWTH, FloatLayers())
    before = [p.clone() for p in operator.parameters()]
    initialise(operator, "torch")
    assert all(torch.equal(p, b) for p, b in zip(operator.parameters(), before, strict=True))


@pytest.mark.parametrize("quantization", ["noise", "shared", "independent"])
def test_every_candidate_of_a_supernet_starts_as_its_slot_wants(quantization: str) -> None:
    torch.manual_seed(0)
    space = SPACES["quantnas"](SpaceOptions(channels=12, cells=1, scale=2, bicubic=True))
    supernet = QuantNASSupernet(space, quantization)  # type: ignore[arg-type]
    found: dict[tuple[str, bool], list[Tensor]] = {}
    for slot, chain in candidates(supernet):
        *inner, last = (m.weight.detach() for m in chain.convolutions)
        found.setdefault((slot, False), []).extend(inner)
        found.setdefault((slot, True), []).append(last)
    gains = {"upsample": 0.1, "body.1": 0.3, "skip": 0.3}
    for (slot, is_last), weights in found.items():
        if slot == "head.0":
            firsts = [chain.convolutions[0].weight for where, chain in candidates(supernet) if where == slot]
            assert all(w.mean((1, 2, 3)).abs().max() < 1e-5 for w in firsts)
            assert all(float(like_kaiming([w]).std()) == pytest.approx(4, rel=0.2) for w in firsts)
        elif weights:
            assert is_standard_normal(like_kaiming(weights) / (gains.get(slot, 1) if is_last else 1))


def candidates(supernet: QuantNASSupernet) -> Iterator[tuple[str, ConvChain]]:
    """Each candidate with the slot it is in."""
    for name, module in supernet.named_modules():
        if isinstance(module, ConvChain):
            where = name.split(".operators.")[0]
            yield next(slot for slot in SLOTS if where.endswith(SLOTS[slot])), module


SLOTS = {
    "head.0": "head.0",
    "head.1": "head.1",
    "body.0": "body.0",
    "body.1": "body.1",
    "skip": "skip",
    "upsample": "upsample",
    "tail.0": "tail.branch.0",
    "tail.1": "tail.branch.1",
}
"""Where the wiring puts each slot."""


def test_the_steps_of_a_supernet_fit_the_weights_it_starts_with() -> None:
    torch.manual_seed(0)
    space = SPACES["quantnas"](SpaceOptions(channels=6, cells=1, scale=2, bicubic=True))
    supernet = QuantNASSupernet(space, "shared")
    supernet(torch.rand(1, 3, 8, 8))
    found = [m for m in supernet.modules() if isinstance(m, SharedConvolution)]
    assert found
    for layer in found:
        for bits, step in layer.steps.items():
            assert torch.allclose(step.value.flatten(), lsq_initial_step(layer.weight, int(bits)), rtol=1e-5)
