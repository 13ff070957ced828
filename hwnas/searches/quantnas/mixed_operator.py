"""All candidates of a layer at once, weighted by their probabilities, and the trick that makes it cheap.

Candidates that are one convolution on the same map are one convolution together,
``sum_i a_i conv(W_i, x) = conv(sum_i a_i embed(W_i), x)``: small kernels padded into the largest, grouped ones placed
into dense. Weight noise folds in exactly, since it is added to ``W_i``. Chains of convolutions, which have a
non-linearity inside, are computed one by one, but read the same activated map, noise included, and take ``a_i`` into
their last kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.operators import LayerFactory, OperatorSpec, build_operator
from hwnas.operators.chains import ConvChain
from hwnas.operators.layers import FloatLayers
from hwnas.searches.quantnas.convolve import convolve
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.search_layers import BitMixture, NoiseLayers, SearchConvolution, SharedLayers, constant

Quantization = Literal["noise", "shared", "independent"]


def embed(weight: Tensor, groups: int, kernel: tuple[int, int]) -> Tensor:
    """The dense ``kernel``-sized weight that convolves as a smaller, possibly grouped one does.

    Args:
        weight: [out_channels, in_channels / groups, kh, kw], kh and kw odd.
        groups: its groups.
        kernel: height and width of the result, odd, no smaller than kh and kw.

    Returns:
        [out_channels, in_channels, *kernel].
    """
    if groups > 1:
        out_channels, per_group = weight.shape[:2]
        block = out_channels // groups
        dense = [
            functional.pad(
                weight[g * block : (g + 1) * block], (0, 0, 0, 0, g * per_group, (groups - 1 - g) * per_group)
            )
            for g in range(groups)
        ]
        weight = torch.cat(dense)
    top, left = (kernel[0] - weight.shape[2]) // 2, (kernel[1] - weight.shape[3]) // 2
    return functional.pad(weight, (left, left, top, top)) if top or left else weight


@dataclass(frozen=True)
class _Kernel:
    """What a convolution computes with in this forward, scaled."""

    weight: Tensor
    bias: Tensor | None
    groups: int = 1

    @classmethod
    def of(cls, layer: SearchConvolution | nn.Conv2d, scale: Tensor) -> _Kernel:
        weight = layer.mixed_weight() if isinstance(layer, SearchConvolution) else layer.weight
        return cls(scale * weight, None if layer.bias is None else scale * layer.bias, layer.groups)

    @classmethod
    def merged(cls, kernels: Sequence[_Kernel]) -> _Kernel:
        """The one kernel that gives the sum of what all give."""
        height, width = (max(kernel.weight.shape[side] for kernel in kernels) for side in (2, 3))
        weights = [embed(kernel.weight, kernel.groups, (height, width)) for kernel in kernels]
        biases = [kernel.bias for kernel in kernels if kernel.bias is not None]
        return cls(torch.stack(weights).sum(0), torch.stack(biases).sum(0) if biases else None)

    def convolve(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.groups)


@dataclass(frozen=True)
class _Branch:
    """Candidates that share a module: one operator at several widths.

    Attributes:
        operator: the module.
        indices: of the candidates.
        mixture: of the widths of its weights.
        places: [len(indices)], which of these widths each candidate has.
    """

    operator: nn.Module
    indices: tuple[int, ...]
    mixture: BitMixture
    places: tuple[int, ...]


@dataclass(frozen=True)
class _Stream:
    """Branches that read the same quantised map.

    Attributes:
        branches: of them.
        mixture: of the widths of the map.
        places: for each branch, which of these widths each of its candidates reads.
    """

    branches: tuple[_Branch, ...]
    mixture: BitMixture
    places: tuple[tuple[int, ...], ...]


def _widths(spec: OperatorSpec) -> tuple[int, int]:
    return spec.weight_bits, spec.activation_bits


def _marginal(shares: Tensor, places: tuple[int, ...], count: int) -> Tensor:
    """[count]: the shares that each place has together."""
    return shares.new_zeros(count).index_add(0, constant(places, shares), shares)


class MixedOperator(nn.Module):
    """The candidates of one slot.

    Args:
        candidates: operators x bits.
        quantization: how widths are mixed: ``noise``, ``shared``, or ``independent`` weights for each. Where weights
            and activations have widths of their own, weights take the distribution of theirs, and the map that of its.
        noise: where noise comes from.
        merge: compute candidates that are single convolutions together. False computes one by one, as published.
    """

    probabilities: Tensor
    """[len(candidates)], set before each forward by the supernet."""

    def __init__(
        self,
        candidates: Sequence[OperatorSpec],
        quantization: Quantization,
        noise: NoiseSource,
        merge: bool = True,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.choice: int | None = None
        self.operators = nn.ModuleList()
        by_stream: dict[tuple[int, int] | None, list[int]] = {}
        for i in sorted(range(len(candidates)), key=lambda i: _widths(candidates[i])):
            by_stream.setdefault(_widths(candidates[i]) if quantization == "independent" else None, []).append(i)
        self._streams = tuple(self._stream(candidates, inside, quantization, noise) for inside in by_stream.values())

    def _stream(
        self,
        candidates: Sequence[OperatorSpec],
        inside: Sequence[int],
        quantization: Quantization,
        noise: NoiseSource,
    ) -> _Stream:
        """One of the candidates that are ``inside``, which are ordered by their widths."""
        activations = BitMixture(tuple(sorted({candidates[i].activation_bits for i in inside})))
        twins: dict[OperatorSpec, list[int]] = {}
        for i in inside:
            twins.setdefault(candidates[i].float_twin, []).append(i)
        branches = []
        for twin, indices in twins.items():
            weights = BitMixture(tuple(sorted({candidates[i].weight_bits for i in indices})))
            layers: LayerFactory
            if not any(candidates[i].is_quantised for i in inside):
                layers = FloatLayers()
            elif quantization == "noise":
                layers = NoiseLayers(weights, activations, noise)
            else:
                layers = SharedLayers(weights, activations)
            operator = build_operator(twin, layers)
            self.operators.append(operator)
            places = tuple(weights.widths.index(candidates[i].weight_bits) for i in indices)
            branches.append(_Branch(operator, tuple(indices), weights, places))
        reads = [tuple(activations.widths.index(candidates[i].activation_bits) for i in b.indices) for b in branches]
        return _Stream(tuple(branches), activations, tuple(reads))

    def set_rounding(self, rounding: bool) -> None:
        """See `BitMixture.rounding`."""
        for stream in self._streams:
            for mixture in (stream.mixture, *(branch.mixture for branch in stream.branches)):
                mixture.rounding = rounding

    def forward(self, x: Tensor) -> Tensor:
        if self.choice is not None:
            return self._chosen(x, self.choice)
        total: Tensor | None = None
        for stream in self._streams:
            importances = self._distribute(stream)
            for out in self._merged(stream, importances, x) if self.merge else self._one_by_one(stream, importances, x):
                total = out if total is None else total + out
        assert total is not None, "a slot has at least one candidate"
        return total

    def _distribute(self, stream: _Stream) -> list[Tensor]:
        """Hand the widths their probabilities; returns the importance of each branch."""
        p, count = self.probabilities, len(stream.mixture.widths)
        weights, importances = p.new_zeros(count), []
        for branch, reads in zip(stream.branches, stream.places, strict=True):
            mine = p[constant(branch.indices, p)]
            importance = mine.sum()
            importances.append(importance)
            shares = _marginal(mine, branch.places, len(branch.mixture.widths))
            branch.mixture.weights = shares / importance.clamp_min(1e-12)
            weights = weights + _marginal(mine, reads, count)
        stream.mixture.weights = weights / weights.sum().clamp_min(1e-12)
        return importances

    def _one_by_one(self, stream: _Stream, importances: list[Tensor], x: Tensor) -> list[Tensor]:
        return [a * branch.operator(x) for a, branch in zip(importances, stream.branches, strict=True)]

    def _merged(self, stream: _Stream, importances: list[Tensor], x: Tensor) -> list[Tensor]:
        outs = []
        activated: dict[str, Tensor] = {}
        single: dict[str, list[_Kernel]] = {}
        for a, branch in zip(importances, stream.branches, strict=True):
            chain = branch.operator
            # Not a subclass: what else it computes is not known.
            last = chain.convolutions[-1] if type(chain) is ConvChain else None
            if type(chain) is not ConvChain or not isinstance(last, SearchConvolution | nn.Conv2d):
                outs.append(a * branch.operator(x))
                continue
            kind = chain.activation
            if kind not in activated:
                activated[kind] = chain.activations[0](x)
            kernel = _Kernel.of(last, a)
            if len(chain.convolutions) == 1:
                single.setdefault(kind, []).append(kernel)
            else:
                outs.append(kernel.convolve(chain.last_map(activated[kind])))
        return outs + [_Kernel.merged(kernels).convolve(activated[kind]) for kind, kernels in single.items()]

    def _chosen(self, x: Tensor, choice: int) -> Tensor:
        for stream in self._streams:
            for branch, reads in zip(stream.branches, stream.places, strict=True):
                if choice in branch.indices:
                    i = branch.indices.index(choice)
                    for mixture, place in ((branch.mixture, branch.places[i]), (stream.mixture, reads[i])):
                        mixture.weights = torch.eye(len(mixture.widths), device=x.device)[place]
                    out: Tensor = branch.operator(x)
                    return out
        raise IndexError(f"no candidate {choice}")
