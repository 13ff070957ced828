"""The supernet's convolution is torch's, gradients included, in either memory layout."""

import pytest
import torch
from torch.nn import functional

from hwnas.searches.quantnas.convolve import convolve


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [(5, 5), (3, 3), (1, 5), (1, 1)])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(36, 3, 1), (6, 3, 3), (3, 36, 1)])
def test_output_and_gradients_are_those_of_conv2d(
    layout: torch.memory_format, kernel: tuple[int, int], inputs: int, outputs: int, groups: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, inputs, 9, 11).to(memory_format=layout).requires_grad_()
    weight = torch.randn(outputs, inputs // groups, *kernel, requires_grad=True)
    reference = functional.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2), groups=groups)
    grad = torch.randn_like(reference)
    out = convolve(x, weight, None, groups)
    torch.testing.assert_close(out, reference)
    expected = torch.autograd.grad(reference, (x, weight), grad)
    torch.testing.assert_close(torch.autograd.grad(out, (x, weight), grad), expected, rtol=1e-4, atol=1e-4)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: convolve(x, w, None), (x, weight))


def test_a_frozen_map_or_weight_gets_no_gradient() -> None:
    x = torch.randn(1, 6, 5, 4)
    weight = torch.randn(2, 6, 3, 3, requires_grad=True)
    convolve(x, weight, None).sum().backward()
    assert weight.grad is not None and x.grad is None
    frozen = weight.detach()
    convolve(x.requires_grad_(), frozen, None).sum().backward()
    assert x.grad is not None and frozen.grad is None
