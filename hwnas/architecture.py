"""One network, completely described as data: a wiring and an operator for each of its slots. JSON, never code."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from torch import nn

from hwnas.errors import HwnasError, first_line, first_problem
from hwnas.files import write_text
from hwnas.networks import Slot, Wiring, parse_wiring
from hwnas.operators import LayerFactory, OperatorSpec, build_operator
from hwnas.operators.initialise import initialise
from hwnas.operators.layers import FloatLayers

SCHEMA_VERSION = 1

COLOURS = 3


class Architecture(BaseModel):
    """A point of a search space, or a network made by hand.

    Attributes:
        schema_version: version of this format.
        name: for people, and of the folder of a run; two architectures that differ in it alone are the same network.
        wiring: how the operators are connected.
        operators: slot name to operator, in the order of the wiring's slots.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str = Field(default="unnamed", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    wiring: Annotated[SerializeAsAny[Wiring], BeforeValidator(parse_wiring)]
    operators: dict[str, OperatorSpec]

    @field_validator("schema_version", mode="after")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if not 1 <= value <= SCHEMA_VERSION:
            raise ValueError(
                f"version {value} is not known to this hwnas (it reads up to {SCHEMA_VERSION}); upgrade hwnas"
            )
        return value

    @model_validator(mode="after")
    def _operators_fit_the_slots(self) -> Architecture:
        slots = self.wiring.slots
        names = [slot.name for slot in slots]
        if missing := [name for name in names if name not in self.operators]:
            raise ValueError(f"operators: {len(missing)} of {len(names)} layers are missing: {', '.join(missing)}")
        if unknown := [name for name in self.operators if name not in names]:
            raise ValueError(f"operators: the wiring has no layer {', '.join(unknown)}; it has {', '.join(names)}")
        for slot in slots:
            for field in ("in_channels", "out_channels"):
                found, wanted = getattr(self.operators[slot.name], field), getattr(slot, field)
                if found != wanted:
                    raise ValueError(f"operators.{slot.name}.{field} is {found}; the wiring needs {wanted}")
        return self

    @property
    def scale(self) -> int:
        """Enlargement, 2..4."""
        return self.wiring.scale

    @property
    def is_quantised(self) -> bool:
        return any(spec.is_quantised for spec in self.operators.values())

    @property
    def is_fully_quantised(self) -> bool:
        """Whether every operator computes in integers."""
        return all(spec.is_fully_quantised for spec in self.operators.values())

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of a hash of all that matters; the name does not."""
        content = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def receptive_radius(self) -> int:
        """Low-resolution pixels that an output pixel depends on at most, to each side; an upper bound.

        All convolutions are taken to follow each other. Enough for tiles whose result is that of the whole image.
        """
        reach = 2.0  # of the bicubic enlargement, where there is one
        for slot in self.wiring.slots:
            with torch.device("meta"):
                operator = build_operator(self.operators[slot.name], FloatLayers())
            sides = [max(m.kernel_size) // 2 for m in operator.modules() if isinstance(m, nn.Conv2d)]
            reach += slot.count * sum(sides) / slot.resolution
        return math.ceil(reach)

    def with_bits(self, bits: int) -> Architecture:
        """The same network with every layer at ``bits``."""
        operators = {name: spec.with_bits(bits) for name, spec in self.operators.items()}
        return self.model_copy(update={"operators": operators, "name": f"{self.name}-{bits}bit"})

    def build(self, layers: LayerFactory, image_layers: LayerFactory | None = None) -> nn.Module:
        """The network of these operators.

        Args:
            layers: what they are made of.
            image_layers: what the operator that reads the image is made of; None for the same. Luma is no image: it
                has other levels than bytes have.
        """
        first = self.wiring.slots[0]

        def make(slot: Slot) -> nn.Module:
            special = image_layers if slot == first and slot.in_channels == COLOURS else None
            operator = build_operator(self.operators[slot.name], special or layers)
            initialise(operator, slot.start)
            return operator

        return self.wiring.build(make)

    def save(self, path: Path) -> None:
        """Write the architecture as JSON, atomically."""
        write_text(path, self.model_dump_json(indent=2) + "\n")


def parse_architecture(text: str | bytes, source: str) -> Architecture:
    """An architecture from its JSON.

    Args:
        text: the JSON.
        source: where it came from, for the message.

    Raises:
        HwnasError: naming the source and the field that is wrong.
    """
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HwnasError(f"{source} is not JSON ({error}); expected an architecture written by hwnas") from error
    if not isinstance(data, dict):
        raise HwnasError(f"{source} holds no JSON object; expected an architecture written by hwnas")
    # A newer file may differ in anything: say that first, before its fields are held against today's.
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise HwnasError(
            f"{source}: schema_version: version {version} is newer than this hwnas ({SCHEMA_VERSION}); upgrade hwnas"
        )
    try:
        architecture = Architecture.model_validate(data)
    except ValidationError as error:
        raise HwnasError(f"{source}: {first_problem(error)}") from error
    # Only its builder knows what a kind needs, 'hidden' for one.
    for layer, spec in architecture.operators.items():
        try:
            with torch.device("meta"):
                build_operator(spec, FloatLayers())
        except (ValueError, RuntimeError) as error:
            raise HwnasError(f"{source}: operators.{layer}: {first_line(error)}") from error
    return architecture


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file; errors as `parse_architecture`, and if the file cannot be read."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    return parse_architecture(text, str(path))
