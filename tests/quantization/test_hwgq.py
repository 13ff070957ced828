"""The published steps against the optimum they are said to be."""

import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from hwnas.quantization.hwgq import HWGQ_STEP, hwgq_quantise

# Simpson's rule on a grid finer than any level; the density beyond 12 is below 1e-31.
_X = np.linspace(0, 12, 240_001)
_DENSITY = norm.pdf(_X)


def _squared_error(step: float, bits: int) -> float:
    """Of a ReLU of a standard normal, over its positive half; its zeros cost nothing."""
    levels = np.clip(np.rint(_X / step), 0, 2**bits - 1)
    return float(simpson((_X - levels * step) ** 2 * _DENSITY, x=_X))


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_steps_are_optimal_for_a_half_gaussian(bits: int) -> None:
    published = HWGQ_STEP[bits]
    found = minimize_scalar(
        _squared_error,
        bounds=(0.8 * published, 1.2 * published),
        args=(bits,),
        method="bounded",
        options={"xatol": 1e-6},
    )
    assert found.x == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize("bits", range(2, 9))
def test_values_are_levels_of_the_step(bits: int) -> None:
    torch.manual_seed(bits)
    x = 2 * torch.randn(1000)
    out = hwgq_quantise(x, bits)
    levels = out / HWGQ_STEP[bits]
    torch.testing.assert_close(levels, levels.round())
    assert levels.min() == 0
    assert levels.max().round() == 2**bits - 1
    inside = (x > 0) & (x < (2**bits - 1) * HWGQ_STEP[bits])
    assert (out - x)[inside].abs().max() <= HWGQ_STEP[bits] / 2 + 1e-6


def test_the_gradient_passes_inside_the_range_only() -> None:
    top = 3 * HWGQ_STEP[2]
    x = torch.tensor([-1.0, -1e-4, 0.1, 1.0, top - 1e-3, top + 1e-3, 9.0], requires_grad=True)
    hwgq_quantise(x, 2).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1, 1, 0, 0]
