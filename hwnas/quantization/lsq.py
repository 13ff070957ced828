"""Learned step size quantisation (LSQ): uniform quantisers whose step is trained with the weights.

Source: Esser et al., "Learned step size quantization" (ICLR 2020), equations 1 to 5 and section 2.2; QuantNAS
uses it for weights, with one step for each output channel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

MIN_STEP = 1e-6
"""Smallest step: keeps a channel of zeros from dividing by zero, and its bias, counted in steps of the map times those
of the weight, within 32 bits. It is far below any step that matters."""

ZERO_STEP = 1e-2
"""The step of nothing but zeros. Any would do for them, but biases are counted in it: integers of 2^22 are too large
for floats to tell apart, and Brevitas refuses to export them."""

MSE_CANDIDATES = 32


def integer_range(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer of a width: -2^(b-1), 2^(b-1) - 1 if signed, 0, 2^b - 1 if not."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def positive_step(step: Tensor) -> Tensor:
    """The step a learned parameter stands for.

    An optimiser may carry a small step through zero. The absolute value reflects it, with a gradient on both
    sides; a clamp alone would stop the gradient, and the step would stay at the bound for good.
    """
    return step.abs().clamp_min(MIN_STEP)


class _FakeQuantise(torch.autograd.Function):
    """One node in place of five: the backward needs the input and the step, not the intermediate maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.low, ctx.high, ctx.gradient_scale = low, high, gradient_scale
        return torch.div(x, step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # type: ignore[override]
        x, step = ctx.saved_tensors
        ratio = x / step

        def inside(values: Tensor) -> Tensor:
            """The values where the ratio is inside the range, and zero elsewhere; in one pass, without a mask."""
            kept: Tensor = torch.ops.aten.hardtanh_backward(values, ratio, ctx.low, ctx.high)
            return kept

        grad_x = inside(grad) if ctx.needs_input_grad[0] else None
        grad_step = None
        if ctx.needs_input_grad[1]:
            # Equation 3: the clamp turns the rounded ratio into a bound wherever the ratio is outside.
            slope = ratio.round().clamp_(ctx.low, ctx.high).sub_(inside(ratio))
            grad_step = slope.mul_(grad).sum_to_size(step.shape) * ctx.gradient_scale
        return grad_x, grad_step, None, None, None


def fake_quantise(x: Tensor, step: Tensor, low: int, high: int, gradient_scale: float = 1.0) -> Tensor:
    """``step * clamp(round(x / step), low, high)`` with LSQ's gradients.

    The gradient of ``x`` passes inside the range and is zero outside; that of ``step`` is equation 3.

    Args:
        x: any shape.
        step: positive; of a shape that broadcasts to ``x``'s without changing it.
        low: smallest integer.
        high: largest integer.
        gradient_scale: factor on the gradient of ``step``.
    """
    out: Tensor = _FakeQuantise.apply(x, step, low, high, gradient_scale)
    return out


def lsq_initial_step(weight: Tensor, bits: int) -> Tensor:
    """The step training starts with: ``2 * mean|w| / sqrt(Qp)`` of each output channel.

    Args:
        weight: [out_channels, ...].
        bits: width, 2..8.

    Returns:
        [out_channels], positive even where all weights are zero.
    """
    _, high = integer_range(bits, signed=True)
    mean = weight.detach().abs().flatten(1).mean(1)
    return _step_of(2 * mean / math.sqrt(high))


def _step_of(step: Tensor) -> Tensor:
    return torch.where(step > 0, step.clamp_min(MIN_STEP), ZERO_STEP)


def lsq_gradient_scale(weight: Tensor, high: int) -> float:
    """``1 / sqrt(Qp * N)``, so that steps learn about as fast as weights; N is all weights of the layer.

    QuantNAS takes it over from steps per layer to steps per channel as it is. Adam does not see the difference.
    """
    return 1 / math.sqrt(high * weight.numel())


def lsq_quantise(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Weights rounded to multiples of a learned step, signed, with the gradients of the paper.

    Args:
        weight: [out_channels, ...].
        step: one for each output channel, positive; see `WeightStep`.
        bits: width, 2..8.

    Returns:
        The quantised weights in the shape and scale of ``weight``.
    """
    low, high = integer_range(bits, signed=True)
    per_channel = step.view(-1, *[1] * (weight.dim() - 1))
    return fake_quantise(weight, per_channel, low, high, lsq_gradient_scale(weight, high))


class WeightStep(nn.Module):
    """The learned steps of a convolution, one per output channel, started by LSQ's rule in the first forward.

    ``value`` is zero until then, so that weights may still be loaded or initialised; zero is no step, and a
    state saved that early comes back as not started.

    Args:
        weight: the weights, [out_channels, ...].
        bits: width, 2..8.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.started = False
        self.value = nn.Parameter(weight.new_zeros(weight.shape[0], *[1] * (weight.dim() - 1)))

    @torch.no_grad()
    def start(self, steps: Tensor) -> None:
        """Set the steps, [out_channels]."""
        self.value.copy_(steps.view_as(self.value))
        self.started = True

    def forward(self, weight: Tensor) -> Tensor:
        if not self.started:
            self.start(lsq_initial_step(weight, self.bits))
        return positive_step(self.value)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.started = bool(self.value.any())


@torch.no_grad()
def mse_step(values: Tensor, low: int, high: int) -> Tensor:
    """The step with the least squared rounding error, for quantising without training.

    A scan downwards from the step at which nothing is clipped. Few bits gain most: clipping the rare large
    values buys resolution for all the others.

    Args:
        values: [rows, n]; each row gets its own step.
        low: smallest integer.
        high: largest integer.

    Returns:
        [rows], positive.
    """
    largest = _step_of(values.abs().amax(1) / high)
    best, least = largest, torch.full_like(largest, math.inf)
    for i in range(MSE_CANDIDATES, 0, -1):
        step = (largest * (i / MSE_CANDIDATES)).clamp_min(MIN_STEP)
        error = (fake_quantise(values, step[:, None], low, high) - values).square_().sum(1)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best
