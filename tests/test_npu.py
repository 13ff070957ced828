"""What neural processors get computes what the network computes."""

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import HwnasError
from hwnas.networks.adadm import freeze_normalisation
from hwnas.networks.bicubic import bicubic
from hwnas.networks.npu import BicubicChannelLast, ChannelLastShuffle, colours_last, for_neural_processors
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import SPACES, SpaceOptions, named_architecture


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("colours", [1, 3, 16])
def test_the_shuffle_is_torchs_with_the_channels_in_another_order(scale: int, colours: int) -> None:
    x = torch.randn(1, colours * scale**2, 5, 7)
    found = ChannelLastShuffle(scale)(x[:, colours_last(x.shape[1], scale)])
    assert torch.equal(found, functional.pixel_shuffle(x, scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_enlargement_is_bicubic_to_the_border(scale: int) -> None:
    x = torch.rand(1, 3, 9, 13)
    torch.testing.assert_close(BicubicChannelLast(scale)(x), bicubic(x, scale), atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_found_networks_compute_the_same(seed: int, scale: int) -> None:
    """With grouped convolutions before the shuffle among them."""
    torch.manual_seed(seed)
    residual = "adadm" if seed > 1 else "add"
    options = SpaceOptions(channels=12, cells=1, scale=scale, bicubic=bool(seed % 2), residual=residual)
    network = SPACES["quantnas-float"](options).sample(random.Random(seed)).build(FloatLayers())
    network(torch.rand(2, 3, 12, 12))
    freeze_normalisation(network)
    x = torch.rand(1, 3, 10, 14)
    before = {name: tensor.clone() for name, tensor in network.eval().state_dict().items()}
    converted = for_neural_processors(network)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), network(x), atol=1e-5, rtol=0)
    assert not any(isinstance(module, nn.PixelShuffle) for module in converted.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["espcn", "srresnet"])
def test_published_networks_compute_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = named_architecture(name, 4, 32, True).build(FloatLayers()).eval()
    x = torch.rand(1, 3, 8, 6)
    with torch.no_grad():
        torch.testing.assert_close(for_neural_processors(network)(x), network(x), atol=1e-5, rtol=0)


def test_a_grouped_convolution_before_the_shuffle_becomes_a_dense_one() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 24, 3, padding=1, groups=3), nn.Identity(), nn.PixelShuffle(2))
    x = torch.rand(1, 6, 5, 5)
    torch.testing.assert_close(for_neural_processors(network)(x), network(x))


def test_a_shuffle_of_something_else_is_refused() -> None:
    with pytest.raises(HwnasError, match="no convolution makes what 1 shuffles"):
        for_neural_processors(nn.Sequential(nn.ReLU(), nn.PixelShuffle(2)))


class _ReadTwice(nn.Module):
    """A convolution whose map is shuffled, and read besides; in one of two ways."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(12, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.twice = twice

    def forward(self, x: Tensor) -> Tensor:
        made = self.convolution(x)
        if self.twice:
            made = self.convolution(made)
            return self.shuffle(made)
        return self.shuffle(made) + made.mean(1, keepdim=True).repeat(1, 1, 2, 2) * made[:, :1].mean()


@pytest.mark.parametrize("twice", [False, True])
def test_others_read_the_channels_in_their_own_order(twice: bool) -> None:
    torch.manual_seed(0)
    network, x = _ReadTwice(twice), torch.rand(1, 12, 5, 5)
    torch.testing.assert_close(for_neural_processors(network)(x), network(x))
