"""The unit that costs, tables, supernets and networks share: one operator, described completely, as data.

An `OperatorSpec` names a *kind* and its sizes. The kind is a builder registered under that name; it turns the spec
into a module with the layers of a `LayerFactory`, so that one builder serves the float network, the fake-quantised one
and the supernet. Whatever can be built can be traced and costed: a new kind needs its builder and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.registry import Registry

if TYPE_CHECKING:
    from torch import nn

FLOAT_BITS = 32
"""Bits of an operand that is not quantised."""

SUPPORTED_BITS = (2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)

Bits = Annotated[int, Field(json_schema_extra={"enum": list(SUPPORTED_BITS)})]


class OperatorSpec(BaseModel):
    """One operator of a network.

    Attributes:
        kind: registered name of the builder: ``conv``, ``separable_conv``, ``growth``, ``decenc``, ``edge_oriented``,
            ``conv_cell``, ``inverted_bottleneck``, ``residual_block``, ``depthwise_block``, or a user's own.
        in_channels: channels it reads.
        out_channels: channels it writes; the height and width stay the same.
        kernel: side of its (largest) kernel; odd.
        groups: groups of its convolutions.
        hidden: channels between its convolutions, where it has several.
        repeats: blocks in a row, where it is made of such.
        residual: its first map is added to its last, where it is made of several blocks.
        activation: what precedes each of its convolutions, or of a cell or block the first alone. ``none`` is for
            inputs that may be negative, ``rectified`` for those that cannot be, and need nothing.
        bias: whether its convolutions have one.
        weight_bits: 2..8, or 32 for float.
        activation_bits: 2..8, or 32 for float.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    in_channels: int = Field(gt=0)
    out_channels: int = Field(gt=0)
    kernel: int = Field(default=3, gt=0)
    groups: int = Field(default=1, gt=0)
    hidden: int | None = Field(default=None, gt=0)
    repeats: int = Field(default=1, gt=0, le=64)
    residual: bool = False
    activation: Literal["relu", "none", "rectified"] = "relu"
    bias: bool = False
    weight_bits: Bits = FLOAT_BITS
    activation_bits: Bits = FLOAT_BITS

    @model_validator(mode="after")
    def _check(self) -> OperatorSpec:
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) not in SUPPORTED_BITS:
                raise ValueError(f"{name} = {getattr(self, name)} is not supported; use 2 to 8, or 32 for float")
        # Runtimes that find quantised maps about float weights quantise these by themselves.
        if self.weight_bits == FLOAT_BITS != self.activation_bits:
            raise ValueError(
                f"weight_bits = {FLOAT_BITS} with activation_bits = {self.activation_bits}: float weights need float "
                "activations; quantise both, or the weights alone"
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel} is even; 'same' padding needs an odd one")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"groups = {self.groups} does not divide {name} = {getattr(self, name)}; "
                    f"take a multiple of {self.groups}"
                )
        if self.kind not in OPERATORS:
            known = ", ".join(sorted(OPERATORS))
            raise ValueError(
                f"kind = {self.kind!r} is not a known operator ({known}); register it with @register_operator"
            )
        return self

    def with_bits(self, bits: int, activation_bits: int | None = None) -> OperatorSpec:
        """The same operator with other widths (activations as wide as weights unless told)."""
        return OperatorSpec(**{**dict(self), "weight_bits": bits, "activation_bits": activation_bits or bits})

    @property
    def float_twin(self) -> OperatorSpec:
        """The same operator without quantisation: what is traced for costs and shared between widths."""
        return self.with_bits(FLOAT_BITS)

    @property
    def is_quantised(self) -> bool:
        return self.weight_bits != FLOAT_BITS or self.activation_bits != FLOAT_BITS

    @property
    def is_fully_quantised(self) -> bool:
        return FLOAT_BITS not in (self.weight_bits, self.activation_bits)

    @property
    def label(self) -> str:
        """Short name for tables: ``conv3x3 g3 @8``."""
        parts = [f"{self.kind}{self.kernel}x{self.kernel}"]
        if self.groups > 1:
            parts.append(f"g{self.groups}")
        if self.hidden:
            parts.append(f"h{self.hidden}")
        if self.repeats > 1:
            parts.append(f"x{self.repeats}")
        if self.residual:
            parts.append("+")
        if self.is_quantised:
            same = self.weight_bits == self.activation_bits
            parts.append(f"@{self.weight_bits}" if same else f"@w{self.weight_bits}a{self.activation_bits}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class ConvShape:
    """The sizes of one stride-1 'same' convolution.

    Raises:
        ValueError: if a side of the kernel is even.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    groups: int = 1

    def __post_init__(self) -> None:
        if not all(side % 2 for side in self.kernel):
            raise ValueError(f"kernel {self.kernel} has an even side; 'same' padding needs odd ones")

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros on either side that keep height and width."""
        return self.kernel[0] // 2, self.kernel[1] // 2


class LayerFactory(Protocol):
    """Makes the two layers that operators consist of; what differs between float, quantised and searched networks."""

    def activation(self, spec: OperatorSpec) -> nn.Module:
        """The activation before a convolution, quantising its output to ``spec.activation_bits``."""
        ...

    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Module:
        """A convolution whose weights have ``spec.weight_bits``, with a bias where ``spec.bias`` says so."""
        ...


Builder = Callable[[OperatorSpec, LayerFactory], "nn.Module"]

OPERATORS: Registry[Builder] = Registry("operator", "hwnas.operators")


def register_operator(kind: str) -> Callable[[Builder], Builder]:
    """Register a builder as operator ``kind``.

    Example:
        >>> from torch import nn
        >>> @register_operator("doctest_pointwise_twice")
        ... def build(spec, layers):
        ...     return nn.Sequential(
        ...         layers.activation(spec),
        ...         layers.convolution(spec, ConvShape(spec.in_channels, spec.out_channels, (1, 1))),
        ...         layers.activation(spec),
        ...         layers.convolution(spec, ConvShape(spec.out_channels, spec.out_channels, (1, 1))),
        ...     )
        >>> from hwnas.cost_models import cost_model
        >>> spec = OperatorSpec(kind="doctest_pointwise_twice", in_channels=8, out_channels=4)
        >>> cost_model("flops").operator_cost(spec, (10, 10))
        4800
        >>> OPERATORS.remove("doctest_pointwise_twice")
    """
    return OPERATORS.register(kind)


def build_operator(spec: OperatorSpec, layers: LayerFactory) -> nn.Module:
    """The module of ``spec``, mapping [B, in_channels, H, W] to [B, out_channels, H, W]."""
    return OPERATORS[spec.kind](spec, layers)
