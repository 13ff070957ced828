"""Merged against one by one, one-hot against the derived network, and the parameters there are."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import UsageError
from hwnas.operators import OPERATORS, ConvShape, LayerFactory, OperatorSpec, register_operator
from hwnas.operators.chains import ConvChain
from hwnas.operators.layers import FloatLayers
from hwnas.operators.spec import Builder
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization, embed
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.search_layers import (
    NoiseActivation,
    NoiseConvolution,
    SharedConvolution,
)
from hwnas.searches.quantnas.supernet import Supernet
from hwnas.spaces import SPACES, SearchSpace, SpaceOptions

CASES = [
    ("quantnas-float", None, "noise"),
    ("quantnas", (4, 8), "noise"),
    ("quantnas", (4, 8), "shared"),
    ("quantnas", (4, 8), "independent"),
    ("quantnas", (8, 32), "shared"),
    ("quantnas", (3, 32), "independent"),
]
each_case = pytest.mark.parametrize(("name", "bits", "quantization"), CASES, ids=lambda v: str(v).replace(" ", ""))
with_and_without_adadm = pytest.mark.parametrize("adadm", [False, True], ids=["add", "adadm"])


def small_space(name: str, bits: tuple[int, ...] | None = None, adadm: bool = False, **options: object) -> SearchSpace:
    return SPACES[name](
        SpaceOptions.model_validate({"channels": 6, "cells": 2, "scale": 2, "bits": bits, "adadm": adadm} | options)
    )


def spread_alphas(supernet: Supernet) -> None:
    """Probabilities that differ by an order of magnitude."""
    with torch.no_grad():
        for alpha in supernet.alphas:
            alpha.copy_(torch.randn_like(alpha))


def twins(space: SearchSpace, quantization: Quantization) -> tuple[Supernet, Supernet]:
    """A merged supernet and one that computes candidate by candidate, of the same weights and alphas, without noise."""
    torch.manual_seed(0)
    merged, single = (Supernet(space, quantization, merge=merge) for merge in (True, False))
    spread_alphas(merged)
    with torch.no_grad():
        # Maps of about unit variance, which HWGQ expects: torch's own start is a sixth of that, and its maps, rounded
        # to almost nothing, are sums of a few equal numbers that cancel exactly or but for the last bit, where a ReLU
        # has no gradient to agree on. LSQ's steps go with their weights.
        for p in (p for n, p in merged.named_parameters() if ".convolutions." in n):
            p.mul_(math.sqrt(6))
    single.load_state_dict(merged.state_dict())
    merged.noise.enabled = single.noise.enabled = False
    return merged, single


def gradients(supernet: Supernet, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    supernet.zero_grad()
    functional.mse_loss(supernet(x), y).backward()
    return {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}


@with_and_without_adadm
@each_case
def test_merged_and_one_by_one_are_the_same_function(
    name: str, bits: tuple[int, ...] | None, quantization: Quantization, adadm: bool
) -> None:
    # Rounding to a grid turns the last bit of a float32 into a whole step, now and then.
    dtype = torch.float32 if quantization == "noise" else torch.float64
    merged, single = (s.to(dtype) for s in twins(small_space(name, bits, adadm), quantization))
    x = torch.rand(2, 3, 9, 8, dtype=dtype)
    for mode in (True, False):
        merged.train(mode), single.train(mode)
        with torch.no_grad():
            a, b = merged(x), single(x)
        assert a.shape == (2, 3, 18, 16)
        assert a.std() > 1e-3, "two constants would agree as well"
        assert float((a - b).abs().max()) < 1e-5 * max(1, float(b.abs().max()))


@with_and_without_adadm
@each_case
def test_so_are_their_gradients(
    name: str, bits: tuple[int, ...] | None, quantization: Quantization, adadm: bool
) -> None:
    merged, single = (s.double() for s in twins(small_space(name, bits, adadm), quantization))
    x, y = torch.rand(2, 3, 8, 7, dtype=torch.float64), torch.rand(2, 3, 16, 14, dtype=torch.float64)
    a, b = gradients(merged, x, y), gradients(single, x, y)
    assert a.keys() == b.keys() == dict(merged.named_parameters()).keys()
    for key, gradient in a.items():
        assert torch.allclose(gradient, b[key], rtol=1e-6, atol=1e-9), key
    assert all(gradient.abs().max() > 0 for key, gradient in a.items() if key.startswith("alphas"))


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "one by one"])
def test_the_gradient_of_the_alphas_is_that_of_finite_differences(merge: bool) -> None:
    torch.manual_seed(0)
    supernet = Supernet(small_space("quantnas-float", cells=1), merge=merge).double()
    spread_alphas(supernet)
    x, y = torch.rand(1, 3, 6, 6, dtype=torch.float64), torch.rand(1, 3, 12, 12, dtype=torch.float64)
    found, step = gradients(supernet, x, y), 1e-6
    for i, alpha in enumerate(supernet.alphas):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha[0] += sign * step
                values.append(float(functional.mse_loss(supernet(x), y)))
                alpha[0] -= sign * step
        assert float(found[f"alphas.{i}"][0]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-9)


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


@pytest.mark.parametrize(("name", "bits"), [("quantnas", (4, 8)), ("quantnas-float", None)])
@with_and_without_adadm
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "one by one"])
def test_a_certain_supernet_is_the_derived_network(
    name: str, bits: tuple[int, ...] | None, adadm: bool, merge: bool
) -> None:
    torch.manual_seed(3)
    space = small_space(name, bits, adadm)
    supernet = Supernet(space, "noise", merge).eval()
    chosen = {layer: int(torch.randint(len(c), ())) for layer, c in space.choices.items()}
    with torch.no_grad():
        for layer, alpha in zip(supernet.layers, supernet.alphas, strict=True):
            alpha[chosen[layer]] = 200
    derived = space.architecture(chosen).build(FloatLayers()).eval()
    mixed = [m for m in supernet.network.modules() if isinstance(m, MixedOperator)]
    chains = [m for m in derived.modules() if isinstance(m, ConvChain)]
    assert len(mixed) == len(chains)
    copies = iter(zip(mixed, chains, strict=True))
    with torch.no_grad():
        for layer, count in built_in_order(space):
            for _ in range(count):
                layer_mixed, chain = next(copies)
                twin = space.choices[layer][chosen[layer]].float_twin
                order = list(dict.fromkeys(spec.float_twin for spec in space.choices[layer]))
                source = layer_mixed.operators[order.index(twin)]
                pairs = zip(source.parameters(), chain.parameters(), strict=True)
                for theirs, mine in pairs:
                    mine.copy_(theirs)
        state = {k: v for k, v in supernet.network.state_dict().items() if k in derived.state_dict()}
        derived.load_state_dict(state, strict=False)
        x = torch.rand(2, 3, 8, 9)
        expected = derived(x)
        assert torch.allclose(supernet(x), expected, atol=1e-5)
        supernet.choose(chosen)
        if bits is None:
            assert torch.allclose(supernet(x), expected, atol=1e-5)
        else:
            assert not torch.allclose(supernet(x), expected, atol=1e-5), "chosen candidates are rounded"
        supernet.choose(None)
        assert torch.allclose(supernet(x), expected, atol=1e-5)


def built_in_order(space: SearchSpace) -> Iterator[tuple[str, int]]:
    """Slots in the order of the modules of the network: the layers of a cell follow each other."""
    counts = {slot.name: slot.count for slot in space.wiring.slots}
    for layer in ("head.0", "head.1"):
        yield layer, 1
    for _ in range(counts["skip"]):
        for layer in ("body.0", "body.1", "skip"):
            yield layer, 1
    for layer in ("upsample", "tail.0", "tail.1"):
        yield layer, 1


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


def test_a_width_for_weights_and_another_for_activations_is_refused() -> None:
    with pytest.raises(UsageError, match="conv3x3 @w4a8 has weights and activations of different widths"):
        MixedOperator([conv(3, 4), conv(3, 4).with_bits(4, 8)], "noise", NoiseSource())


def weights_of(quantization: Quantization, bits: tuple[int, ...]) -> int:
    supernet = Supernet(small_space("quantnas", bits), quantization)
    return sum(p.numel() for name, p in supernet.named_parameters() if name.endswith(".weight") and p.dim() == 4)


@pytest.mark.parametrize("bits", [(4, 8), (2, 4, 8)])
def test_independent_widths_have_weights_of_their_own_and_the_others_share_them(bits: tuple[int, ...]) -> None:
    one = weights_of("noise", (4,))
    assert weights_of("noise", bits) == one
    assert weights_of("shared", bits) == one
    assert weights_of("independent", bits) == one * len(bits)


def test_the_weights_and_alphas_are_all_the_parameters() -> None:
    supernet = Supernet(small_space("quantnas", (4, 8)))
    weights, alphas = set(supernet.weights()), set(supernet.alphas)
    assert not weights & alphas
    assert weights | alphas == set(supernet.parameters())
    assert [len(a) for a in supernet.alphas] == [len(c) for c in supernet.space.choices.values()]


def test_alphas_start_uniform() -> None:
    supernet = Supernet(small_space("quantnas", (2, 4, 8)))
    for layer, p in supernet.probabilities().items():
        assert torch.allclose(p, torch.full_like(p, 1 / len(supernet.space.choices[layer])))


def test_the_steps_of_shared_quantisation_are_parameters_that_learn() -> None:
    torch.manual_seed(0)
    supernet = Supernet(small_space("quantnas", (4, 8), adadm=True), "shared")
    steps = {name for name, _ in supernet.named_parameters() if ".steps." in name}
    convolutions = [m for m in supernet.modules() if isinstance(m, SharedConvolution)]
    assert len(steps) == 2 * len(convolutions) > 0
    assert {id(p) for m in convolutions for p in m.steps.parameters()} <= {id(p) for p in supernet.weights()}
    found = gradients(supernet, torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16))
    assert all(found[name].abs().max() > 0 for name in steps)


@pytest.mark.parametrize("quantization", ["noise", "shared"])
def test_a_search_step_can_be_taken_in_bfloat16(quantization: Quantization) -> None:
    """What Fabric's ``bf16-mixed`` does."""
    torch.manual_seed(0)
    supernet = Supernet(small_space("quantnas", (4, 8), adadm=True), quantization)
    x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    exact = gradients(supernet, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        out = supernet(x)
    supernet.zero_grad()
    functional.mse_loss(out.float(), y).backward()
    for name, p in supernet.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.shape == exact[name].shape
