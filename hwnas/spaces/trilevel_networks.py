"""Networks of TrilevelNAS and AGD from their genotypes, and those that were published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hwnas.architecture import Architecture
from hwnas.errors import UsageError
from hwnas.networks.nearest import factors
from hwnas.networks.trilevel import CELL, UPSAMPLE, Backbone, TrilevelWiring
from hwnas.operators import FLOAT_BITS, OperatorSpec
from hwnas.spaces.named import NAMED

EXPANSION = 4
"""Channels inside a depthwise block, as a multiple of those that it reads."""

WIDTHS = (24, 32, 40, 56, 64)
"""Channels that a layer may write, as published."""

OPERATORS = ("skip", "conv3x3", "residual", "dwsblock")
"""The four operators of a layer, as published; all bias-free and rectified."""

_KINDS: dict[str, dict[str, Any]] = {
    "skip": {"kind": "conv_cell", "kernel": 1},
    "conv3x3": {"kind": "conv_cell", "kernel": 3},
    "residual": {"kind": "residual_block", "kernel": 3},
    "dwsblock": {"kind": "depthwise_block", "kernel": 3},
}


def parse_operator(name: str) -> dict[str, Any]:
    """The fields of an operator by its name, which may end in the groups of a convolution: ``conv3x3_g4``.

    Raises:
        ValueError: if there is none of that name.
    """
    plain, _, groups = name.partition("_g")
    if plain not in _KINDS or (groups and not (plain == "conv3x3" and groups.isdecimal() and int(groups))):
        raise ValueError(f"{name!r} is no operator of a cell; there are: {', '.join(_KINDS)}, and conv3x3_g2 and so on")
    return _KINDS[plain] | ({"groups": int(groups)} if groups else {})


def layer_spec(operator: str, read: int, written: int, signed: bool, bits: int = FLOAT_BITS) -> OperatorSpec:
    """A layer of a cell.

    Args:
        operator: its name; see `parse_operator`.
        read: channels that it reads.
        written: channels that it writes.
        signed: whether what it reads may be negative, as of the first layer of a cell.
        bits: of weights and activations.
    """
    fields = parse_operator(operator)
    if fields["kind"] == "depthwise_block":
        fields["hidden"] = EXPANSION * read
    fields["activation"] = "none" if signed else "rectified"
    return OperatorSpec(in_channels=read, out_channels=written, weight_bits=bits, activation_bits=bits, **fields)


def end_spec(name: str, read: int, written: int, bits: int = FLOAT_BITS) -> OperatorSpec:
    """A convolution outside cells, by the name of its slot: all have biases, and read signed maps but for the stem."""
    return OperatorSpec(
        kind="conv",
        in_channels=read,
        out_channels=written,
        activation="rectified" if name == "stem" else "none",
        bias=True,
        weight_bits=bits,
        activation_bits=bits,
    )


def assemble(
    name: str, wiring: TrilevelWiring, operators: Sequence[Sequence[str]], bits: int = FLOAT_BITS
) -> Architecture:
    """The network of a wiring with these operators in its cells.

    Args:
        name: for people.
        wiring: path and widths.
        operators: of each cell, the names of its layers'.
        bits: of all layers.

    Raises:
        ValidationError: if they are not those of a network.
    """
    specs = {}
    for slot in wiring.slots:
        kind, *place = slot.name.split(".")
        if kind == "cell":
            cell, layer = map(int, place)
            sizes = slot.in_channels, slot.out_channels
            specs[slot.name] = layer_spec(operators[cell][layer], *sizes, signed=layer == 0, bits=bits)
        else:
            specs[slot.name] = end_spec(slot.name, slot.in_channels, slot.out_channels, bits)
    return Architecture(name=name, wiring=wiring, operators=specs)


PUBLISHED: dict[str, tuple[Backbone, str, str, str]] = {
    "trilevel-a": (
        "a",
        "000101",
        "01001 33312 00103 11011",
        "64-24-24-24 32-32-64-24 64-64-40-32 24-64-32-32",
    ),
    "trilevel-b": ("b", "000", "30333 30131 20000", "32-32-24-40 24-56-24-24 64-24-24-24"),
    "agd": (
        "a",
        "0000011",
        "00000 33212 00000 13332 00000",
        "24-24-24-24 24-24-64-24 24-24-24-24 32-32-24-24 24-24-24-24",
    ),
}
"""Backbone, path, operators and widths of each cell, as published (TrilevelNAS, table 1; AGD, released genotype)."""


def _published(name: str) -> Callable[[int | None, bool], Architecture]:
    backbone, path, operators, widths = PUBLISHED[name]

    def build(scale: int | None, bicubic: bool) -> Architecture:
        enlargement = scale or 4
        steps = [int(step) for step in path]
        if name == "agd":  # cells first, and as many upsamplings as it takes
            steps = [CELL] * steps.count(CELL) + [UPSAMPLE] * len(factors(enlargement))
        elif backbone == "a" and enlargement != 4:
            raise UsageError(f"{name} upsamples between its cells, twice by 2: it is of --scale 4")
        wiring = TrilevelWiring(
            scale=enlargement,  # type: ignore[arg-type]
            backbone=backbone,
            path=tuple(steps),
            widths=tuple(tuple(map(int, cell.split("-"))) for cell in widths.split()),
            trunk=name == "agd",
            bicubic=bicubic,
        )
        return assemble(name, wiring, [[OPERATORS[int(o)] for o in cell] for cell in operators.split()])

    return build


for _name in PUBLISHED:
    NAMED.register(_name)(_published(_name))
