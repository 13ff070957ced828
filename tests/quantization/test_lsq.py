"""Against the equations of the LSQ paper, written out value by value."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hwnas.quantization.lsq import (
    MIN_STEP,
    ZERO_STEP,
    WeightStep,
    fake_quantise,
    integer_range,
    lsq_initial_step,
    lsq_quantise,
    mse_step,
    positive_step,
)

BITS = range(2, 9)


def _paper(weight: float, step: float, bits: int) -> tuple[float, float, float]:
    """Quantised value, gradient to the weight, gradient to the step (unscaled): equations 1 to 3 and 5."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    ratio = weight / step
    if ratio <= low:
        return low * step, 0.0, low
    if ratio >= high:
        return high * step, 0.0, high
    return round(ratio) * step, 1.0, round(ratio) - ratio


@pytest.mark.parametrize("bits", BITS)
def test_values_and_gradients_are_the_papers(bits: int) -> None:
    torch.manual_seed(bits)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    # Small enough that both ends of the range are exceeded.
    step = (lsq_initial_step(weight, bits).detach() * torch.linspace(0.2, 1, 5)).requires_grad_()
    upstream = torch.randn_like(weight)
    out = lsq_quantise(weight, step, bits)
    out.backward(upstream)

    scale = 1 / math.sqrt((2 ** (bits - 1) - 1) * weight.numel())
    for channel in range(5):
        expected = [_paper(w, step[channel].item(), bits) for w in weight[channel].flatten().tolist()]
        value, to_weight, to_step = torch.tensor(expected, dtype=torch.float64).T
        g = upstream[channel].flatten()
        torch.testing.assert_close(out[channel].flatten(), value)
        torch.testing.assert_close(weight.grad[channel].flatten(), g * to_weight)
        torch.testing.assert_close(step.grad[channel], (g * to_step).sum() * scale)


def test_the_range_of_two_bits() -> None:
    assert integer_range(2, signed=True) == (-2, 1)
    assert integer_range(2, signed=False) == (0, 3)


@pytest.mark.parametrize("bits", BITS)
def test_the_initial_step_of_known_weights(bits: int) -> None:
    weight = torch.stack([torch.full((2, 3, 3), 0.5), torch.full((2, 3, 3), -2.0)])
    expected = torch.tensor([1.0, 4.0]) / math.sqrt(2 ** (bits - 1) - 1)
    torch.testing.assert_close(lsq_initial_step(weight, bits), expected)


def test_a_channel_of_zeros_gives_no_nan() -> None:
    weight = torch.zeros(2, 1, 1, 1, requires_grad=True)
    step = lsq_initial_step(weight, 4).requires_grad_()
    out = lsq_quantise(weight, step, 4)
    out.sum().backward()
    assert (step >= MIN_STEP).all()
    for tensor in (out, weight.grad, step.grad):
        assert tensor.isfinite().all()


def test_a_step_that_went_through_zero_counts_by_its_size_and_can_come_back() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 9)
    steps = [WeightStep(weight, 3) for _ in range(2)]
    for step, value in zip(steps, (0.1, -0.1), strict=True):
        step.start(torch.tensor([value]))
    outs = [lsq_quantise(weight, step(weight), 3) for step in steps]
    for out in outs:
        (out - weight).square().sum().backward()
    assert torch.equal(*outs)
    assert steps[0].value.grad == -steps[1].value.grad != 0
    assert positive_step(torch.tensor(0.0)) == MIN_STEP


def test_one_step_may_serve_a_whole_map() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    step = torch.tensor(0.1, requires_grad=True)
    out = fake_quantise(x, step, 0, 3)
    out.sum().backward()
    assert torch.isin(out, step.detach() * torch.arange(4)).all()
    ratio = (x / step).detach()
    slope = torch.where(ratio < 3, ratio.round() - ratio, 3.0)
    torch.testing.assert_close(step.grad, slope.sum())


@given(bits=st.sampled_from(list(BITS)), signed=st.booleans(), seed=st.integers(0, 10_000))
def test_quantised_values_are_their_own_quantisation(bits: int, signed: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, generator=generator)
    step = torch.rand((), generator=generator) + 0.01
    once = fake_quantise(x, step, *integer_range(bits, signed))
    assert torch.equal(fake_quantise(once, step, *integer_range(bits, signed)), once)


def _error(values: Tensor, step: Tensor, bits: int) -> Tensor:
    return (fake_quantise(values, step[:, None], *integer_range(bits, signed=True)) - values).square().sum(1)


@pytest.mark.parametrize("bits", BITS)
def test_the_mse_step_beats_the_one_that_clips_nothing(bits: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(8, 400)
    low, high = integer_range(bits, signed=True)
    largest = values.abs().amax(1) / high
    best = _error(values, mse_step(values, low, high), bits)
    assert (best <= _error(values, largest, bits)).all()
    if bits <= 4:
        assert best.sum() < 0.7 * _error(values, largest, bits).sum()


def test_the_mse_step_of_rows_with_nothing_in_them() -> None:
    assert mse_step(torch.zeros(2, 5), -8, 7).tolist() == pytest.approx([ZERO_STEP] * 2)
