"""The supernet of QuantNAS: every slot of the wiring holds all its candidates; one softmax per slot weighs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from hwnas.networks.wiring import Slot
from hwnas.operators.initialise import initialise
from hwnas.searches.differentiable.supernet import Supernet
from hwnas.searches.quantnas.mixed_operator import MixedOperator, Quantization
from hwnas.searches.quantnas.noise import NoiseSource
from hwnas.searches.quantnas.objective import Probabilities
from hwnas.spaces.space import Choice, LayerwiseSpace


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
        self.alphas = nn.ParameterList(torch.zeros(len(space.choices[layer])) for layer in self.layers)

    def relaxed(self) -> Probabilities:
        """Softmax of the alphas, [number of candidates] for each layer."""
        return {layer: alpha.softmax(0) for layer, alpha in zip(self.layers, self.alphas, strict=True)}

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
