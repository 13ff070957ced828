"""The supernet of QuantNAS: every slot of the wiring holds all its candidates; one softmax per slot weighs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from hwnas.networks.wiring import Slot
from hwnas.operators import OperatorSpec
from hwnas.operators.initialise import initialise
from hwnas.searches.differentiable.supernet import Supernet
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.objective import Probabilities
from hwnas.searches.quantnas.search_layers import constant
from hwnas.spaces.space import Choice, LayerwiseSpace


def _terms(candidates: Sequence[OperatorSpec]) -> tuple[tuple[int, ...], ...]:
    """The alphas that are summed to the logits of the candidates: of each term, one for each candidate.

    Each has one of its own. Where weights and activations have widths of their own, it has one of each: the two are
    independent then, as in EdMIPS. Otherwise the expected cost could fall by alphas that the network does not notice.
    """
    pairs = [(spec.weight_bits, spec.activation_bits) for spec in candidates]
    weights, activations = (sorted(set(widths)) for widths in zip(*pairs, strict=True))
    if len(set(pairs)) == len(weights):
        return (tuple(range(len(candidates))),)
    return (
        tuple(weights.index(width) for width, _ in pairs),
        tuple(len(weights) + activations.index(width) for _, width in pairs),
    )


class QuantNASSupernet(Supernet[Probabilities]):
    """Every slot with all its candidates, several at a time computed as one convolution.

    Args:
        space: what may be chosen.
        quantization: how bit widths are mixed; irrelevant to a float space.
        merge: compute single convolutions together; see `MixedOperator`.
    """

    def __init__(self, space: LayerwiseSpace, quantization: Quantization = "noise", merge: bool = True) -> None:
        super().__init__()
        self.space = space
        self.noise = NoiseSource()
        self.layers = tuple(slot.name for slot in space.wiring.slots)
        self._mixed: dict[str, list[MixedOperator]] = {layer: [] for layer in self.layers}

        def make(slot: Slot) -> nn.Module:
            mixed = MixedOperator(space.choices[slot.name], quantization, self.noise, merge)
            for candidate in mixed.operators:
                initialise(candidate, slot.start)
            self._mixed[slot.name].append(mixed)
            return mixed

        self.network = space.wiring.build(make)
        self._terms = [_terms(space.choices[layer]) for layer in self.layers]
        self.alphas = nn.ParameterList(torch.zeros(1 + max(map(max, terms))) for terms in self._terms)

    def relaxed(self) -> Probabilities:
        """Softmax of the candidates' logits, [number of candidates] for each layer."""
        found = {}
        for layer, terms, alpha in zip(self.layers, self._terms, self.alphas, strict=True):
            found[layer] = torch.stack([alpha[constant(term, alpha)] for term in terms]).sum(0).softmax(0)
        return found

    def weights(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    def choose(self, choice: Choice | None) -> None:
        """Compute only these candidates from now on, rounded to their widths in evaluation; None: mix all again."""
        self.noise.refresh()
        for i, copies in enumerate(self._mixed.values()):
            for mixed in copies:
                mixed.choice = None if choice is None else choice[i]
                mixed.set_rounding(choice is not None)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what a float network has learned, in all copies of its operators.

        Args:
            weights: tensors by the names that they have there; see `float_weights`.
        """
        names = {id(mixed): name for name, mixed in self.network.named_modules() if isinstance(mixed, MixedOperator)}
        rest = dict(weights)
        for mixed in chain.from_iterable(self._mixed.values()):
            prefix = names[id(mixed)] + "."
            own = {name.removeprefix(prefix): rest.pop(name) for name in weights if name.startswith(prefix)}
            for operator in mixed.operators:
                # What a float network lacks are the steps of the quantisers.
                operator.load_state_dict(own, strict=False)
        self.network.load_state_dict(rest, strict=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer, p in self.relaxed().items():
            for mixed in self._mixed[layer]:
                mixed.probabilities = p
        out: Tensor = self.network(x)
        return out
