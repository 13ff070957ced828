"""AdaDM against its formula, written with numpy's standard deviation and torch's functional batch norm."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.networks import parse_wiring
from hwnas.networks.adadm import AdaDM, Residual, freeze_normalisation, is_data_dependent, residual
from hwnas.networks.wiring import Slot

each_width = pytest.mark.parametrize("channels", [3, 6], ids=["few channels", "many channels"])


def deviation(x: Tensor) -> Tensor:
    """Standard deviation of each sample over channels, height and width, [B, 1, 1, 1]."""
    return torch.tensor([np.std(sample.detach().numpy()) for sample in x]).view(-1, 1, 1, 1)


def of_two_scales(channels: int, seed: int = 0) -> Tensor:
    """Two images of different contrast, away from zero."""
    torch.manual_seed(seed)
    return torch.randn(2, channels, 7, 9) * torch.tensor([0.3, 2.0]).view(2, 1, 1, 1) + 0.5


def layer(channels: int) -> AdaDM:
    """With parameters and statistics that are all different from where they start."""
    torch.manual_seed(1)
    made = AdaDM(channels, nn.Conv2d(channels, channels, 3, padding=1))
    with torch.no_grad():
        made.w.fill_(0.8)
        made.b.fill_(0.3)
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.uniform_(-1, 1)
        buffers = dict(made.norm.named_buffers())
        buffers["running_mean"].uniform_(-1, 1)
        buffers["running_var"].uniform_(0.5, 2)
        made.running_std.fill_(1.7)
    return made


def by_formula(made: AdaDM, x: Tensor, std: Tensor, of_batch: bool) -> Tensor:
    """``x + (w std + b) branch(BN(x))``."""
    norm, buffers = made.norm, dict(made.norm.named_buffers())
    mean, variance = buffers["running_mean"].clone(), buffers["running_var"].clone()
    normalised = functional.batch_norm(x, mean, variance, norm.weight, norm.bias, training=of_batch)
    out: Tensor = x + (made.w * std + made.b) * made.branch(normalised)
    return out


@each_width
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_output_is_that_of_the_formula(channels: int, training: bool) -> None:
    made, x = layer(channels).train(training), of_two_scales(channels)
    expected = by_formula(made, x, deviation(x), of_batch=training)
    assert torch.allclose(made(x), expected, rtol=1e-5, atol=1e-5)


def test_it_starts_with_half_as_much_again_of_the_deviation_and_no_offset() -> None:
    made, x = AdaDM(6, nn.Identity()), of_two_scales(6)
    assert {name: p.item() for name, p in made.named_parameters() if p.dim() == 0} == {"w": 1.5, "b": 0.0}
    expected = x + 1.5 * deviation(x) * functional.batch_norm(x, None, None, training=True)
    assert torch.allclose(made(x), expected, rtol=1e-5, atol=1e-5)


@each_width
def test_the_layout_in_memory_does_not_matter(channels: int) -> None:
    for training in (True, False):
        found = []
        for layout in (torch.contiguous_format, torch.channels_last):
            made = layer(channels).train(training)
            x = of_two_scales(channels).clone(memory_format=layout).requires_grad_()
            out = made(x)
            assert out.is_contiguous(memory_format=layout)
            assert made.norm(x).is_contiguous(memory_format=layout), "the branch is handed the layout that came"
            (gradient,) = torch.autograd.grad(out.square().sum(), x)
            found.append((out, gradient, *made.norm.buffers()))
        for plain, last in zip(*found, strict=True):
            assert torch.allclose(plain.float(), last.float(), rtol=1e-4, atol=1e-4)


@each_width
def test_the_running_deviation_is_an_exponential_mean_of_the_training_batches(channels: int) -> None:
    made, expected = AdaDM(channels, nn.Identity()), 1.0
    for seed in range(5):
        x = of_two_scales(channels, seed)
        expected = 0.9 * expected + 0.1 * float(deviation(x).mean())
        made.train()(x)
        assert float(made.running_std) == pytest.approx(expected, rel=1e-5)
        made.eval()(x * 7)
        assert float(made.running_std) == pytest.approx(expected, rel=1e-5), "evaluation teaches it nothing"
    assert "running_std" in made.state_dict()


def test_a_flat_image_has_a_gradient() -> None:
    made, x = layer(6), torch.full((2, 6, 4, 4), 0.5, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


@each_width
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_frozen_it_uses_what_it_has_learned_of_the_images(channels: int, training: bool) -> None:
    made, x = layer(channels).train(training), of_two_scales(channels)
    freeze_normalisation(made)
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    for _ in range(2):
        expected = by_formula(made, x, torch.tensor(1.7), of_batch=False)
        assert torch.allclose(made(x), expected, rtol=1e-5, atol=1e-5)
        # A training loop changes modes between epochs.
        made.eval(), made.train(training)
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers()), "nothing moves any more"


def test_frozen_it_is_an_affine_map() -> None:
    made, x, y = layer(6).eval(), of_two_scales(6, 1), of_two_scales(6, 2)
    freeze_normalisation(made)
    assert torch.allclose(made(0.3 * x + 0.7 * y), 0.3 * made(x) + 0.7 * made(y), atol=1e-5)
    assert torch.allclose(made(-2 * x + 3 * y), -2 * made(x) + 3 * made(y), atol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_tiles_of_an_image_fit_together_if_it_is_frozen_and_else_they_do_not(frozen: bool) -> None:
    made = layer(6).eval()
    made.branch = nn.Conv2d(6, 6, 1)
    if frozen:
        freeze_normalisation(made)
    assert is_data_dependent(made) != frozen
    x = of_two_scales(6)
    tiles = torch.cat([made(x[..., :4]), made(x[..., 4:])], dim=3)
    assert torch.allclose(tiles, made(x), atol=1e-5) == frozen


def add(kind: str, x: Tensor, out: Tensor) -> Tensor:
    """``(+)`` in training, where it starts; ``out`` is the branch's."""
    if kind in ("original-adadm", "batch-norm"):
        out = functional.batch_norm(out, None, None, training=True)
    return x + (1.5 * deviation(x) if kind.endswith("adadm") else 1) * out


