"""The widths of a network that is there: its operators stay, and what it has learned is where the search begins."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.checkpoints import NetworkRecord, save_network
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError, UsageError
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.hwgq import hwgq_quantise
from hwnas.quantization.lsq import lsq_initial_step, lsq_quantise
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.objective import LayerwiseCost
from hwnas.searches.quantnas.search import QuantNAS
from hwnas.searches.quantnas.search_layers import SearchConvolution
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import SPACES, LayerwiseSpace, SpaceOptions, named_architecture
from hwnas.weights import float_weights

from .searching import search
from .test_mixed_operator import conv

NAMES = ["espcn", "srresnet", "quantnas-body3", "falsr-a", "trilevel-b", pytest.param("esrgan", marks=pytest.mark.slow)]
MODES: list[Quantization] = ["noise", "shared", "independent"]


def widths_of(network: str | Path, *bits: int, **options: object) -> LayerwiseSpace:
    space = SPACES["fixed"](SpaceOptions.model_validate({"fixed": str(network), "bits": bits} | options))
    assert isinstance(space, LayerwiseSpace)
    return space


@pytest.mark.parametrize("name", NAMES)
def test_the_space_of_a_network_is_its_operators_in_all_widths(name: str) -> None:
    network, space = named_architecture(name), widths_of(name, 8, 2, 4)
    assert space.wiring == network.wiring and list(space.choices) == list(network.operators)
    for layer, spec in network.operators.items():
        assert [c.weight_bits for c in space.choices[layer]] == [2, 4, 8]
        assert {c.float_twin for c in space.choices[layer]} == {spec.float_twin}
    assert space.first.fingerprint == named_architecture(name, bits=2).fingerprint
    apart = widths_of(name, 2, 4, 8, separate=True)
    pairs = list(itertools.product((2, 4, 8), repeat=2))
    assert all([(c.weight_bits, c.activation_bits) for c in row] == pairs for row in apart.choices.values())


def test_the_widest_of_espcn_costs_what_is_published_of_it() -> None:
    space = widths_of("espcn", 4, 8)
    table = cost_model("bitops").table(space, (32, 32))
    uniform = [cost_model("bitops").architecture_cost(named_architecture("espcn", bits=b)).value for b in (4, 8)]
    assert [sum(f(row) for row in table.values()) for f in (min, max)] == uniform
    assert uniform[1] == pytest.approx(2.4285e9, rel=1e-4)


def test_an_architecture_file_keeps_its_own_scale_and_residual(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    named_architecture("espcn", 2).save(path)
    assert widths_of(path, 4, 8, bicubic=True).wiring == named_architecture("espcn", 2).wiring
    assert widths_of("espcn", 4, 8, bicubic=True, scale=2).wiring.bicubic  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="enlarges by 2, not by 4"):
        widths_of(path, 4, 8, scale=4)
    with pytest.raises(UsageError, match="name it by --fixed"):
        SPACES["fixed"](SpaceOptions())
    with pytest.raises(UsageError, match="no cells to set"):
        widths_of(path, 4, 8, cells=2)


def test_float_weights_have_float_maps_where_widths_are_apart() -> None:
    pairs = {
        (spec.weight_bits, spec.activation_bits)
        for candidates in widths_of("espcn", 4, 8, 32, separate=True).choices.values()
        for spec in candidates
    }
    assert pairs == {(w, a) for w in (4, 8) for a in (4, 8, 32)} | {(32, 32)}


def trained(architecture: Architecture, path: Path) -> nn.Module:
    """A float network whose weights nothing else would start with, and its file."""
    torch.manual_seed(7)
    network = architecture.build(FloatLayers())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.rand_like(tensor))
    save_network(path, NetworkRecord(architecture=architecture), network)
    return network.eval()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["espcn", "quantnas-body3", "trilevel-b"])
def test_a_search_begins_as_the_network_that_was_trained(name: str, mode: Quantization, tmp_path: Path) -> None:
    architecture = named_architecture(name, bits=32)
    network = trained(architecture, tmp_path / "w.safetensors")
    space = widths_of(name, 4, 8, 32)
    supernet = QuantNASSupernet(space, mode)
    supernet.start_from(float_weights(space.first, tmp_path / "w.safetensors"))
    supernet.eval()
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        supernet.choose((2,) * len(space.choices))  # all in float
        torch.testing.assert_close(supernet(x), network(x), atol=1e-5, rtol=1e-4)
        supernet.choose(None)
        if mode == "noise":  # in evaluation there is none
            torch.testing.assert_close(supernet(x), network(x), atol=1e-5, rtol=1e-4)
        else:
            assert (supernet(x) - network(x)).abs().max() > 1e-4, "it is rounded"
    state = network.state_dict()
    copies = [m for m in supernet.modules() if isinstance(m, SearchConvolution | nn.Conv2d)]
    kernels = [tensor for tensor in state.values() if tensor.dim() == 4]
    assert len(copies) == len(kernels) * (3 if mode == "independent" else 1)
    assert all(any(torch.equal(copy.weight, kernel) for kernel in kernels) for copy in copies), "in every copy"


def test_a_search_starts_from_the_weights(tmp_path: Path) -> None:
    path, space = tmp_path / "w.safetensors", widths_of("espcn", 4, 8, scale=2)
    network = trained(named_architecture("espcn", 2), path)
    first = next(tensor for tensor in network.state_dict().values() if tensor.dim() == 4)

    for weights in (path, None):
        step = search(tmp_path / f"{weights is None}", space, weights=weights, epochs=1, steps_per_epoch=1).of(
            "weights"
        )[0]
        assert any(torch.equal(value, first) for value in step.values) == (weights is not None)


def test_weights_of_another_network_are_refused_and_so_are_those_of_no_network(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    trained(named_architecture("espcn", bits=32), path)
    settings = QuantNASSettings(weights=path)
    QuantNAS().check(widths_of("espcn", 4, 8), (), settings)
    plain = "without the bicubic enlargement"
    for other, called in (
        (widths_of("srresnet", 4, 8), f"srresnet x4 {plain}"),
        (widths_of("espcn", 4, 8, scale=2), f"espcn x2 {plain}"),
        (SPACES["fixed"](SpaceOptions(fixed="espcn", bicubic=True)), "espcn x4 with the bicubic enlargement"),
    ):
        with pytest.raises(HwnasError, match=f"is of espcn-32bit x4 {plain}, and not of {called}; name weights"):
            QuantNAS().check(other, (), settings)
    with pytest.raises(UsageError, match="--weights are of a network; name it by --fixed"):
        QuantNAS().check(SPACES["quantnas"](SpaceOptions()), (), settings)
    with pytest.raises(UsageError, match="there is no file"):
        QuantNAS().check(widths_of("espcn", 4, 8), (), QuantNASSettings(weights=tmp_path / "none"))


def test_weights_from_elsewhere_are_of_a_network_that_makes_the_whole_image(tmp_path: Path) -> None:
    path, plain = tmp_path / "w.safetensors", named_architecture("espcn", bits=32).build(FloatLayers())
    save_file({name.replace(".convolutions.0", ""): tensor for name, tensor in plain.state_dict().items()}, path)
    assert float_weights(named_architecture("espcn", bits=8), path).keys() == plain.state_dict().keys()
    with pytest.raises(HwnasError, match="makes the whole image, and espcn here adds to the bicubic.*--no-bicubic"):
        float_weights(named_architecture("espcn", bicubic=True), path)
    # As several GPUs leave our own tensors, and without what says whose they are.
    bare = {f"module.{name.removeprefix('network.')}": tensor for name, tensor in plain.state_dict().items()}
    save_file(bare, path)
    assert float_weights(named_architecture("espcn", bits=8), path).keys() == plain.state_dict().keys()
    save_file({"conv1.weight": torch.zeros(3), "conv1.bias": torch.zeros(3)}, path)
    with pytest.raises(
        HwnasError, match=r"of espcn x4: it has no tensor 0\.weight, its first are conv1\.bias, conv1\.w"
    ):
        QuantNAS().check(widths_of("espcn", 4, 8), (), QuantNASSettings(weights=path))


def test_weights_that_were_trained_in_few_bits_are_taken_without_their_quantisers(tmp_path: Path) -> None:
    architecture, path = named_architecture("espcn", 2, 8), tmp_path / "w.safetensors"
    record = NetworkRecord(architecture=architecture)
    network = record.build()
    save_network(path, record, network)
    found = float_weights(architecture, path)
    assert set(found) == set(architecture.with_bits(32).build(FloatLayers()).state_dict())
    assert all(torch.equal(found[name], network.state_dict()[name]) for name in found)


APART = [conv(3, w).with_bits(w, a) for w, a in itertools.product((2, 4), (4, 8))]


def test_weights_and_maps_take_the_distributions_of_their_own_widths() -> None:
    torch.manual_seed(0)
    mixed = MixedOperator(APART, "shared", NoiseSource())
    mixed.probabilities = p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    (layer,) = [m for m in mixed.modules() if isinstance(m, SearchConvolution)]
    x, w = torch.randn(2, 6, 5, 5), layer.weight.detach()
    weight = sum(
        share * lsq_quantise(w, lsq_initial_step(w, bits), bits) for share, bits in ((p[0] + p[1], 2), (p[2] + p[3], 4))
    )
    image = sum(share * hwgq_quantise(x, bits) for share, bits in ((p[0] + p[2], 4), (p[1] + p[3], 8)))
    with torch.no_grad():
        torch.testing.assert_close(mixed(x), functional.conv2d(image, weight, padding=1))  # type: ignore[call-overload]
    # Moving all probability between the widths of maps leaves those of weights alone.
    mixed.probabilities = torch.tensor([0.3, 0.0, 0.7, 0.0], requires_grad=True)
    mixed(x).sum().backward()
    assert mixed.probabilities.grad is not None and mixed.probabilities.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("merge", [True, False])
def test_a_candidate_of_two_widths_is_computed_in_both(mode: Quantization, merge: bool) -> None:
    torch.manual_seed(0)
    mixed = MixedOperator(APART, mode, NoiseSource(), merge).eval()
    x = torch.rand(1, 6, 7, 7)
    layers = [m for m in mixed.modules() if isinstance(m, SearchConvolution)]
    assert len(layers) == (4 if mode == "independent" else 1)
    mixed.set_rounding(True)
    for i, spec in enumerate(APART):
        mixed.choice = i
        weight = layers[i if mode == "independent" else 0].weight.detach()
        if mode == "noise":
            spread = (weight.flatten(1).amax(1) - weight.flatten(1).amin(1)).view(-1, 1, 1, 1)
            step_w, step_x = spread / (2**spec.weight_bits - 1), x.max() / (2**spec.activation_bits - 1)
            weight, image = (weight / step_w).round() * step_w, (x / step_x).round() * step_x
        else:
            weight = lsq_quantise(weight, lsq_initial_step(weight, spec.weight_bits), spec.weight_bits)
            image = hwgq_quantise(x, spec.activation_bits)
        with torch.no_grad():
            torch.testing.assert_close(mixed(x), functional.conv2d(image, weight, padding=1), atol=1e-5, rtol=1e-4)


def test_in_noise_both_widths_add_theirs() -> None:
    """One 1x1 convolution of one channel, its map without noise: the variance is that of the weights' mixture."""
    torch.manual_seed(0)
    spec = conv(1, 4).model_copy(update={"out_channels": 1})
    mixed = MixedOperator([spec.with_bits(2, 32), spec.with_bits(4, 32)], "noise", NoiseSource())
    mixed.probabilities = torch.tensor([0.25, 0.75])
    x, n = torch.rand(1, 6, 2, 2), 6000
    weight = next(iter(mixed.parameters())).detach().flatten().double()
    step = float(weight.max() - weight.min()) * (0.25 / 3 + 0.75 / 15) / 2
    with torch.no_grad():
        outs = torch.stack([mixed(x).flatten() for _ in range(n)]).double()
    expected = step**2 * x.double().square().sum(1).flatten()
    assert ((outs.var(0) / expected - 1).abs() < 5 * (2 / n) ** 0.5).all()


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_search_changes_widths_alone_and_meets_its_budget(mode: Quantization, separate: bool, tmp_path: Path) -> None:
    space = widths_of("espcn", 2, 4, 8, scale=2, bicubic=True, separate=separate)
    limit = 0.9 * cost_model("bitops").architecture_cost(named_architecture("espcn", 2, 4), (8, 8)).value
    trained(space.first.with_bits(32), tmp_path / "w.safetensors")
    found = search(
        tmp_path / "run",
        space,
        (Budget("bitops", limit, (8, 8)),),
        quantization=mode,
        weights=tmp_path / "w.safetensors",
    ).result
    assert cost_model("bitops").architecture_cost(found.chosen, (8, 8)).value <= limit
    for candidate in found.front:
        twin = candidate.architecture.with_bits(32)
        assert twin.fingerprint == named_architecture("espcn", 2, 32, bicubic=True).fingerprint
    assert space.choice_of(found.chosen) is not None


