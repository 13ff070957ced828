"""Sparsestmax: distributions that become one-hot as a radius grows (TrilevelNAS, eq. 2; Shao et al., SSN, CVPR 2019).

It maps logits to a distribution, as softmax does. With a radius of zero it is sparsemax (Martins & Astudillo, 2016),
the nearest distribution; with more, the nearest one of those that are so far from the uniform one. Public
implementations keep another distance where sparsemax is sparse by itself; this one is the projection as it is defined.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional


def largest_radius(size: int) -> float:
    """Distance of a one-hot distribution of so many entries from the uniform one: ``sqrt((K - 1) / K)``."""
    return math.sqrt((size - 1) / size)


def sparsestmax(logits: Tensor, radius: float) -> Tensor:
    """``argmin ||q - logits||^2`` over distributions with ``||q - 1/K|| >= radius``, along the last dimension.

    Of equal logits the first counts as larger. Differentiable once, in the logits; where the largest are equal and the
    radius decides between them, the gradient is taken for zero.

    Args:
        logits: [..., K], floating.
        radius: at least 0; from `largest_radius` of K on, the result is one-hot.

    Returns:
        [..., K]: non-negative, sum 1, exactly zero outside its support.

    Raises:
        ValueError: for a negative radius.
    """
    if radius < 0:
        raise ValueError(f"radius is {radius}; it is a distance, and not negative")
    weights: Tensor = _Sparsestmax.apply(logits, radius)
    return weights


def sparsemax(logits: Tensor) -> Tensor:
    """``argmin ||q - logits||^2`` over distributions, along the last dimension."""
    return sparsestmax(logits, 0.0)


class _Sparsestmax(Function):
    """Works in descending order, where a support is a number: it always is of the largest logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, radius: float) -> Tensor:
        size = logits.shape[-1]
        # In double precision: which regime a row is in is decided by differences of numbers that are close.
        z, order = logits.double().sort(dim=-1, descending=True, stable=True)
        places = torch.arange(1, size + 1, device=z.device)
        weights, support = _nearest(z - z[..., :1], places)
        direction, factor = torch.zeros_like(z), torch.ones_like(z[..., :1])
        if radius >= largest_radius(size):
            weights, support = (places == 1).double().expand_as(z), torch.ones_like(support)
        else:
            short = (weights - 1 / size).square().sum(-1, keepdim=True) < radius**2
            if short.any():
                pushed = _pushed(z, support, short, radius, places)
                for mine, theirs in zip((weights, support, direction, factor), pushed, strict=True):
                    mine.copy_(torch.where(short, theirs, mine))
        inside = places <= support

        def unsorted(x: Tensor) -> Tensor:
            return torch.zeros_like(x).scatter(-1, order, x)

        ctx.save_for_backward(unsorted(inside.double()), unsorted(direction), factor)
        return unsorted(weights).to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        inside, direction, factor = ctx.saved_tensors
        g = gradient.double() * inside
        g = (g - g.sum(-1, keepdim=True) / inside.sum(-1, keepdim=True)) * inside
        g = factor * (g - direction * (direction * g).sum(-1, keepdim=True))
        return g.to(gradient.dtype), None


def _nearest(z: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Sparsemax of descending rows, and how many entries it keeps."""
    sums = z.cumsum(-1)
    support = (1 + places * z > sums).sum(-1, keepdim=True).clamp_min(1)
    threshold = (sums.gather(-1, support - 1) - 1) / support
    return (z - threshold).clamp_min(0), support


def _pushed(
    z: Tensor, support: Tensor, short: Tensor, radius: float, places: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows pushed away from the centre of their face onto the sphere, until no entry is negative.

    Returns:
        Weights, supports, unit directions, and the factor of the gradient.
    """
    size = z.shape[-1]
    # Stands for the differences of logits that have none.
    ramp = -places.double().expand_as(z)
    while True:
        inside = places <= support
        direction, length = _from_mean(z, inside, support)
        tied = length == 0
        direction = torch.where(tied, _from_mean(ramp, inside, support)[0], direction)
        direction = functional.normalize(direction, dim=-1, eps=torch.finfo(z.dtype).tiny)
        share = 1 / support.double()
        rho = (radius**2 + 1 / size - share).clamp_min(0).sqrt()
        weights = torch.where(inside, share + rho * direction, 0.0)
        again = short & (weights < 0).any(-1, keepdim=True)
        if not again.any():
            factor = torch.where(tied, 0.0, rho / torch.where(tied, 1.0, length))
            return weights, support, direction, factor
        _, fewer = _nearest(torch.where(inside, weights, -torch.inf), places)
        support = torch.where(again, torch.minimum(fewer, support - 1), support)


def _from_mean(z: Tensor, inside: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """What entries inside differ from their mean by, and the length of that."""
    mean = torch.where(inside, z, 0.0).sum(-1, keepdim=True) / support
    difference = torch.where(inside, z - mean, 0.0)
    return difference, difference.norm(dim=-1, keepdim=True)