def normalised(kind: str, x: Tensor) -> Tensor:
    return x if kind == "add" else functional.batch_norm(x, None, None, training=True)


every_kind = pytest.mark.parametrize("kind", get_args(Residual))


@pytest.mark.parametrize("bicubic", [True, False], ids=["bicubic", "plain"])
@every_kind
def test_the_network_has_it_in_every_cell_around_the_cells_and_around_the_tail(kind: str, bicubic: bool) -> None:
    torch.manual_seed(0)
    made: dict[str, list[nn.Module]] = {}

    def make(slot: Slot) -> nn.Module:
        convolution = nn.Conv2d(slot.in_channels, slot.out_channels, 3, padding=1)
        made.setdefault(slot.name, []).append(convolution)
        return convolution

    wiring = {"kind": "quantnas", "channels": 6, "cells": 3, "scale": 2, "residual": kind, "bicubic": bicubic}
    network = parse_wiring(wiring).build(make)
    channels = [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sorted(channels) == sorted(([3] + [6] * 4) * {"add": 0, "adadm": 1}.get(kind, 2))

    def ends(name: str, x: Tensor) -> Tensor:
        out: Tensor = made[f"{name}.1"][0](made[f"{name}.0"][0](x))
        return out

    x = of_two_scales(3)
    head = ends("head", x)
    z = normalised(kind, head)
    for body0, body1, skip in zip(made["body.0"], made["body.1"], made["skip"], strict=True):
        inside = normalised(kind, z)
        z = add(kind, z, skip(inside) + body1(body0(inside)))
    z = add(kind, head, z)
    y = functional.pixel_shuffle(made["upsample"][0](z), 2)
    expected = add(kind, y, ends("tail", normalised(kind, y)))
    if bicubic:
        expected = expected / 64 + functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["adadm", "original-adadm"])
def test_what_is_frozen_is_the_whole_network(kind: str) -> None:
    wiring = {"kind": "quantnas", "channels": 6, "cells": 2, "scale": 2, "residual": kind}
    torch.manual_seed(0)
    network = parse_wiring(wiring).build(lambda slot: nn.Conv2d(slot.in_channels, slot.out_channels, 1))
    assert is_data_dependent(network)
    freeze_normalisation(network)
    assert not is_data_dependent(network)
    network.train()
    x = of_two_scales(3)
    # Of convolutions of 1x1 every pixel is a tile of its own.
    assert torch.allclose(network(x)[..., :8, :10], network(x[..., :4, :5]), atol=1e-5)


def test_without_it_a_residual_is_the_sum() -> None:
    x, branch = of_two_scales(6), nn.Conv2d(6, 6, 1)
    plain = residual(6, branch, "add")
    assert torch.equal(plain(x), x + branch(x))
    assert not is_data_dependent(plain)


def test_batch_norm_alone_takes_nothing_of_the_image_itself() -> None:
    """Of 1x1 convolutions every pixel is a tile of its own."""
    torch.manual_seed(0)
    made, x = residual(6, nn.Conv2d(6, 6, 1), "batch-norm").eval(), of_two_scales(6)
    assert not is_data_dependent(made)
    assert torch.allclose(made(x)[..., :4], made(x[..., :4]), atol=1e-6)