def test_widths_of_weights_and_activations_are_independent_and_cost_their_product() -> None:
    space = widths_of("espcn", 2, 4, 8, separate=True)
    supernet = QuantNASSupernet(space, "shared")
    for alpha in supernet.alphas:
        torch.nn.init.normal_(alpha)
    relaxed = {layer: p.detach() for layer, p in supernet.relaxed().items()}
    bits, expected = torch.tensor([2.0, 4.0, 8.0], dtype=torch.double), 0.0
    flops = cost_model("flops").table(space, (32, 32))
    for layer, p in relaxed.items():
        joint = p.double().view(3, 3)
        weights, activations = joint.sum(1), joint.sum(0)
        torch.testing.assert_close(joint, torch.outer(weights, activations), rtol=1e-5, atol=0)
        expected += float(weights @ bits * (activations @ bits)) * flops[layer][0]
    assert LayerwiseCost.of(space, Budget("bitops", 1e9, (32, 32))).value(relaxed) == pytest.approx(expected, rel=1e-5)


def test_a_table_is_built_of_the_same_network() -> None:
    from hwnas.latency.cost import build_command

    space = widths_of("srresnet", 4, 8, bicubic=True)
    assert build_command("cpu", space, (90, 160)) == (
        "hwnas table build --target cpu --input-size 90x160 --scale 4 --bits 4,8 --fixed srresnet --bicubic"
    )
    assert build_command("cpu", widths_of("espcn", 8, 2, separate=True), (90, 160)).endswith(
        "--bits 2,8 --fixed espcn --no-bicubic --separate"
    )
    assert space.has_same_networks(space.model_copy(update={"fixed": "elsewhere.json"}))
    assert not space.has_same_networks(widths_of("srresnet", 4, 8))
    choice = tuple(random.Random(0).choices(range(2), k=len(space.choices)))
    assert space.choice_of(space.chosen(choice)) == choice
