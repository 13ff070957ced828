"""Layers of the supernet: noise against its formula and statistics, mixtures of widths, gradients."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from hwnas.operators import ConvShape, OperatorSpec
from hwnas.quantization.hwgq import hwgq_quantise
from hwnas.quantization.lsq import lsq_initial_step, lsq_quantise
from hwnas.searches.quantnas.mixed_operator import MixedOperator
from hwnas.searches.quantnas.noise import NoiseSource, activate_with_noise
from hwnas.searches.quantnas.search_layers import (
    BitMixture,
    NoiseConvolution,
    NoiseLayers,
    SharedActivation,
    SharedConvolution,
    SharedLayers,
)


def conv(kernel: int, bits: int, groups: int = 1, **fields: object) -> OperatorSpec:
    sizes = {"kind": "conv", "in_channels": 6, "out_channels": 3, "kernel": kernel, "groups": groups}
    return OperatorSpec.model_validate(sizes | fields).with_bits(bits)


def test_a_shared_convolution_is_the_mix_of_the_quantised_weights() -> None:
    torch.manual_seed(0)
    mixture = BitMixture((2, 4, 32))
    layer = SharedConvolution(conv(3, 4), ConvShape(6, 3, (3, 3)), mixture)
    mixture.weights = torch.tensor([0.2, 0.3, 0.5])
    w = layer.weight.detach()
    expected = 0.5 * w + sum(a * lsq_quantise(w, lsq_initial_step(w, b), b) for a, b in ((0.2, 2), (0.3, 4)))
    assert torch.allclose(layer.mixed_weight(), expected, atol=1e-6)


def test_a_shared_activation_is_the_mix_of_the_quantised_maps() -> None:
    torch.manual_seed(0)
    mixture = BitMixture((3, 5, 32))
    mixture.weights = torch.tensor([0.2, 0.3, 0.5])
    x = torch.randn(2, 6, 5, 5)
    expected = 0.2 * hwgq_quantise(x, 3) + 0.3 * hwgq_quantise(x, 5) + 0.5 * x.relu()
    assert torch.allclose(SharedActivation(conv(3, 4), mixture)(x), expected, atol=1e-6)
    rectified = SharedActivation(conv(3, 4, activation="rectified"), mixture)
    assert torch.allclose(rectified(x.relu()), expected, atol=1e-6)


def test_a_shared_map_that_may_be_negative_has_as_many_levels_as_its_width() -> None:
    torch.manual_seed(0)
    mixture, x = BitMixture((2, 3, 32)), torch.randn(2, 6, 5, 5, requires_grad=True)
    layer = SharedActivation(conv(3, 4, activation="none"), mixture)
    rounded = {}
    for i, bits in enumerate(mixture.widths):
        mixture.weights = torch.eye(3)[i]
        rounded[bits] = layer(x).detach()
        if bits < 32:
            step = float(x.detach().amax() - x.detach().amin()) / (2**bits - 1)
            levels = (rounded[bits] / step).round()
            assert torch.allclose(rounded[bits], levels * step, atol=1e-6)
            assert (rounded[bits] - x).abs().max() <= step / 2 + 1e-6
            assert len(levels.unique()) <= 2**bits + 1
    assert torch.allclose(rounded[32], x)
    mixture.weights = torch.tensor([0.2, 0.3, 0.5])
    out = layer(x)
    assert torch.allclose(out, 0.2 * rounded[2] + 0.3 * rounded[3] + 0.5 * x, atol=1e-6)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.allclose(gradient, torch.ones_like(x)), "that of the identity"


def layouts() -> dict[str, Tensor]:
    x = torch.zeros(3, 8, 20, 30)
    return {
        "contiguous": x,
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "with gaps": torch.zeros(3, 8, 20, 60)[..., ::2],
        "transposed": torch.zeros(3, 8, 30, 20).transpose(2, 3),
    }


@pytest.mark.parametrize("layout", list(layouts()))
def test_draws_are_standard_normal_and_independent_within_a_tensor(layout: str) -> None:
    torch.manual_seed(5)
    like = layouts()[layout]
    z = NoiseSource().draw(like)
    assert z.shape == like.shape
    values = z.double().flatten()
    n = len(values)
    assert kstest(values.numpy(), "norm").pvalue > 1e-4
    assert abs(float(values.mean())) < 4 / math.sqrt(n)
    assert abs(float(values.var()) - 1) < 4 * math.sqrt(2 / n)
    assert values.unique().numel() > 0.99 * n, "no element is used twice"
    for dim in range(4):
        a, b = z.double().narrow(dim, 0, z.shape[dim] - 1), z.double().narrow(dim, 1, z.shape[dim] - 1)
        assert abs(float((a * b).mean())) < 4 / math.sqrt(a.numel())


def test_draws_have_the_memory_layout_of_what_they_are_for() -> None:
    torch.manual_seed(0)
    source, maps = NoiseSource(), layouts()
    for layout in ("contiguous", "channels last"):
        assert source.draw(maps[layout]).stride() == maps[layout].stride()
    assert source.draw(maps["channels last"]).is_contiguous(memory_format=torch.channels_last)


def test_two_draws_differ() -> None:
    torch.manual_seed(0)
    source, like = NoiseSource(), torch.zeros(1, 4, 30, 30)
    draws = [source.draw(like).clone().flatten() for _ in range(6)]
    for a, b in itertools.combinations(draws, 2):
        assert abs(float((a * b).mean())) < 5 / math.sqrt(a.numel())


def test_a_map_larger_than_the_bank_gets_a_larger_bank() -> None:
    torch.manual_seed(0)
    source = NoiseSource()
    source.draw(torch.zeros(10))
    z = source.draw(torch.zeros(1, 1, 1100, 1000))
    assert z.shape == (1, 1, 1100, 1000) and abs(float(z.std()) - 1) < 0.01


def test_a_refreshed_source_and_a_seed_give_the_same_noise_again() -> None:
    source, like = NoiseSource(), torch.zeros(2, 3, 8, 8)

    def draws() -> list[Tensor]:
        torch.manual_seed(11)
        return [source.draw(like).clone() for _ in range(3)]

    first = draws()
    assert not torch.equal(first[0], draws()[0]), "the bank goes on until it is refreshed"
    source.refresh()
    again = draws()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_disabled_source_draws_zeros_in_the_same_layout() -> None:
    like = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    z = NoiseSource(enabled=False).draw(like)
    assert not z.any() and z.stride() == like.stride() and not z.requires_grad


@contextmanager
def every_draw_is_one(layer: nn.Module) -> Iterator[None]:
    """A source of ones shows the standard deviation itself."""

    class Ones(NoiseSource):
        def draw(self, like: Tensor) -> Tensor:
            return torch.ones_like(like)

    old, layer.noise = layer.noise, Ones()
    yield
    layer.noise = old


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 32])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_noise_of_a_convolution_is_half_a_step_of_each_output_channel(bits: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = NoiseLayers(BitMixture((bits,)), BitMixture((bits,)), NoiseSource()).convolution(
        conv(3, bits, groups), ConvShape(6, 3, (3, 3), groups)
    )
    assert isinstance(layer, NoiseConvolution)
    weight = layer.weight.detach()
    with every_draw_is_one(layer):
        std = layer.mixed_weight().detach() - weight
    for channel in range(3):
        step = (weight[channel].max() - weight[channel].min()) / (2**bits - 1) if bits < 32 else 0
        assert torch.allclose(std[channel], torch.full_like(std[channel], float(step) / 2), atol=1e-7)
    assert torch.equal(layer.eval().mixed_weight(), weight), "no noise in evaluation, and the weight not rescaled"


def test_the_steps_of_several_widths_are_mixed_by_their_probabilities() -> None:
    mixture = BitMixture((2, 4, 8, 32))
    mixture.weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert float(mixture.expected_step()) == pytest.approx(0.1 / 3 + 0.2 / 15 + 0.3 / 255, rel=1e-6)


@pytest.mark.parametrize("rectify", [True, False], ids=["relu", "signed"])
def test_the_noise_of_an_activation_is_half_a_step_of_its_range(rectify: bool) -> None:
    torch.manual_seed(0)
    spec = conv(3, 4, activation="relu" if rectify else "none")
    layer = NoiseLayers(BitMixture((4,)), BitMixture((4,)), NoiseSource()).activation(spec)
    x = torch.randn(2, 6, 5, 5)
    clean = x.relu() if rectify else x
    with every_draw_is_one(layer):
        std = layer(x) - clean
    half = float(clean.max() - clean.min()) / 15 / 2
    assert torch.allclose(std, torch.full_like(std, half), atol=1e-6)
    assert torch.equal(layer.eval()(x), clean)


def numerical(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    gradient = torch.zeros(x.numel(), dtype=x.dtype)
    for i in range(x.numel()):
        e = torch.zeros_like(gradient)
        e[i] = step
        e = e.view(x.shape)
        gradient[i] = (f(x + e) - f(x - e)) / (2 * step)
    return gradient.view(x.shape)


@pytest.mark.parametrize("rectify", [True, False], ids=["relu", "signed"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels last", "contiguous"])
def test_the_backward_pass_of_the_noise_is_that_of_finite_differences(rectify: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, z, seen = (torch.randn(2, 3, 4, 3, dtype=torch.float64).contiguous(memory_format=layout) for _ in range(3))
    std = torch.tensor(0.3, dtype=torch.float64)

    def f(x: Tensor, std: Tensor) -> Tensor:
        return (activate_with_noise(x, z, std, rectify).sin() * seen).sum()

    x_, std_ = x.clone().requires_grad_(), std.clone().requires_grad_()
    by_x, by_std = torch.autograd.grad(f(x_, std_), [x_, std_])
    assert torch.allclose(by_x, numerical(lambda v: f(v, std), x), atol=1e-7)
    assert torch.allclose(by_std, numerical(lambda v: f(x, v), std), atol=1e-7)


def test_the_noise_leaves_its_input_and_the_bank_alone() -> None:
    torch.manual_seed(0)
    source, x = NoiseSource(), torch.randn(1, 3, 5, 5)
    before, z = x.clone(), source.draw(x)
    kept = z.clone()
    activate_with_noise(x, z, torch.tensor(0.5), rectify=False)
    assert torch.equal(x, before) and torch.equal(z, kept)


def test_a_search_feels_what_a_width_costs_through_its_noise() -> None:
    """More 2-bit probability is more noise, which a loss that punishes variance must see in the alphas."""
    torch.manual_seed(0)
    mixed = MixedOperator([conv(3, 2), conv(3, 8)], "noise", NoiseSource())
    alpha, x = torch.zeros(2, requires_grad=True), torch.rand(4, 6, 12, 12)
    for _ in range(20):
        mixed.probabilities = alpha.softmax(0)
        mixed(x).var().backward()
    assert alpha.grad is not None
    assert float(alpha.grad[0]) > 0 > float(alpha.grad[1])


def test_layers_of_shared_quantisation_are_those_of_the_factory() -> None:
    layers = SharedLayers(BitMixture((4,)), BitMixture((8,)))
    spec = conv(3, 4)
    convolution, activation = layers.convolution(spec, ConvShape(6, 3, (3, 3))), layers.activation(spec)
    assert isinstance(convolution, SharedConvolution) and isinstance(activation, SharedActivation)
    assert set(convolution.steps) == {"4"} and activation.mixture.widths == (8,)
