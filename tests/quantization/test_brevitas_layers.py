"""The derived network's layers against the functional quantisers, and their state against itself."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from brevitas import config
from brevitas.nn import QuantConv2d
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.networks import parse_wiring
from hwnas.operators import FLOAT_BITS, ConvShape, OperatorSpec, build_operator
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import BrevitasLayers, calibrate, quantise_trained, uncalibrated
from hwnas.quantization.hwgq import hwgq_quantise
from hwnas.quantization.lsq import integer_range, lsq_initial_step, lsq_quantise, mse_step
from hwnas.quantization.placement import Placement

BITS = range(2, 9)
COLLECT = 3


def _spec(bits: int = 4, activation_bits: int | None = None, **changes) -> OperatorSpec:
    fields = {"kind": "conv", "in_channels": 4, "out_channels": 6, **changes}
    return OperatorSpec(**fields, weight_bits=bits, activation_bits=activation_bits or bits)


def _convolution(bits: int, **changes) -> QuantConv2d:
    spec = _spec(bits, FLOAT_BITS, **changes)
    return BrevitasLayers(placement=Placement(weight_bits=8)).convolution(
        spec, ConvShape(spec.in_channels, spec.out_channels, (3, 3), spec.groups)
    )


def _step(layer: nn.Module) -> nn.Parameter:
    return next(parameter for name, parameter in layer.named_parameters() if name.endswith("scaling_impl.value"))


def _network(*widths: int, activations="learned", residual="adadm", bias=False, collect_steps=COLLECT) -> nn.Module:
    """A small QuantNAS network, its operators at the given widths in turn, with inputs of both signs."""
    layers = BrevitasLayers(activations, collect_steps)
    width = itertools.cycle(widths)

    def make(slot):
        fields = {"in_channels": slot.in_channels, "out_channels": slot.out_channels, "bias": bias}
        if slot.name == "body.1":
            fields |= {"kind": "separable_conv", "hidden": 6}
        elif slot.name == "body.0":
            fields["groups"] = 3
        signed = slot.name in ("head.0", "tail.0")
        return build_operator(_spec(next(width), **fields, activation="none" if signed else "relu"), layers)

    wiring = {"kind": "quantnas", "channels": 6, "cells": 1, "scale": 2, "residual": residual, "bicubic": True}
    return parse_wiring(wiring).build(make)


def _batch(size: int = 10) -> Tensor:
    return torch.rand(2, 3, size, size)


def _train(network: nn.Module, steps: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        (network(_batch()) - 0.5).abs().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("bits", BITS)
def test_weights_and_their_gradients_are_those_of_lsq(bits: int) -> None:
    torch.manual_seed(bits)
    conv = _convolution(bits, groups=2)
    x = torch.randn(1, 4, 7, 7)
    conv(x)
    with torch.no_grad():
        _step(conv).mul_(torch.linspace(0.3, 1.2, 6).view(-1, 1, 1, 1))
    conv(x).square().sum().backward()

    weight = conv.weight.detach().clone().requires_grad_()
    step = _step(conv).detach().clone().flatten().requires_grad_()
    quantised = lsq_quantise(weight, step, bits)
    nn.functional.conv2d(x, quantised, padding=1, groups=2).square().sum().backward()
    torch.testing.assert_close(conv.quant_weight().value, quantised, atol=1e-6, rtol=0)
    torch.testing.assert_close(conv.weight.grad, weight.grad)
    torch.testing.assert_close(_step(conv).grad.flatten(), step.grad)


def test_steps_start_from_the_weights_of_the_first_forward() -> None:
    torch.manual_seed(0)
    conv = _convolution(4)
    nn.init.normal_(conv.weight, std=3)
    conv(torch.randn(1, 4, 5, 5))
    expected = lsq_initial_step(conv.weight, 4)
    torch.testing.assert_close(_step(conv).flatten(), expected)
    nn.init.normal_(conv.weight, std=30)
    conv(torch.randn(1, 4, 5, 5))
    torch.testing.assert_close(_step(conv).flatten(), expected)


@pytest.mark.parametrize("bits", BITS)
def test_hwgq_activations_are_those_of_the_function(bits: int) -> None:
    torch.manual_seed(bits)
    layer = BrevitasLayers("hwgq").activation(_spec(bits))
    x = 2 * torch.randn(2, 4, 8, 8)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outs = [layer(inputs[0]), hwgq_quantise(inputs[1], bits)]
    for out in outs:
        out.square().sum().backward()
    assert torch.equal(*outs)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert not list(layer.parameters())


@pytest.mark.parametrize("activations", ["learned", "hwgq"])
def test_a_map_that_may_be_negative_keeps_its_sign(activations: str) -> None:
    torch.manual_seed(0)
    layer = BrevitasLayers(activations, COLLECT).activation(_spec(8, activation="none"))
    x = torch.randn(2, 4, 8, 8)
    assert (layer(x) - x).abs().max() < 0.05
    assert _step(layer).shape == ()


def test_a_learned_activation_starts_from_the_mean_of_its_first_batches_and_then_learns() -> None:
    torch.manual_seed(0)
    layer = BrevitasLayers(collect_steps=COLLECT).activation(_spec(4))
    batches = [scale * torch.randn(1, 4, 6, 6) for scale in (1, 2, 3)]
    for batch in batches:
        layer(batch.requires_grad_()).sum().backward()
        assert _step(layer).grad is None
    best = [mse_step(batch.detach().relu().view(1, -1), *integer_range(4, signed=False)) for batch in batches]
    torch.testing.assert_close(_step(layer).detach(), torch.cat(best).mean())
    layer(batches[0]).sum().backward()
    assert _step(layer).grad != 0


def test_32_bits_are_plain_torch_layers() -> None:
    layers, spec = BrevitasLayers(), _spec(FLOAT_BITS)
    assert type(layers.activation(spec)) is nn.ReLU
    assert type(layers.convolution(spec, ConvShape(4, 6, (3, 3)))) is nn.Conv2d


@pytest.mark.parametrize("activations", ["learned", "hwgq"])
@pytest.mark.parametrize("bits", BITS)
def test_every_width_trains(bits: int, activations: str) -> None:
    torch.manual_seed(bits)
    network = _network(bits, activations=activations, bias=bits % 2 == 0, collect_steps=1)
    before = [parameter.clone() for parameter in network.parameters()]
    _train(network, 2)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("steps", [0, 1, COLLECT, COLLECT + 2])
@pytest.mark.parametrize("activations", ["learned", "hwgq"])
def test_a_saved_network_comes_back_bit_for_bit(tmp_path: Path, steps: int, activations: str) -> None:
    torch.manual_seed(0)
    network = _network(4, 8, FLOAT_BITS, activations=activations, bias=True)
    _train(network, steps)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    twin = _network(4, 8, FLOAT_BITS, activations=activations, bias=True)
    twin.load_state_dict(load_file(tmp_path / "network.safetensors"), strict=True)
    x = _batch(14)
    assert torch.equal(network.eval()(x), twin.eval()(x))


def test_a_training_resumed_while_it_collects_goes_on_as_if_never_stopped() -> None:
    torch.manual_seed(0)
    network = _network(4, 8)
    _train(network, 1)
    resumed = _network(4, 8)
    resumed.load_state_dict(network.state_dict())
    for copied in (network, resumed):
        torch.manual_seed(1)
        _train(copied, COLLECT)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), resumed.parameters(), strict=True))


def test_loading_keeps_the_parameters_an_optimiser_holds() -> None:
    torch.manual_seed(0)
    network = _network(4)
    held = [id(parameter) for parameter in network.parameters()]
    network.load_state_dict(_network(4).state_dict())
    assert [id(parameter) for parameter in network.parameters()] == held
    assert config.REINIT_ON_STATE_DICT_LOAD, "brevitas' own behaviour is left as it was for others"


def test_a_deep_copy_shares_nothing() -> None:
    torch.manual_seed(0)
    network = _network(4)
    _train(network, COLLECT + 1)
    twin = copy.deepcopy(network)
    twin.load_state_dict(network.state_dict())
    before = network.eval()(x := _batch())
    _train(twin, 2)
    assert torch.equal(network(x), before)
    assert not torch.equal(twin.eval()(x), before)


def test_calibration_changes_the_activation_steps_only() -> None:
    torch.manual_seed(0)
    network = _network(8)
    assert len(uncalibrated(network)) == 9
    network(_batch())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    calibrate(network, [_batch(), _batch()])
    assert not uncalibrated(network)
    assert not any(module.training for module in network.modules())
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("act_quant" in name for name in changed)


def _trained_float_network(spec: OperatorSpec, layers: int = 4) -> list[OperatorSpec]:
    middle = spec.model_copy(update={"in_channels": 16, "out_channels": 16, "activation": "relu"})
    first = middle.model_copy(update={"in_channels": 3, "activation": "none"})
    return [first, *[middle] * (layers - 2), middle.model_copy(update={"out_channels": 3})]


def _ptq_error(bits: int) -> float:
    """Relative RMS error of the output of a random network after quantisation without training."""
    torch.manual_seed(0)
    specs = _trained_float_network(_spec(FLOAT_BITS, bias=True))
    original = nn.Sequential(*(build_operator(spec, FloatLayers()) for spec in specs)).eval()
    quantised = nn.Sequential(*(build_operator(spec.with_bits(bits), BrevitasLayers()) for spec in specs))
    quantise_trained(original.state_dict(), quantised, [torch.rand(2, 3, 24, 24) for _ in range(4)])
    assert not quantised.training
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected, found = original(x), quantised(x)
    return float((found - expected).square().mean().sqrt() / expected.std())


def test_quantising_without_training_costs_little_at_8_bits_and_more_below() -> None:
    errors = {bits: _ptq_error(bits) for bits in (4, 6, 8)}
    assert errors[8] < 0.03
    assert errors[8] < errors[6] < errors[4]


def test_layers_that_were_trained_quantised_keep_their_steps() -> None:
    specs = _trained_float_network(_spec(FLOAT_BITS, bias=True))
    torch.manual_seed(0)
    partly = nn.Sequential(
        *(build_operator(s.with_bits(4) if i == 0 else s, BrevitasLayers()) for i, s in enumerate(specs))
    )
    calibrate(partly, [torch.rand(2, 3, 24, 24)])
    with torch.no_grad():
        for name, parameter in partly.named_parameters():
            if "scaling_impl" in name:
                parameter.mul_(1.3)
    trained = {key: value.clone() for key, value in partly.state_dict().items()}
    whole = nn.Sequential(
        *(build_operator(s.with_bits(4 if i == 0 else 8), BrevitasLayers()) for i, s in enumerate(specs))
    )
    quantise_trained(trained, whole, [torch.rand(2, 3, 24, 24)])
    assert uncalibrated(whole) == []
    state = whole.state_dict()
    assert any("scaling_impl" in key for key in trained)
    assert all(torch.equal(state[key], value) for key, value in trained.items())


def test_quantising_the_weights_of_another_architecture_says_so() -> None:
    state = _network(FLOAT_BITS, residual="add").state_dict()
    with pytest.raises(HwnasError, match="differ in"):
        quantise_trained(state, _network(8, residual="adadm"), [_batch()])
    state["head.0.convolutions.0.weight"] = torch.zeros(1, 1, 1, 1)
    with pytest.raises(HwnasError, match="another architecture"):
        quantise_trained(state, _network(8, residual="add"), [_batch()])


def test_calibration_without_images_says_so() -> None:
    with pytest.raises(HwnasError, match="at least one batch"):
        calibrate(_network(8), [])
