"""The block of ECBSR against the convolutions that its paper draws, computed one after the other on maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.architecture import Architecture
from hwnas.checkpoints import NetworkRecord, load_network, save_network
from hwnas.operators import OperatorSpec, build_operator
from hwnas.operators.edge_oriented import Branches, expand, merged_state
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import build_quantised
from hwnas.spaces import named_architecture

SOBEL_X = [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]
SOBEL_Y = [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]
LAPLACIAN = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]


def spec(**fields: object) -> OperatorSpec:
    return OperatorSpec.model_validate({"kind": "edge_oriented", "in_channels": 3, "out_channels": 5} | fields)


def test_it_computes_the_sum_of_its_branches_to_the_border() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3)
    branches, x = Branches(weight), torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        branches.squeeze.normal_()
        branches.scale.normal_()
    expected = functional.conv2d(x, weight, padding=1)
    between = functional.conv2d(x, branches.expand[:, :, None, None])
    expected = expected + functional.conv2d(between, branches.squeeze, padding=1) / between.shape[1]
    for mask, pointwise, scale in zip((SOBEL_X, SOBEL_Y, LAPLACIAN), branches.pointwise, branches.scale, strict=True):
        of_channel = torch.tensor(mask) * scale[:, None, None, None]
        made = functional.conv2d(x, pointwise[:, :, None, None])
        expected = expected + functional.conv2d(made, of_channel, padding=1, groups=5)
    assert torch.allclose(functional.conv2d(x, branches(weight), padding=1), expected, atol=1e-4)


def perturbed(network: nn.Module) -> None:
    """Everything that can be learned, moved."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter).abs())


def built(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    if not architecture.is_quantised:
        return architecture.build(FloatLayers())
    network = build_quantised(architecture, collect_steps=1).train()
    network(torch.rand(1, 3, 12, 12))
    return network


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_trained_with_branches_it_is_kept_without(tmp_path, bits: int) -> None:  # type: ignore[no-untyped-def]
    architecture = named_architecture("ecbsr", 2, bits, bicubic=True)
    network, x = built(architecture), torch.rand(1, 3, 10, 12)
    plain = {name: tensor.shape for name, tensor in network.state_dict().items()}
    before = network.eval()(x)
    expand(network)
    count = sum(isinstance(module, Branches) for module in network.modules())
    assert count == 6
    # The masks begin at a thousandth; a step of quantisation is more.
    assert torch.allclose(network(x), before, atol=1e-3 if bits == 32 else 0.05)
    perturbed(network)
    after: Tensor = network(x)
    assert not torch.allclose(after, before, atol=1e-3)
    assert {name: tensor.shape for name, tensor in merged_state(network).items()} == plain
    path = tmp_path / "network.safetensors"
    save_network(path, NetworkRecord(architecture=architecture), network)
    assert torch.allclose(load_network(path)[1](x), after, atol=1e-5)


def test_every_branch_learns() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(build_operator(spec(bias=True), FloatLayers()))
    expand(network)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    x = torch.rand(2, 3, 8, 8)
    for _ in range(2):  # what is behind a kernel of zeros learns from the second step on
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()
    assert len(list(network.parameters())) == 6
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_a_network_of_other_operators_stays_as_it_is() -> None:
    network = named_architecture("espcn").build(FloatLayers())
    before = network.state_dict()
    expand(network)
    state = merged_state(network)
    assert state.keys() == before.keys() and all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("fields", [{"kernel": 5}, {"hidden": 4}, {"in_channels": 6, "out_channels": 6, "groups": 3}])
def test_what_it_has_not_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="'edge_oriented' is a 3x3 convolution"):
        build_operator(spec(**fields), FloatLayers())
