"""All candidates of a layer at once, weighted by their probabilities, and the trick that makes it cheap.

Candidates that are one convolution on the same map are one convolution together,
``sum_i a_i conv(W_i, x) = conv(sum_i a_i embed(W_i), x)``: small kernels padded into the largest, grouped ones placed
into dense. Weight noise folds in exactly, since it is added to ``W_i``. What remains apart is what has a non-linearity
inside.
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
class _Branch:
    """Candidates that share a module: one operator at several widths."""

    operator: nn.Module
    indices: tuple[int, ...]
    mixture: BitMixture
    activation: str

    @property
    def convolution(self) -> SearchConvolution | nn.Conv2d | None:
        """Its only convolution, where it is just that and can be merged."""
        if isinstance(self.operator, ConvChain) and len(self.operator.convolutions) == 1:
            only = self.operator.convolutions[0]
            return only if isinstance(only, SearchConvolution | nn.Conv2d) else None
        return None


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
            branches.append(_Branch(operator, tuple(indices), weights, twin.activation))
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
        groups: dict[str, list[tuple[Tensor, _Branch, SearchConvolution | nn.Conv2d]]] = {}
        for a, branch in zip(importances, stream.branches, strict=True):
            convolution = branch.convolution
            if convolution is None:
                outs.append(a * branch.operator(x))
            else:
                groups.setdefault(branch.activation, []).append((a, branch, convolution))
        for together in groups.values():
            kernel = (
                max(c.weight.shape[2] for _, _, c in together),
                max(c.weight.shape[3] for _, _, c in together),
            )
            weight, bias = None, None
            for a, _, c in together:
                part = embed(a * (c.mixed_weight() if isinstance(c, SearchConvolution) else c.weight), c.groups, kernel)
                weight = part if weight is None else weight + part
                if c.bias is not None:
                    bias = a * c.bias if bias is None else bias + a * c.bias
            first = together[0][1].operator
            assert isinstance(first, ConvChain) and weight is not None
            activated = first.activations[0](x)
            outs.append(convolve(activated, weight, bias))
        return outs

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
