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

from hwnas.errors import UsageError
from hwnas.operators import FLOAT_BITS, LayerFactory, OperatorSpec, build_operator
from hwnas.operators.chains import ConvChain
from hwnas.operators.layers import FloatLayers
from hwnas.searches.quantnas.convolve import convolve
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.search_layers import BitMixture, NoiseLayers, SearchConvolution, SharedLayers

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
    """Candidates that share a module: one operator at several widths."""

    operator: nn.Module
    indices: tuple[int, ...]
    mixture: BitMixture


@dataclass(frozen=True)
class _Stream:
    """Branches that read the same quantised map."""

    branches: tuple[_Branch, ...]
    indices: tuple[int, ...]
    mixture: BitMixture


class MixedOperator(nn.Module):
    """The candidates of one slot.

    Args:
        candidates: operators x bits.
        quantization: how widths are mixed: ``noise``, ``shared``, or ``independent`` weights for each.
        noise: where noise comes from.
        merge: compute candidates that are single convolutions together. False computes one by one, as published.

    Raises:
        UsageError: if a candidate's weights and activations differ in width.
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
        if uneven := [spec.label for spec in candidates if spec.weight_bits != spec.activation_bits]:
            raise UsageError(
                f"candidate {uneven[0]} has weights and activations of different widths, which the QuantNAS search "
                "does not mix; give them the same"
            )
        self.merge = merge
        self.choice: int | None = None
        self.operators = nn.ModuleList()
        widths = sorted({spec.weight_bits for spec in candidates})
        by_stream = [[b] for b in widths] if quantization == "independent" else [widths]
        self._streams = tuple(self._stream(candidates, bits, quantization, noise) for bits in by_stream)

    def _stream(
        self,
        candidates: Sequence[OperatorSpec],
        bits: list[int],
        quantization: Quantization,
        noise: NoiseSource,
    ) -> _Stream:
        inside = [i for i, spec in enumerate(candidates) if spec.weight_bits in bits]
        activations = BitMixture(tuple(bits))
        twins: dict[OperatorSpec, list[int]] = {}
        for i in sorted(inside, key=lambda i: candidates[i].weight_bits):
            twins.setdefault(candidates[i].float_twin, []).append(i)
        branches = []
        for twin, indices in twins.items():
            weights = BitMixture(tuple(candidates[i].weight_bits for i in indices))
            layers: LayerFactory
            if bits == [FLOAT_BITS]:
                layers = FloatLayers()
            elif quantization == "noise":
                layers = NoiseLayers(weights, activations, noise)
            else:
                layers = SharedLayers(weights, activations)
            operator = build_operator(twin, layers)
            self.operators.append(operator)
            branches.append(_Branch(operator, tuple(indices), weights))
        return _Stream(tuple(branches), tuple(inside), activations)

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
        p = self.probabilities
        widths = stream.mixture.widths
        marginal = [p.new_zeros(())] * len(widths)
        importances = []
        for branch in stream.branches:
            mine = p[list(branch.indices)]
            importance = mine.sum()
            importances.append(importance)
            branch.mixture.weights = mine / importance.clamp_min(1e-12)
            for share, bits in zip(mine, branch.mixture.widths, strict=True):
                marginal[widths.index(bits)] = marginal[widths.index(bits)] + share
        weights = torch.stack(marginal)
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
            for branch in stream.branches:
                if choice in branch.indices:
                    one_hot = torch.zeros(len(branch.indices), device=x.device)
                    one_hot[branch.indices.index(choice)] = 1
                    branch.mixture.weights = one_hot
                    bits = branch.mixture.widths[branch.indices.index(choice)]
                    stream.mixture.weights = torch.tensor(
                        [float(b == bits) for b in stream.mixture.widths], device=x.device
                    )
                    out: Tensor = branch.operator(x)
                    return out
        raise IndexError(f"no candidate {choice}")
