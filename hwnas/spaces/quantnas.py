"""The two search spaces of QuantNAS: appendix D.1 for float networks, D.2 with bit widths for quantised ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import ValidationError

from hwnas.errors import UsageError, first_problem
from hwnas.networks.adadm import Residual
from hwnas.networks.quantnas import QuantNASWiring
from hwnas.operators import FLOAT_BITS, OperatorSpec
from hwnas.spaces.space import SPACES, LayerwiseSpace, SpaceOptions

Candidate = Callable[[int, int, int], OperatorSpec]
"""(in_channels, out_channels, width of the network) to spec."""


def _conv(kernel: int, groups: int = 1) -> Candidate:
    return lambda i, o, c: OperatorSpec(kind="conv", in_channels=i, out_channels=o, kernel=kernel, groups=groups)


def _separable(kernel: int) -> Candidate:
    return lambda i, o, c: OperatorSpec(kind="separable_conv", in_channels=i, out_channels=o, kernel=kernel, hidden=c)


def _growth(kernel: int) -> Candidate:
    return lambda i, o, c: OperatorSpec(kind="growth", in_channels=i, out_channels=o, kernel=kernel, hidden=2 * c)


def _decenc(kernel: int, reduction: int) -> Candidate:
    return lambda i, o, c: OperatorSpec(
        kind="decenc", in_channels=i, out_channels=o, kernel=kernel, hidden=c // reduction
    )


_PLAIN = (_conv(3), _conv(5))
_GROUPED = (_conv(3, 3), _conv(5, 3))
_SEPARABLE = (_separable(5), _separable(3))

_D1_ENDS = (*_PLAIN, _growth(5), _growth(3), *_GROUPED, _conv(1, 3), _conv(1))
D1 = {
    "head": _D1_ENDS,
    "body": (*_PLAIN, *_GROUPED, _decenc(3, 2), _decenc(5, 2), _conv(1, 3)),
    "skip": (_decenc(3, 2), _decenc(5, 2), *_PLAIN),
    "upsample": (
        *_SEPARABLE,
        *_PLAIN,
        _growth(5),
        _growth(3),
        _decenc(3, 2),
        _decenc(5, 2),
        *_GROUPED,
        _conv(1, 3),
        _conv(1),
    ),
    "tail": _D1_ENDS,
}
"""Appendix D.1: 9,633,792 architectures."""

D2 = {
    # The appendix announces five operators for the head and names four.
    "head": (*_PLAIN, *_GROUPED),
    "body": (*_SEPARABLE, *_PLAIN),
    "skip": (_conv(1), *_PLAIN),
    "upsample": (*_SEPARABLE, *_PLAIN),
    "tail": (_conv(1), *_PLAIN),
}
"""Appendix D.2: 7,077,888 architectures with two bit widths."""


def _space(
    name: str,
    operators: dict[str, tuple[Candidate, ...]],
    bits: Iterable[int],
    residual: Residual,
    options: SpaceOptions,
) -> LayerwiseSpace:
    bits = tuple(sorted(set(options.bits or bits)))
    fields = {"residual": residual, **options.given(name, ("channels", "cells", "residual"))}
    if options.scale is not None:
        fields["scale"] = options.scale
    try:
        wiring = QuantNASWiring.model_validate(fields | {"bicubic": options.bicubic})
        choices = {
            slot.name: tuple(
                candidate(slot.in_channels, slot.out_channels, wiring.channels).with_bits(b)
                for candidate in operators[slot.name.split(".")[0]]
                for b in bits
            )
            for slot in wiring.slots
        }
        return LayerwiseSpace(name=name, wiring=wiring, choices=choices)
    except ValidationError as error:
        raise UsageError(f"space {name}: {first_problem(error)}") from error


@SPACES.register("quantnas")
def quantnas_space(options: SpaceOptions) -> LayerwiseSpace:
    """Appendix D.2 x bit widths ({4, 8} unless told), with AdaDM."""
    return _space("quantnas", D2, (4, 8), "adadm", options)


@SPACES.register("quantnas-float")
def quantnas_float_space(options: SpaceOptions) -> LayerwiseSpace:
    """Appendix D.1, not quantised unless told, without AdaDM."""
    return _space("quantnas-float", D1, (FLOAT_BITS,), "add", options)
