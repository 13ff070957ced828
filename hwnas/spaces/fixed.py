"""The space of a network that is there: its operators stay, and the widths of each layer are searched (EdMIPS).

Source: Cai and Vasconcelos, "Rethinking differentiable search for mixed-precision neural networks", CVPR 2020; the
comparison of QuantNAS, section 4.3 and table 1.
"""

from __future__ import annotations

from pydantic import ValidationError

from hwnas.errors import UsageError, first_problem
from hwnas.operators import FLOAT_BITS
from hwnas.spaces.lookup import find_architecture, is_published
from hwnas.spaces.space import SPACES, LayerwiseSpace, SpaceOptions

BITS = (4, 8)
"""Widths unless told, as in the comparison of QuantNAS."""


@SPACES.register("fixed")
def fixed_space(options: SpaceOptions) -> LayerwiseSpace:
    """The network ``options.fixed``, each layer in every one of the widths ({4, 8} unless told).

    Where activations have widths of their own, those of float weights are float, as in every operator.
    """
    given = options.given("fixed", ("fixed", "separate"))
    if "fixed" not in given:
        raise UsageError("space fixed is that of a network; name it by --fixed")
    name, bits = given["fixed"], tuple(sorted(set(options.bits or BITS)))
    # A preset that adds the bicubic enlargement does so to published networks; those of users are as they are.
    architecture = find_architecture(name, options.scale, None, options.bicubic if is_published(name) else None)
    try:
        choices = {
            layer: tuple(
                spec.with_bits(weights, activations)
                for weights in bits
                for activations in (bits if given.get("separate") else (weights,))
                if weights != FLOAT_BITS or activations == FLOAT_BITS
            )
            for layer, spec in architecture.operators.items()
        }
        return LayerwiseSpace(name=f"{architecture.name}-bits", wiring=architecture.wiring, choices=choices, fixed=name)
    except ValidationError as error:
        raise UsageError(f"space fixed: {first_problem(error)}") from error
