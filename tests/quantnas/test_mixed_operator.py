"""One layer of the supernet: its candidates merged against one by one, with noise, and those that users make."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.operators import OPERATORS, ConvShape, LayerFactory, OperatorSpec, register_operator
from hwnas.operators.chains import ConvChain
from hwnas.operators.spec import Builder
from hwnas.quantization.hwgq import hwgq_quantise
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization, embed
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.search_layers import (
    NoiseActivation,
    NoiseConvolution,
    SharedActivation,
)


def conv(kernel: int, bits: int, groups: int = 1, **fields: object) -> OperatorSpec:
    sizes = {"kind": "conv", "in_channels": 6, "out_channels": 3, "kernel": kernel, "groups": groups}
    return OperatorSpec.model_validate(sizes | fields).with_bits(bits)


LAYER = [conv(k, b, g) for k, g in ((1, 1), (3, 1), (3, 3), (5, 1)) for b in (2, 4)]


def layer_twins(candidates: list[OperatorSpec], quantization: Quantization = "noise") -> list[MixedOperator]:
    torch.manual_seed(1)
    noise = NoiseSource()
    merged, single = (MixedOperator(candidates, quantization, noise, merge) for merge in (True, False))
    single.load_state_dict(merged.state_dict())
    merged.probabilities = single.probabilities = torch.randn(len(candidates)).softmax(0)
    return [merged, single]


def test_with_noise_they_agree_in_mean_and_variance() -> None:
    """Every output of a small layer over 1500 draws, each a sum of many normals.

    The activation noise of candidates that read one map is drawn once when they are merged and once for each
    otherwise, as in the published code: so the variance is compared with the activations' noise off.
    """
    merged, single = layer_twins(LAYER)
    for mixed in (merged, single):
        for module in mixed.modules():
            if isinstance(module, NoiseActivation):
                module.noise = NoiseSource(enabled=False)
    x, n = torch.randn(1, 6, 5, 5), 1500
    with torch.no_grad():
        a, b = (torch.stack([mixed(x).flatten() for _ in range(n)]).double() for mixed in (merged, single))
    assert a.var(0).min() > 1e-6, "there is noise"
    outputs = a.shape[1]
    # z of a difference of means, and of log variances (variance of log s^2 is 2 / (n - 1)); 5 sigma for 75 looks.
    z_mean = (a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / n).sqrt()
    z_variance = (a.var(0).log() - b.var(0).log()) / math.sqrt(4 / (n - 1))
    assert outputs == 75
    assert z_mean.abs().max() < 5
    assert z_variance.abs().max() < 5


@pytest.mark.slow
def test_with_noise_in_the_activations_too_they_agree_in_the_mean() -> None:
    merged, single = layer_twins(LAYER)
    x, n = torch.randn(1, 6, 5, 5), 1500
    with torch.no_grad():
        a, b = (torch.stack([mixed(x).flatten() for _ in range(n)]).double() for mixed in (merged, single))
    z_mean = (a.mean(0) - b.mean(0)) / ((a.var(0) + b.var(0)) / n).sqrt()
    assert z_mean.abs().max() < 5


def test_the_variance_of_a_merged_layer_is_that_of_its_formula() -> None:
    """One 1x1 convolution of one channel: out = (W + dW)(x + dx), with the noises independent."""
    torch.manual_seed(0)
    spec = OperatorSpec(kind="conv", in_channels=4, out_channels=1, kernel=1)
    mixed = MixedOperator([spec.with_bits(2), spec.with_bits(3)], "noise", NoiseSource())
    mixed.probabilities = torch.tensor([0.3, 0.7])
    x = torch.rand(1, 4, 3, 3)
    weight = next(iter(mixed.parameters())).detach().flatten().double()
    half = (0.3 / 3 + 0.7 / 7) / 2
    dw, dx = float(weight.max() - weight.min()) * half, float(x.max()) * half
    energy = x.double().square().sum(1).flatten()
    expected = dw**2 * energy + dx**2 * weight.square().sum() + 4 * (dw * dx) ** 2
    n = 6000
    with torch.no_grad():
        outs = torch.stack([mixed(x).flatten() for _ in range(n)]).double()
    z = (outs.mean(0) - torch.einsum("c,bchw->hw", weight, x.double()).flatten()) / (expected / n).sqrt()
    assert z.abs().max() < 5
    # Products of normals have somewhat heavier tails than normals: their kurtosis is measured.
    kurtosis = ((outs - outs.mean(0)) ** 4).mean(0) / outs.var(0) ** 2
    assert (((outs.var(0) - expected) / expected).abs() < 5 * ((kurtosis - 1) / n).sqrt()).all()


def test_a_chosen_path_computes_its_operator_rounded_to_its_width() -> None:
    torch.manual_seed(0)
    mixed = layer_twins(LAYER)[0].eval()
    i = LAYER.index(conv(3, 2))
    mixed.choice = i
    mixed.set_rounding(True)
    x = torch.rand(1, 6, 7, 7)
    weight = [m for m in mixed.modules() if isinstance(m, NoiseConvolution)][1].weight.detach()
    spread = weight.flatten(1).amax(1) - weight.flatten(1).amin(1)
    step_w, step_x = (spread / 3).view(-1, 1, 1, 1), x.max() / 3
    expected = functional.conv2d((x / step_x).round() * step_x, (weight / step_w).round() * step_w, padding=1)
    with torch.no_grad():
        assert torch.allclose(mixed(x), expected, atol=1e-5)
    mixed.choice = len(LAYER)
    with pytest.raises(IndexError, match="no candidate 8"):
        mixed(x)


@pytest.mark.parametrize(("kernel", "groups"), [((1, 1), 1), ((3, 3), 1), ((5, 5), 1), ((1, 3), 1), ((5, 1), 1)])
@pytest.mark.parametrize("target", [(5, 5), (7, 5)])
@pytest.mark.parametrize("groups_too", [1, 2, 3, 6])
def test_an_embedded_kernel_convolves_as_the_small_one(
    kernel: tuple[int, int], groups: int, target: tuple[int, int], groups_too: int
) -> None:
    torch.manual_seed(0)
    groups *= groups_too
    x, weight = torch.randn(2, 6, 8, 9), torch.randn(12, 6 // groups, *kernel)
    small = functional.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=groups)
    dense = embed(weight, groups, target)
    assert dense.shape == (12, 6, *target)
    large = functional.conv2d(x, dense, padding=(target[0] // 2, target[1] // 2))
    assert torch.allclose(small, large, atol=1e-4)


def test_candidates_with_biases_merge_with_them() -> None:
    merged, single = layer_twins([conv(3, 32, bias=True), conv(1, 32), conv(5, 32, bias=True)])
    x = torch.randn(1, 6, 6, 6)
    assert torch.allclose(merged(x), single(x), atol=1e-5)
    assert not torch.allclose(merged(torch.zeros_like(x)), torch.zeros(1, 3, 6, 6))


def test_candidates_that_read_the_map_with_and_without_relu_are_not_confused() -> None:
    merged, single = layer_twins([conv(3, 32), conv(1, 32, activation="none")])
    x = torch.randn(1, 6, 6, 6)
    assert torch.allclose(merged(x), single(x), atol=1e-5)


def chain(kind: str, **fields: object) -> OperatorSpec:
    return conv(3, 32, kind=kind, hidden=5, **fields)


def test_chains_merge_with_their_biases_whatever_precedes_them() -> None:
    candidates = [
        *(chain(kind, activation=activation, bias=True) for kind in ("growth", "decenc") for activation in ACTIVATIONS),
        *(chain("separable_conv", activation=activation) for activation in ACTIVATIONS),
        conv(5, 32, bias=True),
    ]
    merged, single = layer_twins(candidates)
    x = torch.randn(2, 6, 6, 6)
    assert torch.allclose(merged(x), single(x), atol=1e-5)
    assert not torch.allclose(merged(torch.zeros_like(x)), torch.zeros(1, 3, 6, 6))


ACTIVATIONS = ("relu", "none")


class Residual(ConvChain):
    """A user's chain that computes more than a chain."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] + super().forward(x)


