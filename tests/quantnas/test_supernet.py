"""Whole supernets: merged against one by one, one-hot against the derived network, and the parameters there are."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.operators.chains import ConvChain
from hwnas.operators.layers import FloatLayers
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization
from hwnas.searches.quantnas.search_layers import (
    SharedConvolution,
)
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, LayerwiseSpace, SpaceOptions

CASES = [
    ("quantnas-float", None, "noise"),
    ("quantnas", (4, 8), "noise"),
    ("quantnas", (4, 8), "shared"),
    ("quantnas", (4, 8), "independent"),
    ("quantnas", (8, 32), "shared"),
    ("quantnas", (3, 32), "independent"),
]
each_case = pytest.mark.parametrize(("name", "bits", "quantization"), CASES, ids=lambda v: str(v).replace(" ", ""))
with_and_without_adadm = pytest.mark.parametrize("residual", ["add", "adadm"])


def small_space(
    name: str, bits: tuple[int, ...] | None = None, residual: str = "add", **options: object
) -> LayerwiseSpace:
    fields = {"channels": 6, "cells": 2, "scale": 2, "bits": bits, "residual": residual}
    return SPACES[name](SpaceOptions.model_validate(fields | options))


def spread_alphas(supernet: QuantNASSupernet) -> None:
    """Probabilities that differ by an order of magnitude."""
    with torch.no_grad():
        for alpha in supernet.alphas:
            alpha.copy_(torch.randn_like(alpha))


def twins(space: LayerwiseSpace, quantization: Quantization) -> tuple[QuantNASSupernet, QuantNASSupernet]:
    """A merged supernet and one that computes candidate by candidate, of the same weights and alphas, without noise."""
    torch.manual_seed(0)
    merged, single = (QuantNASSupernet(space, quantization, merge=merge) for merge in (True, False))
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


def gradients(supernet: QuantNASSupernet, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    supernet.zero_grad()
    functional.mse_loss(supernet(x), y).backward()
    return {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}


@with_and_without_adadm
@each_case
def test_merged_and_one_by_one_are_the_same_function(
    name: str, bits: tuple[int, ...] | None, quantization: Quantization, residual: str
) -> None:
    # Rounding to a grid turns the last bit of a float32 into a whole step, now and then.
    dtype = torch.float32 if quantization == "noise" else torch.float64
    merged, single = (s.to(dtype) for s in twins(small_space(name, bits, residual), quantization))
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
    name: str, bits: tuple[int, ...] | None, quantization: Quantization, residual: str
) -> None:
    merged, single = (s.double() for s in twins(small_space(name, bits, residual), quantization))
    x, y = torch.rand(2, 3, 8, 7, dtype=torch.float64), torch.rand(2, 3, 16, 14, dtype=torch.float64)
    a, b = gradients(merged, x, y), gradients(single, x, y)
    assert a.keys() == b.keys() == dict(merged.named_parameters()).keys()
    for key, gradient in a.items():
        assert torch.allclose(gradient, b[key], rtol=1e-6, atol=1e-9), key
    assert all(gradient.abs().max() > 0 for key, gradient in a.items() if key.startswith("alphas"))


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "one by one"])
def test_the_gradient_of_the_alphas_is_that_of_finite_differences(merge: bool) -> None:
    torch.manual_seed(0)
    supernet = QuantNASSupernet(small_space("quantnas-float", cells=1), merge=merge).double()
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


@pytest.mark.parametrize(("name", "bits"), [("quantnas", (4, 8)), ("quantnas-float", None)])
@with_and_without_adadm
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "one by one"])
def test_a_certain_supernet_is_the_derived_network(
    name: str, bits: tuple[int, ...] | None, residual: str, merge: bool
) -> None:
    torch.manual_seed(3)
    space = small_space(name, bits, residual)
    supernet = QuantNASSupernet(space, "noise", merge).eval()
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
        supernet.choose(tuple(chosen[layer] for layer in space.choices))
        if bits is None:
            assert torch.allclose(supernet(x), expected, atol=1e-5)
        else:
            assert not torch.allclose(supernet(x), expected, atol=1e-5), "chosen candidates are rounded"
        supernet.choose(None)
        assert torch.allclose(supernet(x), expected, atol=1e-5)


def built_in_order(space: LayerwiseSpace) -> Iterator[tuple[str, int]]:
    """Slots in the order of the modules of the network: the layers of a cell follow each other."""
    counts = {slot.name: slot.count for slot in space.wiring.slots}
    for layer in ("head.0", "head.1"):
        yield layer, 1
    for _ in range(counts["skip"]):
        for layer in ("body.0", "body.1", "skip"):
            yield layer, 1
    for layer in ("upsample", "tail.0", "tail.1"):
        yield layer, 1


def weights_of(quantization: Quantization, bits: tuple[int, ...]) -> int:
    supernet = QuantNASSupernet(small_space("quantnas", bits), quantization)
    return sum(p.numel() for name, p in supernet.named_parameters() if name.endswith(".weight") and p.dim() == 4)


@pytest.mark.parametrize("bits", [(4, 8), (2, 4, 8)])
def test_independent_widths_have_weights_of_their_own_and_the_others_share_them(bits: tuple[int, ...]) -> None:
    one = weights_of("noise", (4,))
    assert weights_of("noise", bits) == one
    assert weights_of("shared", bits) == one
    assert weights_of("independent", bits) == one * len(bits)


def test_the_weights_and_alphas_are_all_the_parameters() -> None:
    supernet = QuantNASSupernet(small_space("quantnas", (4, 8)))
    weights, alphas = set(supernet.weights()), set(supernet.alphas)
    assert not weights & alphas
    assert weights | alphas == set(supernet.parameters())
    assert [len(a) for a in supernet.alphas] == [len(c) for c in supernet.space.choices.values()]


def test_alphas_start_uniform() -> None:
    supernet = QuantNASSupernet(small_space("quantnas", (2, 4, 8)))
    for layer, p in supernet.relaxed().items():
        assert torch.allclose(p, torch.full_like(p, 1 / len(supernet.space.choices[layer])))


def test_the_steps_of_shared_quantisation_are_parameters_that_learn() -> None:
    torch.manual_seed(0)
    supernet = QuantNASSupernet(small_space("quantnas", (4, 8), residual="adadm"), "shared")
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
    supernet = QuantNASSupernet(small_space("quantnas", (4, 8), residual="adadm"), quantization)
    x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    exact = gradients(supernet, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        out = supernet(x)
    supernet.zero_grad()
    functional.mse_loss(out.float(), y).backward()
    for name, p in supernet.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert p.grad.shape == exact[name].shape
