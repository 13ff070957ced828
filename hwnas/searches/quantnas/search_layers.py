"""Layers of the supernet: weights and activations at a mixture of bit widths.

Two ways to make a mixture (QuantNAS, section 3.3). *Noise* (SAN, eqs. 7 and 8) adds Gaussian noise as strong as the
rounding error of each width; *shared* (SW, eq. 6) mixes the tensor quantised at each width. Separate weights for each
width are shared layers whose mixture has one width.

Activations take the distribution of widths of the whole layer, since all candidates read one map; weights take that of
their own operator. The two agree where the search starts (uniform) and where it ends (one candidate).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from hwnas.operators import FLOAT_BITS, ConvShape, OperatorSpec
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.hwgq import hwgq_quantise
from hwnas.quantization.lsq import WeightStep, lsq_quantise
from hwnas.searches.quantnas.convolve import convolve
from hwnas.searches.quantnas.noise import NoiseSource, activate_with_noise


@lru_cache(maxsize=4096)
def _constant(values: tuple[int, ...] | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or what is first asked for while validating could not be trained with
        return torch.tensor(values, dtype=dtype, device=device)


def constant(values: tuple[int, ...] | tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers where ``like`` is, copied once: a GPU waits for a copy. Integers are indices, others of its type."""
    dtype = torch.long if values and isinstance(values[0], int) else like.dtype
    return _constant(values, dtype, like.device)


@dataclass(eq=False)
class BitMixture:
    """A distribution over widths, set before each forward by the mixed operator that owns it.

    Attributes:
        widths: bits, ascending.
        weights: [len(widths)], non-negative, sum 1.
        rounding: in evaluation, really round to the grid of the mixture instead of leaving the tensor clean: the
            deterministic counterpart of the noise, for judging a derived choice of widths.
    """

    widths: tuple[int, ...]
    weights: Tensor = field(init=False)
    rounding: bool = False

    def __post_init__(self) -> None:
        self.weights = torch.full((len(self.widths),), 1 / len(self.widths))

    def expected_step(self) -> Tensor:
        """Scalar: mean over the widths of 1 / (2^b - 1), the rounding step of a tensor whose range is 1."""
        steps = tuple(0.0 if b == FLOAT_BITS else 1 / (2**b - 1) for b in self.widths)
        # No product of matrices, which would be of half precision where that is mixed in.
        return (self.weights * constant(steps, self.weights)).sum()


def _round_to(x: Tensor, step: Tensor) -> Tensor:
    return torch.where(step > 0, torch.round(x / step.clamp_min(1e-12)) * step, x)


class SearchConvolution(nn.Module, ABC):
    """A convolution with mixed weights; subclasses say how they are mixed."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, spec: OperatorSpec, shape: ConvShape, mixture: BitMixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.groups = shape.groups
        # Initialised as torch initialises its own convolutions.
        reference = FloatLayers().convolution(spec, shape)
        self.weight = reference.weight
        self.bias = reference.bias

    @abstractmethod
    def mixed_weight(self) -> Tensor:
        """The kernel to convolve with, [out_channels, in_channels / groups, height, width]."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.mixed_weight(), self.bias, self.groups)


class NoiseConvolution(SearchConvolution):
    """``W + sum_b a_b (D_b / 2) z`` with ``D_b = range / (2^b - 1)`` for each output channel; clean in evaluation."""

    def __init__(self, spec: OperatorSpec, shape: ConvShape, mixture: BitMixture, noise: NoiseSource) -> None:
        super().__init__(spec, shape, mixture)
        self.noise = noise

    def mixed_weight(self) -> Tensor:
        weight = self.weight
        if not self.training and not self.mixture.rounding:
            return weight
        flat = weight.detach().flatten(1)
        spread = (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
        step = spread * self.mixture.expected_step()
        if not self.training:
            return _round_to(weight, step)
        return weight + step / 2 * self.noise.draw(weight)


class NoiseActivation(nn.Module):
    """The activation plus noise; its range is taken over the map (zero to maximum after a ReLU)."""

    def __init__(self, spec: OperatorSpec, mixture: BitMixture, noise: NoiseSource) -> None:
        super().__init__()
        self.rectify = spec.activation == "relu"
        self.mixture = mixture
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.mixture.rounding:
            return x.relu() if self.rectify else x
        spread = x.detach().amax().clamp_min(0) if self.rectify else x.detach().amax() - x.detach().amin()
        step = spread * self.mixture.expected_step()
        if not self.training:
            return _round_to(x.relu() if self.rectify else x, step)
        return activate_with_noise(x, self.noise.draw(x), step / 2, self.rectify)


class SharedConvolution(SearchConvolution):
    """``sum_b a_b Q(W, b)`` with LSQ steps of its own for each width and output channel."""

    def __init__(self, spec: OperatorSpec, shape: ConvShape, mixture: BitMixture) -> None:
        super().__init__(spec, shape, mixture)
        self.steps = nn.ModuleDict({str(b): WeightStep(self.weight, b) for b in mixture.widths if b != FLOAT_BITS})

    def mixed_weight(self) -> Tensor:
        versions = [
            self.weight if b == FLOAT_BITS else lsq_quantise(self.weight, self.steps[str(b)](self.weight), b)
            for b in self.mixture.widths
        ]
        return _mix(versions, self.mixture)


class SharedActivation(nn.Module):
    """``sum_b a_b G(x, b)`` with HWGQ's fixed steps.

    HWGQ is of half-waves: a map that may be negative is rounded to steps of its range, as many as the width has, with
    the gradient of the identity.
    """

    def __init__(self, spec: OperatorSpec, mixture: BitMixture) -> None:
        super().__init__()
        self.signed = spec.activation == "none"
        self.mixture = mixture

    def forward(self, x: Tensor) -> Tensor:
        quantise = _round_to_range if self.signed else hwgq_quantise
        clean = x if self.signed else x.relu()
        return _mix([clean if b == FLOAT_BITS else quantise(x, b) for b in self.mixture.widths], self.mixture)


def _round_to_range(x: Tensor, bits: int) -> Tensor:
    exact = x.detach()
    step = (exact.amax() - exact.amin()) / (2**bits - 1)
    return x + (_round_to(exact, step) - exact)


def _mix(versions: list[Tensor], mixture: BitMixture) -> Tensor:
    if len(versions) == 1:
        return versions[0]
    return torch.stack([v * w for v, w in zip(versions, mixture.weights, strict=True)]).sum(0)


class NoiseLayers:
    """A `LayerFactory` for search against noise."""

    def __init__(self, weights: BitMixture, activations: BitMixture, noise: NoiseSource) -> None:
        self.weights = weights
        self.activations = activations
        self.noise = noise

    def activation(self, spec: OperatorSpec) -> nn.Module:
        return NoiseActivation(spec, self.activations, self.noise)

    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Module:
        return NoiseConvolution(spec, shape, self.weights, self.noise)


class SharedLayers:
    """A `LayerFactory` for search with quantised weights and activations."""

    def __init__(self, weights: BitMixture, activations: BitMixture) -> None:
        self.weights = weights
        self.activations = activations

    def activation(self, spec: OperatorSpec) -> nn.Module:
        return SharedActivation(spec, self.activations)

    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Module:
        return SharedConvolution(spec, shape, self.weights)