def grouped_end(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    return ConvChain(spec, layers, [ConvShape(6, 6, (1, 1)), ConvShape(6, 3, (3, 3), groups=3)])


def unlike_its_spec(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    linear = OperatorSpec.model_validate(dict(spec) | {"activation": "none"})
    return ConvChain(linear, layers, [ConvShape(6, 3, (3, 3))])


def residual(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    return Residual(spec, layers, [ConvShape(6, 6, (1, 1)), ConvShape(6, 3, (3, 3))])


def no_convolution_last(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    operator = ConvChain(spec, layers, [ConvShape(6, 6, (1, 1)), ConvShape(6, 3, (1, 1))])
    operator.convolutions[-1] = nn.Sequential(operator.convolutions[-1], nn.Tanh())
    return operator


@pytest.mark.parametrize("build", [grouped_end, unlike_its_spec, residual, no_convolution_last])
@pytest.mark.parametrize("bits", [4, 32])
def test_what_users_make_of_chains_is_computed_as_they_made_it(build: Builder, bits: int) -> None:
    register_operator("users")(build)
    try:
        candidates = [conv(3, bits, kind="users"), conv(3, bits), conv(5, bits)]
        merged, single = layer_twins(candidates)
    finally:
        OPERATORS.remove("users")
    x = torch.randn(2, 6, 6, 6)
    # In evaluation, without noise.
    assert torch.allclose(merged.eval()(x), single.eval()(x), atol=1e-5)


def test_the_noise_of_a_map_is_drawn_once_for_all_that_read_it() -> None:
    drawn: list[tuple[int, ...]] = []

    class Counted(NoiseSource):
        def draw(self, like: Tensor) -> Tensor:
            drawn.append(tuple(like.shape))
            return super().draw(like)

    chains = [conv(3, 4, kind="separable_conv", hidden=5), conv(3, 4, kind="growth", hidden=8)]
    candidates = [conv(3, 4), conv(1, 4), *chains]
    for merge, times in ((True, 1), (False, 4)):
        operator = MixedOperator(candidates, "noise", Counted(), merge)
        operator.probabilities = torch.full((4,), 0.25)
        drawn.clear()
        operator(torch.randn(2, 6, 7, 7))
        assert drawn.count((2, 6, 7, 7)) == times
        assert drawn.count((2, 5, 7, 7)) == drawn.count((2, 8, 7, 7)) == 1


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("merge", [True, False])
def test_the_task_teaches_every_probability_what_finite_differences_say(separate: bool, merge: bool) -> None:
    """Of operators, of the widths of their weights and of those of the map that all of them read."""
    torch.manual_seed(0)
    widths = [(2, 2), (8, 8)] + [(2, 8), (8, 2)] * separate
    candidates = [conv(kernel, 4).with_bits(*pair) for kernel in (1, 3) for pair in widths]
    mixed = MixedOperator(candidates, "shared", NoiseSource(), merge).double()
    x, seen = torch.randn(2, 6, 5, 5, dtype=torch.float64), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    p = torch.rand(len(candidates), dtype=torch.float64).softmax(0)

    def loss(p: Tensor) -> Tensor:
        mixed.probabilities = p
        return (mixed(x).sin() * seen).sum()

    loss(p)  # starts the steps
    slopes = torch.autograd.grad(loss(variable := p.clone().requires_grad_()), variable)[0]
    with torch.no_grad():
        for i in range(len(candidates)):
            shift = torch.zeros_like(p)
            shift[i] = 1e-6
            assert float(slopes[i]) == pytest.approx(float(loss(p + shift) - loss(p - shift)) / 2e-6, abs=1e-5)


def test_a_map_takes_the_widths_of_all_operators_that_read_it() -> None:
    torch.manual_seed(0)
    mixed = MixedOperator([conv(1, 2), conv(1, 8), conv(3, 2), conv(3, 8)], "shared", NoiseSource())
    mixed.probabilities = torch.tensor([0.4, 0.1, 0.2, 0.3])
    activated: list[Tensor] = []
    for module in mixed.modules():
        if isinstance(module, SharedActivation):
            module.register_forward_hook(lambda layer, inputs, out: activated.append(out))
    x = torch.randn(1, 6, 4, 4)
    mixed(x)
    assert activated and torch.allclose(activated[0], 0.6 * hwgq_quantise(x, 2) + 0.4 * hwgq_quantise(x, 8), atol=1e-6)
